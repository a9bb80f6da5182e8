"""``wsr extract``: a LoRA adapter of a model that was fine-tuned in full."""

from collections.abc import Sequence

from wsr.cli.card_flags import LICENSE
from wsr.cli.flags import Flag, Group, Page, Values

PAGE = Page(
    "wsr extract",
    "wsr extract MODEL --base=BASE --to=FOLDER (--rank=N | --share=X)",
    "Write a fine-tuned model as a LoRA adapter of its base, in PEFT's files, by truncated SVDs; print the error.",
    (
        "wsr extract runs/theirs/first --base=tiny --rank=4 --to=runs/adapter",
        "wsr extract runs/theirs/first --base=tiny --share=0.9 --to=runs/adapter-0.9",
    ),
    (
        Group(
            "What is extracted",
            (
                Flag(
                    "base",
                    "Checkpoint from which the model was fine-tuned: a name, a folder or a hub name.",
                    required=True,
                ),
                Flag("rank", "Largest rank of the adapter.", kind=int, at_least=1, otherwise="no limit"),
                Flag(
                    "share",
                    "Share of the norm of each matrix's change to keep; each matrix gets the smallest rank that does.",
                    kind=float,
                    accepts="number above 0, up to 1",
                    otherwise="all that --rank allows",
                ),
            ),
        ),
        Group("Output", (LICENSE, Flag("to", "New folder to write.", value="FOLDER", required=True))),
    ),
    (
        "MODEL is a Hugging Face folder, a LoRA adapter or a hub name. Biases, norms and its head are kept whole. The "
        "printed error is relative to the model's task vector, and includes what an adapter cannot hold.",
    ),
    positional=1,
)


def run(values: Values, positional: Sequence[str]) -> None:
    """Extracts the adapter and prints its error."""
    from wsr.cli.command import command_of
    from wsr.errors import WsrError
    from wsr.exchange.extracting import extract
    from wsr.runtime.printable import printable

    if not positional:
        raise WsrError("no model is named: wsr extract MODEL --base=BASE --to=FOLDER --rank=N")
    adapter = extract(
        positional[0],
        values.base,
        values.to,
        rank=values.rank,
        share=values.share,
        command=command_of("extract", values, positional),
        licence=values.license,
    )
    print(printable(f"adapter of {adapter}"))
    print(printable(f"written to {values.to}"))
