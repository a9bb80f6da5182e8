"""``wsr ls``: the members of a store."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wsr.cli.flags import Flag, Group, Page, Values
from wsr.errors import WsrError

if TYPE_CHECKING:
    from wsr.store import Store

PAGE = Page(
    "wsr ls",
    "wsr ls STORE",
    "List the members of a store: how each was made and how well it learned.",
    ("wsr ls runs/mine", "wsr ls --store=runs/mine"),
    (
        Group(
            "What is listed",
            (Flag("store", "Folder or URL of the store.", otherwise="the first word after wsr ls"),),
        ),
    ),
    positional=1,
)


def run(values: Values, positional: Sequence[str]) -> None:
    """Prints a table of the store's members, its damaged ones and its quarantined ones."""
    from wsr.store import Store

    show(Store.open(named_store("ls", values, positional)))


def named_store(verb: str, values: Values, positional: Sequence[str]) -> str:
    """Returns the store that is named either as a word or as a flag."""
    given = [name for name in (values.store, *positional) if name]
    if len(given) != 1:
        raise WsrError(f"expected one store, found {' and '.join(given) or 'none'}: wsr {verb} STORE")
    return given[0]


def show(store: "Store") -> None:
    """Prints the table; raises WsrError, after it, where members are damaged."""
    from wsr.cli.tables import show_table
    from wsr.region.listing import listed

    print(f"{store.where}: {store.model_name}, base {store.base_name} ({store.base_sha256[:12]})")
    rows, damaged = listed(store)
    columns = tuple(rows[0]) if rows else ("member",)
    show_table(columns, [tuple(_cell(name, value) for name, value in row.items()) for row in rows])
    for entry in store.quarantined():
        print(f"quarantined: {entry.record.name} at step {entry.step}: {entry.reason}")
    for line in damaged:
        print(f"damaged: {line}")
    if damaged:
        raise WsrError(
            f"{len(damaged)} of {len(store.names())} members of {store.where} are damaged, the others are fine; "
            f"wsr verify {store.where} --repair sets the damaged ones aside"
        )


def _cell(name: str, value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.1f}" if name == "MB" else value
