"""tells what studies, or a population of one's own, would take on a machine: members, tokens, operations, memory, disk,
hours, machines, and everything that this assumes. --preset=paper with all studies or some (--studies=a,b), or numbers:
--members=280 --texts=2000 --epochs=10 --length=64 --base=roberta-base --points=500 --texts_a_point=1000."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from wsr.planning.hardware import Hardware
    from wsr.studies.harness.preset import Preset
    from wsr.studies.harness.work import Work


def define(values: flags.FlagValues) -> None:
    """Defines the verb's flags."""
    text, number, real = flags.DEFINE_string, flags.DEFINE_integer, flags.DEFINE_float
    text("preset", None, "Whose studies: smoke, packaged or paper.", flag_values=values)
    flags.DEFINE_list("studies", [], "Of the preset; by default all.", flag_values=values)
    text(
        "hardware",
        "here",
        "v5e-8, v4-8, v5p-8, v6e-8, h100, a100-8, l4, epyc-16 ...; here measures this machine.",
        flag_values=values,
    )
    text("base", None, "A checkpoint whose config is at hand.", flag_values=values)
    real("parameters", None, "Of a model, in place of --base.", lower_bound=1, flag_values=values)
    number("members", 0, "To fine-tune.", lower_bound=0, flag_values=values)
    number("texts", 0, "That a member is fine-tuned on.", lower_bound=0, flag_values=values)
    real("epochs", 1.0, "Passes over them.", lower_bound=0, flag_values=values)
    number("batch_size", 32, "Texts of a step.", lower_bound=1, flag_values=values)
    number("points", 0, "To evaluate.", lower_bound=0, flag_values=values)
    number("texts_a_point", 0, "That a point encodes: of probe and test.", lower_bound=0, flag_values=values)
    real(
        "length", None, "Mean tokens of a text; of a preset by default its longest.", lower_bound=1, flag_values=values
    )
    real("within_hours", 24.0, "When all of it is to be done.", lower_bound=0.01, flag_values=values)
    real("price", None, "Of a chip for an hour.", lower_bound=0, flag_values=values)


def run(values: flags.FlagValues, positional: Sequence[str]) -> None:
    """Prints the plan."""
    from wsr.cli.checks import refuse_positional
    from wsr.errors import WsrError
    from wsr.planning.hardware import find

    refuse_positional(positional)
    own = [name for name in ("members", "points") if values[name].value]
    if bool(values.preset) == bool(own):
        raise WsrError("give either --preset, or numbers: --members or --points")
    lines = _of_studies(values, find(values.hardware)) if values.preset else _by_numbers(values)
    print("\n".join(lines))


def _of_studies(values: flags.FlagValues, hardware: "Hardware") -> list[str]:
    from wsr.cli.checks import one_of
    from wsr.errors import WsrError
    from wsr.studies.harness.preset import PRESETS
    from wsr.studies.harness.work import planned

    for name in ("parameters", "texts", "texts_a_point", "epochs", "batch_size"):
        if values[name].present:
            raise WsrError(f"--{name} is for a population by numbers; with --preset it is the preset's")
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


def _by_numbers(values: flags.FlagValues) -> list[str]:
    from wsr.errors import WsrError
    from wsr.planning.by_numbers import plan

    if bool(values.base) == bool(values.parameters):
        raise WsrError("give either --base or --parameters")
    needed = ["length", *(["texts"] if values.members else []), *(["texts_a_point"] if values.points else [])]
    missing = [f"--{name}" for name in needed if not values[name].value]
    if missing:
        raise WsrError(f"{', '.join(missing)}: needed for a plan by numbers")
    names = ("base", "parameters", "members", "texts", "epochs", "batch_size", "points", "texts_a_point", "length")
    return plan(**{name: values[name].value for name in (*names, "hardware", "within_hours", "price")})


def _works(names: Sequence[str], preset_name: str, preset: "Preset") -> dict[str, "Work"]:
    """What each study would train and evaluate."""
    from wsr.cli.checks import one_of
    from wsr.errors import WsrError

    root = Path(__file__).parents[2]
    found = sorted((root / "experiments").glob("*.py"))
    known = [path.stem for path in found if "    launch(main, " in path.read_text(encoding="utf-8")]
    if not known:
        raise WsrError("studies are launched from a checkout of wsr, and this is none; plan by numbers: --members ...")
    for name in names:
        one_of("--studies", name, known)
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    modules = {name: importlib.import_module(f"experiments.{name}") for name in names or known}
    return {name: module.work(preset, module.SETTINGS[preset_name]) for name, module in modules.items()}
