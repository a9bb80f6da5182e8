"""``wsr average``: the checkpoints of one run into one model."""

from collections.abc import Sequence

from wsr.cli.card_flags import LICENSE
from wsr.cli.flags import Flag, Group, Page, Values

PAGE = Page(
    "wsr average",
    "wsr average STEP... --to=FOLDER [options]",
    "Average checkpoints of one training run into a Hugging Face folder, leaf by leaf.",
    (
        "wsr average runs/centroid runs/theirs/first --to=runs/average",
        "wsr average runs/centroid runs/theirs/first --weights=ema --smoothing=0.5 --to=runs/ema",
    ),
    (
        Group(
            "How checkpoints are weighted",
            (
                Flag(
                    "weights",
                    "Kind of weights. ema is the exponential moving average; decay acts on a run with a constant "
                    "learning rate like a decay over the listed checkpoints; undo_decay takes such a decay back.",
                    "uniform",
                    allowed=("uniform", "ema", "decay", "undo_decay"),
                ),
                Flag("last", "Average only the last N checkpoints.", kind=int, at_least=1, otherwise="all checkpoints"),
                Flag("smoothing", "Weight of the past in ema, from 0 to 1.", 0.9),
                Flag(
                    "shape",
                    "Shape of the decay to zero.",
                    "linear",
                    allowed=("linear", "cosine", "sqrt"),
                ),
                Flag(
                    "force",
                    "Average the checkpoints although they differ in config, vocabulary, classes or base.",
                    False,
                ),
            ),
        ),
        Group("Output", (Flag("to", "New folder to write.", value="FOLDER", required=True), LICENSE)),
    ),
    (
        "STEP is a Hugging Face folder or a safetensors file, such as runs/mine/checkpoint-500. Checkpoints are put in "
        "the order of the numbers at the end of their names; without numbers, they stay in the order of the call.",
    ),
    positional=None,
)


def run(values: Values, positional: Sequence[str]) -> None:
    """Averages the checkpoints and prints their weights."""
    from wsr.cli.command import command_of
    from wsr.cli.tables import show_table
    from wsr.merging.steps import average
    from wsr.runtime.printable import printable

    done = average(
        positional,
        values.to,
        kind=values["weights"].value,
        last=values.last,
        smoothing=values.smoothing,
        shape=values.shape,
        force=values.force,
        license=values.license,
        command=command_of("average", values, positional),
    )
    show_table(("checkpoint", "weight"), [(printable(name), own) for name, own in done.weights.items()])
    for note in done.notes:
        print(printable(note))
    print(f"average of {len(done.weights)} checkpoints, written to {values.to}")
