"""fine-tunes a population from a real encoder on real text, maps it, evaluates models between its members, and compares
its centroid with the pretrained model as a start. Interrupted or run again, it goes on with what is there."""

from collections.abc import Sequence
from pathlib import Path

from absl import flags


def define(values: flags.FlagValues) -> None:
    """Defines the verb's flags."""
    flags.DEFINE_string(
        "preset",
        "packaged",
        "packaged: MiniLM and the packaged corpora, minutes; smoke: a tiny encoder on made-up text, seconds.",
        flag_values=values,
    )
    flags.DEFINE_string("out", None, "Folder of the run; by default runs/demo, or runs/<preset>.", flag_values=values)


def run(values: flags.FlagValues, positional: Sequence[str]) -> None:
    """Runs the demo and says what was found and where it is."""
    from wsr.cli.checks import one_of, refuse_positional
    from wsr.runtime.compilation import use_persistent_cache
    from wsr.studies.demo import PRESETS, run_demo

    refuse_positional(positional)
    one_of("--preset", values.preset, PRESETS)
    use_persistent_cache()
    folder = Path(values.out or ("runs/demo" if values.preset == "packaged" else f"runs/{values.preset}"))
    # What reproduces the demo, whatever folder it was run in.
    command = "make demo" if values.preset == "packaged" else f"wsr demo --preset={values.preset}"
    done = run_demo(PRESETS[values.preset], folder, command=command)
    print()
    for line in done.document.summary:
        print(f"- {line}")
    print(f"\nreport:  {done.report}\nresults: {done.results}")
