"""Flags that say where members are trained, shared by ``wsr train`` and the experiments."""

from typing import TYPE_CHECKING

from wsr.cli.flags import Flag, Group, Values

if TYPE_CHECKING:
    from wsr.training.sweep.run import Run


GROUP = Group(
    "Several processes",
    (
        Flag(
            "run",
            "Where members are trained: here trains all of them in this process; share trains one share and leaves "
            "the rest to other processes; ray trains on the workers of Ray, at RAY_ADDRESS or on this machine.",
            "here",
            allowed=("here", "share", "ray"),
        ),
        Flag(
            "share",
            "Share that this process trains under --run=share, counted from 0: 0/8 is the first of eight.",
            value="I/N",
            otherwise="read from WSR_SHARE, Slurm, Kubernetes or SkyPilot",
        ),
        Flag(
            "unit_takes",
            "Resources that one group of members occupies under --run=ray.",
            kind=tuple,
            value="NAME=COUNT,...",
            otherwise="one GPU or TPU chip if the cluster has any, else one CPU",
        ),
    ),
)
"""Where a population is trained."""


def run_of(values: Values) -> "Run":
    """Returns the way to run a sweep that the flags name."""
    from wsr.errors import WsrError
    from wsr.training.sweep.run import HERE
    from wsr.training.sweep.share import parse_share, share_of_environment

    for flag, way in (("share", "share"), ("unit_takes", "ray")):
        if values[flag].value is not None and values.run != way:
            raise WsrError(f"--{flag} goes with --run={way}, found --run={values.run}")
    if values.run == "share":
        return parse_share(values.share) if values.share is not None else share_of_environment()
    if values.run == "ray":
        import jax

        from wsr.training.sweep.ray_engine import OnRay

        # A process that opens an accelerator holds it, and the workers need this machine's.
        jax.config.update("jax_platforms", "cpu")
        return OnRay(None if values.unit_takes is None else dict(map(_resource, values.unit_takes)))
    return HERE


def _resource(text: str) -> tuple[str, float]:
    from wsr.errors import WsrError

    name, _, count = text.partition("=")
    try:
        taken = float(count)
    except ValueError:
        taken = 0.0
    if not name or not taken > 0:
        raise WsrError(f"--unit_takes={text}: expected NAME=COUNT, for example GPU=1")
    return name.strip(), taken
