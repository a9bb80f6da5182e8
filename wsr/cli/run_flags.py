"""Flags of where a sweep of members is trained, shared by ``wsr train`` and the experiments."""

from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from wsr.training.sweep.run import Run


def define(values: flags.FlagValues) -> None:
    """Defines them."""
    flags.DEFINE_enum(
        "run",
        "here",
        ["here", "share", "ray"],
        "Where members are trained: in this process; its share of them, the rest being left to other processes; on the "
        "workers of Ray, those at RAY_ADDRESS or of this machine.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "share",
        None,
        "With --run=share: I/N, which of N shares, counted from 0; by default what WSR_SHARE, Slurm, Kubernetes or "
        "SkyPilot say.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "unit_takes",
        None,
        "With --run=ray: what members trained together occupy, as in GPU=1 or CPU=4; by default one GPU or TPU chip "
        "where the cluster has any, else one CPU.",
        flag_values=values,
    )


def run_of(values: flags.FlagValues) -> "Run":
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

        # The accelerators of this machine are for its workers: who looks at one holds it.
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
        raise WsrError(f"--unit_takes={text}: expected NAME=COUNT as in GPU=1")
    return name.strip(), taken
