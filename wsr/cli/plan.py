"""``wsr plan``: what a population or a study takes on a machine."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wsr.cli.flags import Flag, Group, Page, Values
from wsr.training.recipe import MODES, Recipe

if TYPE_CHECKING:
    from wsr.planning.hardware import Hardware
    from wsr.studies.harness.preset import Preset
    from wsr.studies.harness.work import Work


PAGE = Page(
    "wsr plan",
    "wsr plan (--preset=PRESET | --members=N | --points=N) [options]",
    "Estimate the operations, memory, disk, hours and machines that the paper's studies, or a population of your own, "
    "take on a machine, and list all assumptions.",
    (
        "wsr plan --preset=paper --hardware=v5e-8 --length=64",
        "wsr plan --members=280 --texts=2000 --epochs=10 --length=64 --parameters=125e6 --points=500 "
        "--texts_a_point=1000 --hardware=v5p-8",
    ),
    (
        Group(
            "Studies of a preset",
            (
                Flag("preset", "Preset whose studies are planned.", accepts="smoke, packaged or paper"),
                Flag("studies", "Studies to plan.", (), otherwise="all studies"),
            ),
        ),
        Group(
            "A population of your own",
            (
                Flag("members", "Number of members to fine-tune.", 0, at_least=0),
                Flag("texts", "Number of texts on which each member is fine-tuned.", 0, at_least=0),
                Flag("epochs", "Number of passes over these texts.", Recipe.epochs, at_least=0),
                Flag("batch_size", "Number of texts per step.", Recipe.batch_size, at_least=1),
                Flag("mode", "Which parameters are trained, as in wsr train.", Recipe.mode, allowed=MODES),
                Flag("points", "Number of points to evaluate.", 0, at_least=0),
                Flag(
                    "texts_a_point",
                    "Number of texts that each point encodes, in the probe and test splits together.",
                    0,
                    at_least=0,
                ),
                Flag(
                    "parameters",
                    "Number of parameters of the model; give this or --base.",
                    kind=float,
                    value="N",
                    at_least=1,
                ),
            ),
        ),
        Group(
            "Model and machine",
            (
                Flag("base", "Checkpoint whose config is on this machine.", otherwise="the preset's"),
                Flag(
                    "length",
                    "Mean number of tokens per text.",
                    kind=float,
                    value="TOKENS",
                    at_least=1,
                    otherwise="the preset's longest text; required for a population of your own",
                ),
                Flag(
                    "hardware",
                    "Machine: a chip and a number, such as v5e-8, v4-8, v5p-8, v6e-8, h100, a100-8, l4 or epyc-16; "
                    "here measures this machine.",
                    "here",
                    value="MACHINE",
                ),
                Flag("within_hours", "Hours within which all work must finish.", 24.0, value="HOURS", at_least=0.01),
                Flag("price", "Price of one chip for one hour, in any currency.", kind=float, at_least=0),
            ),
        ),
    ),
)


def run(values: Values, positional: Sequence[str]) -> None:
    """Prints the plan."""
    from wsr.errors import WsrError
    from wsr.planning.hardware import find

    own = [name for name in ("members", "points") if values[name].value]
    if bool(values.preset) == bool(own):
        raise WsrError(
            "give either --preset, to plan its studies, or --members or --points, to plan a population of your own"
        )
    lines = _of_studies(values, find(values.hardware)) if values.preset else _by_numbers(values)
    print("\n".join(lines))


def _of_studies(values: Values, hardware: "Hardware") -> list[str]:
    from wsr.cli.checks import one_of
    from wsr.errors import WsrError
    from wsr.studies.harness.preset import PRESETS
    from wsr.studies.harness.work import planned

    for name in ("parameters", "texts", "texts_a_point", "epochs", "batch_size", "mode"):
        if values[name].present:
            raise WsrError(f"--{name} is for a population of your own; with --preset the value is the preset's")
    one_of("--preset", values.preset, PRESETS)
    preset = PRESETS[values.preset]
    works = _works(values.studies, values.preset, preset)
    return [
        f"studies:              {', '.join(works)}",
        *planned(
            list(works.values()),
            preset,
            hardware,
            base=values.base,
            length=values.length,
            within_hours=values.within_hours,
            price=values.price,
        ),
    ]


def _by_numbers(values: Values) -> list[str]:
    from wsr.errors import WsrError
    from wsr.planning.by_numbers import plan

    if bool(values.base) == bool(values.parameters):
        raise WsrError("give either --base or --parameters")
    needed = ["length", *(["texts"] if values.members else []), *(["texts_a_point"] if values.points else [])]
    missing = [f"--{name}" for name in needed if not values[name].value]
    if missing:
        raise WsrError(f"{', '.join(missing)}: needed to plan a population of your own")
    names = ("base", "parameters", "members", "texts", "epochs", "batch_size", "mode", "points", "texts_a_point")
    return plan(**{name: values[name].value for name in (*names, "length", "hardware", "within_hours", "price")})


def _works(names: Sequence[str], preset_name: str, preset: "Preset") -> dict[str, "Work"]:
    """What each study would train and evaluate."""
    from wsr.cli.checks import one_of
    from wsr.errors import WsrError

    root = Path(__file__).parents[2]
    found = sorted((root / "experiments").glob("*.py"))
    known = [path.stem for path in found if "    launch(main, " in path.read_text(encoding="utf-8")]
    if not known:
        raise WsrError(
            "--preset needs a checkout of wsr, because studies are launched from its folder experiments/; without one, "
            "give --members or --points"
        )
    for name in names:
        one_of("--studies", name, known)
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    modules = {name: importlib.import_module(f"experiments.{name}") for name in names or known}
    return {name: module.work(preset, module.SETTINGS[preset_name]) for name, module in modules.items()}
