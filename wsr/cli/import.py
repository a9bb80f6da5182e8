"""brings models of others into a store: wsr import FOLDER_OR_HUB_NAME... --store=S --base=B. A model is a Hugging Face
folder (safetensors, any float, with or without a head) or a LoRA adapter, fine-tuned from the base. Each is imported or
refused with its reason; run again, those that are there already stay as they are."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from wsr.models import Checkpoint
    from wsr.store import Store


def define(values: flags.FlagValues) -> None:
    """Defines the verb's flags."""
    text, several = flags.DEFINE_string, flags.DEFINE_list
    text("store", None, "Where the members go; created with the base if it is not there.", flag_values=values)
    text("base", None, "What all were fine-tuned from: a name, a folder or hub name.", flag_values=values)
    text("pooling", None, "Of a new store: mean, cls or last; by default the base's own.", flag_values=values)
    several(
        "dataset",
        [],
        "What they were trained on: one for all or one for each; else from their names.",
        flag_values=values,
    )
    text("family", None, "The family of the datasets, where the table does not say it.", flag_values=values)
    several("names", [], "What the members are called, one for each; else as their folders.", flag_values=values)
    several(
        "stores",
        [],
        "Stores whose bases are looked at where a base is wrong; those beside --store are.",
        flag_values=values,
    )


def run(values: flags.FlagValues, positional: Sequence[str]) -> None:
    """Imports what can be, says what was refused, and fails where anything was."""
    from pathlib import Path

    from wsr.cli.checks import required
    from wsr.errors import WsrError
    from wsr.exchange.admission import admit, dataset_of, names_of
    from wsr.exchange.importing import read_incoming
    from wsr.exchange.likely_bases import stores_beside
    from wsr.runtime.printable import printable
    from wsr.runtime.progress import progress

    required("--store", values.store)
    if not positional:
        raise WsrError("which models? wsr import FOLDER_OR_HUB_NAME... --store=S --base=B")
    names = _one_for_each("--names", values.names, positional) or names_of(positional)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise WsrError(f"two models would be called {', '.join(twice)}; name each with --names")
    datasets = values.dataset * len(positional) if len(values.dataset) == 1 else values.dataset
    datasets = _one_for_each("--dataset", datasets, positional) or [dataset_of(name) for name in names]
    store, base = _open(values)
    beside = [*map(Path, values.stores), *stores_beside(Path(values.store))]
    refused: list[str] = []
    with progress("importing", len(positional), "models") as counter:
        for where, name, dataset in zip(positional, names, datasets, strict=True):
            try:
                incoming = read_incoming(where, base, beside)
                # Not before the first that fits: a store of a wrong base would be in the way.
                store = store or _create(values, base)
                new, more = admit(store, incoming, name=name, dataset=dataset, family=values.family, source=where)
            except (WsrError, OSError) as error:
                refused.append(f"{name}: {error}")
                print(printable(f"refused {refused[-1]}"), flush=True)
            else:
                print(printable(f"{'imported' if new else 'there already:'} {name} (dataset {dataset})"))
                for note in (str(incoming.kinship), *incoming.notes, *more):
                    print(printable(f"  {note}"), flush=True)
                del incoming  # it is not to lie beside the next
            counter.advance(1, printable(name))
    if refused:
        one = len(positional) == 1
        told = refused[0] if one else f"{len(refused)} of {len(positional)} models were refused, for the reasons above"
        raise WsrError(told)


def _one_for_each(flag: str, given: Sequence[str], models: Sequence[str]) -> list[str]:
    from wsr.errors import WsrError

    if given and len(given) != len(models):
        raise WsrError(f"{flag}: {len(given)} for {len(models)} models; expected one for each")
    return list(given)


def _open(values: flags.FlagValues) -> "tuple[Store | None, Checkpoint]":
    """Returns the store, if it is there, and the base."""

    from wsr.errors import WsrError
    from wsr.models import load
    from wsr.store import Store

    there = Store.is_at(values.store)
    if not values.base and not there:
        raise WsrError(f"{values.store} is no store yet: --base is needed, the checkpoint all were fine-tuned from")
    if not values.base:
        store = Store.open(values.store)
        return store, store.checkpoint()
    base = load(values.base, pooling=values.pooling)
    return _create(values, base) if there else None, base


def _create(values: flags.FlagValues, base: "Checkpoint") -> "Store":
    from wsr.store import Store

    return Store.create_for(values.store, base)
