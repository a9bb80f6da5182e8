"""lists the members of a store: what made each of them, and how well it learned."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from wsr.errors import WsrError

if TYPE_CHECKING:
    from wsr.store import MemberRecord, Store


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
    from wsr.region.learned import learned

    print(f"{store.where}: {store.model_name}, base {store.base_name} ({store.base_sha256[:12]})")
    rows, damaged = [], []
    for name in store.names():
        try:
            record, (kept, size) = store.record(name), store.kept_as(name)
        except WsrError as error:
            damaged.append(str(error))
            continue
        rows.append(
            (
                record.name,
                record.dataset,
                record.family,
                record.mode,
                record.seed,
                record.size,
                record.metrics.get("test_score"),
                record.metrics.get("chance"),
                ("yes" if learned(record) else "no") if record.metrics else None,
                kept,
                f"{size / 1e6:.1f}",
                _made_on(record),
            )
        )
    made = ("member", "dataset", "family", "mode", "seed", "examples", "score", "chance", "learned")
    columns = (*made, "kept as", "MB", "made on")
    show_table(columns, rows)
    for entry in store.quarantined():
        print(f"quarantined: {entry.record.name} at step {entry.step}: {entry.reason}")
    for line in damaged:
        print(f"damaged: {line}")
    if damaged:
        raise WsrError(
            f"{len(damaged)} of {len(store.names())} members of {store.where} are damaged, the others are fine"
        )


def _made_on(record: "MemberRecord") -> str:
    if "source" in record.hyperparameters:  # others trained it
        return str(record.hyperparameters.get("source"))
    return f"{record.device_kind}, {record.threads} threads, jaxlib {record.jaxlib}, group of {record.group_size}"
