"""lists the members of a store: what made each of them, and how well it learned."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from wsr.errors import WsrError

if TYPE_CHECKING:
    from wsr.store import Store


def define(values: flags.FlagValues) -> None:
    """Defines the verb's flags."""
    flags.DEFINE_string("store", None, "The store; also: wsr ls STORE.", flag_values=values)


def run(values: flags.FlagValues, positional: Sequence[str]) -> None:
    """Prints a table of the store's members, its damaged ones and its quarantined ones."""
    from wsr.cli.checks import refuse_positional, required
    from wsr.store import Store

    where = values.store or (positional[0] if positional else None)
    refuse_positional(positional if values.store else positional[1:])
    required("--store", where)
    show(Store.open(str(where)))


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
            f"{len(damaged)} of {len(store.names())} members of {store.where} are damaged, the others are fine"
        )


def _cell(name: str, value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.1f}" if name == "MB" else value
