"""``wsr lineage``: whether models have a common origin, and which descends from which."""

import json
from collections.abc import Sequence

from wsr.cli.flags import Flag, Group, Page, Values

PAGE = Page(
    "wsr lineage",
    "wsr lineage A B [C...] [options]",
    "Test whether models have a common origin, also in another order of their units, and tell parents, children, "
    "siblings and copies apart where the weights show it.",
    (
        "wsr lineage runs/centroid runs/theirs/first --json",
        "wsr lineage base made_up_a1-full-s0 made_up_b1-full-s1 --store=runs/mine --base=base",
    ),
    (
        Group(
            "What is compared",
            (
                Flag("store", "Folder or URL of a store, whose points the models may be.", otherwise="no store"),
                Flag(
                    "base",
                    "The model from which related ones are known to descend; it tells parents from children.",
                    value="MODEL",
                    otherwise="not known",
                ),
            ),
        ),
        Group("Output", (Flag("json", "Print the findings as JSON and nothing else.", False),)),
    ),
    (
        "A model is a Hugging Face folder, a hub name or a registered name; with --store, also a member, base, "
        "centroid or coefficients such as name=0.5,other=0.5. At most 1 call in 1,000 finds a common origin among "
        "independent models.",
    ),
    positional=None,
)


def run(values: Values, positional: Sequence[str]) -> None:
    """Compares all pairs of models and prints what is known of each."""
    import sys
    from contextlib import nullcontext, redirect_stdout

    from wsr.cli.tables import show_table
    from wsr.exchange.lineage import lineage
    from wsr.runtime.printable import printable
    from wsr.store import Store

    # Progress goes to standard error: it is no JSON.
    with redirect_stdout(sys.stderr) if values.json else nullcontext():
        store = Store.open(values.store) if values.store else None
        found = lineage(*positional, base=values.base, store=store)
    if values.json:
        print(json.dumps(found.to_json(), indent=1, allow_nan=False))
        return
    show_table(
        ("A", "B", "relation", "older", "origin", "p", "change", "distance"),
        [
            (
                *pair.names,
                *(pair.relation, pair.parent or "–", pair.origin, f"{pair.p_value:.2g}"),
                *(pair.change or "–", "–" if pair.distance is None else f"{pair.distance:.4g}"),
            )
            for pair in found.pairs
        ],
    )
    for pair in found.pairs:
        print(printable(f"{' and '.join(pair.names)}: {pair.told}"))
