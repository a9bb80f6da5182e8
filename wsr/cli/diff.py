"""``wsr diff``: what differs between two models."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from wsr.cli.flags import Flag, Group, Page, Values

if TYPE_CHECKING:
    from wsr.exchange.difference import Difference, VocabularyDifference

PAGE = Page(
    "wsr diff",
    "wsr diff A B [options]",
    "Compare two models: weights leaf by leaf, ranks of the differences, configs and vocabularies.",
    (
        "wsr diff made_up_a1-full-s0 made_up_b1-full-s1 --store=runs/mine",
        "wsr diff tiny runs/theirs/first --json",
    ),
    (
        Group(
            "What is compared",
            (
                Flag("store", "Folder or URL of a store, whose points A and B may be.", otherwise="no store"),
                Flag("ranks", "Compute the ranks of the differences, which takes most of the time.", True),
            ),
        ),
        Group(
            "Output",
            (
                Flag("most", "Number of leaves shown: those with the largest relative distance.", 20, at_least=0),
                Flag("json", "Print all leaves and everything else as JSON, and nothing else.", False),
            ),
        ),
    ),
    (
        "A and B are Hugging Face folders, safetensors files, hub names or registered names; with --store, also its "
        "members, base, centroid, coefficients such as name=0.5,other=0.5, and LoRA adapters of its base.",
    ),
    positional=2,
)


def run(values: Values, positional: Sequence[str]) -> None:
    """Compares two models and prints the differences."""
    import sys
    from contextlib import nullcontext, redirect_stdout

    from wsr.errors import WsrError
    from wsr.exchange.difference import diff
    from wsr.store import Store

    if len(positional) != 2:
        raise WsrError(f"expected two models, found {len(positional)}: wsr diff A B")
    # Progress goes to standard error: it is no JSON.
    with redirect_stdout(sys.stderr) if values.json else nullcontext():
        store = Store.open(values.store) if values.store else None
        found = diff(positional[0], positional[1], store=store, ranks=values.ranks)
    if values.json:
        print(json.dumps(found.to_json(), indent=1, allow_nan=False))
    else:
        _show(found, values.most)


def _show(found: "Difference", most: int) -> None:
    from wsr.cli.tables import show_table
    from wsr.runtime.printable import printable

    changed = sorted((own for own in found.leaves if own.equal < 1), key=lambda own: -(own.relative or float("inf")))
    rows = [
        (
            *(own.name, "x".join(map(str, own.shape)), _number(own.norm), _number(own.distance), _number(own.relative)),
            *(_number(own.cosine, 6), _number(own.largest), _number(own.equal, 3)),
            *("" if own.rank is None else str(own.rank), "" if own.stable_rank is None else f"{own.stable_rank:.1f}"),
        )
        for own in changed[:most]
    ]
    print(printable(f"A is {found.names[0]}, B is {found.names[1]}"))
    print(f"{len(found.leaves)} leaves in common, {len(changed)} differ")
    if rows:
        columns = (
            "leaf",
            "shape",
            "norm of A",
            "of B - A",
            "relative",
            "cosine",
            "largest",
            "equal",
            "rank",
            "stable rank",
        )
        show_table(columns, rows)
    if len(changed) > len(rows):
        print(f"{len(changed) - len(rows)} more differ; --most={len(changed)} shows them")
    first, second = found.norms
    print(
        f"whole: norms {_number(first)} and {_number(second)}, norm of the difference {_number(found.distance)}, "
        f"cosine {_number(found.cosine, 6)}"
    )
    for what, names in (("only in A", found.only_first), ("only in B", found.only_second)):
        if names:
            print(printable(f"{what}: {_some(names)}"))
    for name, (ours, theirs) in found.other_shapes.items():
        print(printable(f"shape of {name}: {ours} in A, {theirs} in B"))
    for name, (mine, other) in found.config.items():
        print(printable(f"config {name}: {_short(mine)} in A, {_short(other)} in B"))
    if found.vocabulary is None:
        print("vocabularies: not compared, because a model has no tokenizer")
    else:
        _show_vocabulary(found.vocabulary)


def _show_vocabulary(found: "VocabularyDifference") -> None:
    from wsr.runtime.printable import printable

    if found.same:
        print(f"vocabularies: the same {found.sizes[0]} tokens")
        return
    print(f"vocabularies: {found.sizes[0]} tokens in A, {found.sizes[1]} in B")
    for what, tokens in (
        ("tokens only in A", found.only_first),
        ("tokens only in B", found.only_second),
        ("tokens with another number", found.renumbered),
    ):
        if tokens:
            print(printable(f"{what}: {_some([repr(own) for own in tokens])}"))
    for role, (ours, theirs) in found.special.items():
        print(printable(f"{role}: {ours!r} in A, {theirs!r} in B"))


def _number(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:.{digits}g}"


def _some(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more} ({len(names)})" if more else ", ".join(names)


def _short(value: object, longest: int = 100) -> str:
    text = repr(value)
    return text if len(text) <= longest else f"{text[:longest]}..."
