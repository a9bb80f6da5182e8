"""``wsr align``: a model with its units in the order of another."""

from collections.abc import Sequence

from wsr.cli.flags import Flag, Group, Page, Values

PAGE = Page(
    "wsr align",
    "wsr align MODEL --reference=REFERENCE --to=FOLDER [options]",
    "Write a model with its hidden units and heads in the order that brings its weights closest to a reference; it "
    "computes what it did before.",
    (
        "wsr align runs/theirs/first --reference=tiny --to=runs/aligned",
        "wsr align runs/theirs/first --reference=centroid --store=runs/mine --to=runs/aligned-to-centroid",
    ),
    (
        Group(
            "How it is aligned",
            (
                Flag(
                    "reference",
                    "The model whose order is taken: a registered name, a folder, a hub name, or a point of --store.",
                    value="MODEL",
                    required=True,
                ),
                Flag("store", "Folder or URL of a store, whose points --reference may name.", otherwise="no store"),
                Flag(
                    "stream",
                    "Let the residual stream change places, too, and with it the features of an encoder.",
                    kind=bool,
                    otherwise="only in language models, whose logits stay the same",
                ),
            ),
        ),
        Group("Output", (Flag("to", "New folder to write.", value="FOLDER", required=True),)),
    ),
    (
        "MODEL is a Hugging Face folder or a hub name. Models that were trained from different initial weights have "
        "their units in different orders; align them before a merge. See wsr lineage for a test.",
    ),
    positional=1,
)


def run(values: Values, positional: Sequence[str]) -> None:
    """Aligns the model and prints the distances before and after."""
    from wsr.errors import WsrError
    from wsr.exchange.aligning import align
    from wsr.runtime.printable import printable
    from wsr.store import Store

    if not positional:
        raise WsrError("no model is named: wsr align MODEL --reference=REFERENCE --to=FOLDER")
    store = Store.open(values.store) if values.store else None
    found = align(positional[0], values.reference, values.to, store=store, stream=values.stream)
    print(found)
    print(printable(f"written to {values.to}"))
