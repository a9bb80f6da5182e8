"""``wsr demo``: the whole story on a small population."""

from collections.abc import Sequence
from pathlib import Path

from wsr.cli.flags import Flag, Group, Page, Values

PAGE = Page(
    "wsr demo",
    "wsr demo [options]",
    "Fine-tune a small population on packaged texts, map it, evaluate points between its members, compare its centroid "
    "with the pretrained model as a start, and write a report.",
    ("wsr demo", "wsr demo --preset=smoke --out=runs/smoke"),
    (
        Group(
            "What is run",
            (
                Flag(
                    "preset",
                    "Size of the demo: packaged fine-tunes MiniLM on the packaged corpora and takes minutes; smoke "
                    "fine-tunes a tiny encoder on made-up texts and takes seconds.",
                    "packaged",
                    accepts="packaged or smoke",
                ),
                Flag(
                    "precision",
                    "Precision of the encoder's matrix products, in training and scoring.",
                    kind=str,
                    allowed=("float32", "bfloat16"),
                    otherwise="bfloat16 for packaged on a CPU that has it, else float32",
                ),
            ),
        ),
        Group(
            "Output",
            (Flag("out", "Folder of the run.", value="FOLDER", otherwise="runs/demo, or runs/PRESET for others"),),
        ),
    ),
    ("Rerun it after an interruption: it resumes from what is on disk.",),
)


def run(values: Values, positional: Sequence[str]) -> None:
    """Runs the demo; prints its findings and where its files are."""
    from wsr.cli.checks import one_of
    from wsr.runtime.compilation import use_persistent_cache
    from wsr.studies.demo import PRESETS, plan_of, run_demo

    one_of("--preset", values.preset, PRESETS)
    use_persistent_cache()
    folder = Path(values.out or ("runs/demo" if values.preset == "packaged" else f"runs/{values.preset}"))
    # What reproduces the demo, whatever folder it was run in.
    command = "make demo" if values.preset == "packaged" else f"wsr demo --preset={values.preset}"
    if values.precision:
        command = f"wsr demo --preset={values.preset} --precision={values.precision}"
    done = run_demo(plan_of(values.preset, values.precision), folder, command=command)
    print()
    for line in done.document.summary:
        print(f"- {line}")
    print(f"\nreport:  {done.report}\nresults: {done.results}")
