"""``wsr import``: fine-tuned models of others into a store."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wsr.cli.flags import Flag, Group, Page, Values

if TYPE_CHECKING:
    from wsr.models import Checkpoint
    from wsr.store import Store


PAGE = Page(
    "wsr import",
    "wsr import MODEL... --store=STORE --base=BASE [options]",
    "Add fine-tuned models to a store, each a Hugging Face folder, a LoRA adapter or a hub name.",
    (
        "wsr import runs/theirs/first --store=runs/collected --base=tiny --dataset=made_up_a1",
        "wsr import runs/centroid --store=runs/collected --names=average --dataset=unknown",
    ),
    (
        Group(
            "What is imported",
            (
                Flag("store", "Folder or URL of the store, which is created if needed.", required=True),
                Flag(
                    "base",
                    "Checkpoint from which the models were fine-tuned: a name, a folder or a hub name.",
                    otherwise="the base of the store; required for a new store",
                ),
                Flag(
                    "dataset",
                    "Datasets on which the models were fine-tuned: one for all models, or one per model in the same "
                    "order.",
                    (),
                    otherwise="found in the models' names",
                ),
                Flag(
                    "names",
                    "Names of the new members, one per model in the same order.",
                    (),
                    otherwise="the names of the folders",
                ),
                Flag(
                    "family",
                    "Family (task) of the datasets, for datasets that are not registered.",
                    otherwise="unknown",
                ),
                Flag(
                    "pooling",
                    "Pooling of a new store.",
                    accepts="mean, cls, last, max, mean_sqrt or weighted_mean",
                    otherwise="the base's own",
                ),
                Flag(
                    "stores",
                    "Further stores whose bases are suggested when a model does not fit --base.",
                    (),
                    value="STORE,...",
                    otherwise="the stores next to --store",
                ),
            ),
        ),
    ),
    ("Each model is imported, or refused with the reason. Models that are in the store already stay as they are.",),
    positional=None,
)


def run(values: Values, positional: Sequence[str]) -> None:
    """Imports every model that fits and names the others; fails if there is one."""
    from pathlib import Path

    from wsr.errors import WsrError
    from wsr.exchange.admission import admit, dataset_of, names_of
    from wsr.exchange.importing import read_incoming
    from wsr.exchange.likely_bases import stores_beside
    from wsr.runtime.printable import printable
    from wsr.runtime.progress import progress

    if not positional:
        raise WsrError("no model is named: wsr import MODEL... --store=STORE --base=BASE")
    names = _one_for_each("--names", values.names, positional) or names_of(positional)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise WsrError(f"several models have the name {', '.join(twice)}; name each model with --names")
    datasets = values.dataset * len(positional) if len(values.dataset) == 1 else values.dataset
    datasets = _one_for_each("--dataset", datasets, positional) or [dataset_of(name) for name in names]
    store, base = _open(values, positional)
    beside = [*map(Path, values.stores), *stores_beside(Path(values.store))]
    refused: dict[str, str] = {}
    with progress("importing", len(positional), "models") as counter:
        for where, name, dataset in zip(positional, names, datasets, strict=True):
            try:
                incoming = read_incoming(where, base, beside)
                # The first model that fits makes the store: one with a wrong base would have to be deleted.
                store = store or _create(values, base)
                new, more = admit(store, incoming, name=name, dataset=dataset, family=values.family, source=where)
            except Exception as error:  # A damaged folder may raise anything in the libraries that read it.
                told = str(error) if isinstance(error, WsrError) else f"{type(error).__name__}: {error}"
                refused[name] = " ".join(told.split())
                print(printable(f"refused {name}: {refused[name]}"), flush=True)
            else:
                print(printable(f"{'imported' if new else 'already in the store:'} {name} (dataset {dataset})"))
                for note in (str(incoming.kinship), *incoming.notes, *more):
                    print(printable(f"  {note}"), flush=True)
                del incoming  # frees its memory before the next model is read
            counter.advance(1, printable(name))
    if refused and len(positional) == 1:
        raise WsrError(f"{names[0]}: {refused[names[0]]}")
    if refused:
        raise WsrError(
            f"{len(refused)} of {len(positional)} models were refused, for the reasons above: {', '.join(refused)}"
        )


def _one_for_each(flag: str, given: Sequence[str], models: Sequence[str]) -> list[str]:
    from wsr.errors import WsrError

    if given and len(given) != len(models):
        raise WsrError(f"{flag}: expected one per model, found {len(given)} for {len(models)} models")
    return list(given)


def _open(values: Values, models: Sequence[str]) -> "tuple[Store | None, Checkpoint]":
    """Returns the store, if it is there, and the base; a new store has an untied head if one of the models has."""

    from wsr.errors import WsrError
    from wsr.exchange.untied import any_untied, untied
    from wsr.models import load
    from wsr.models.huggingface.sentence_modules import lost_modules
    from wsr.runtime.printable import printable
    from wsr.store import Store

    there = Store.is_at(values.store)
    if not values.base and not there:
        raise WsrError(
            f"{values.store} is a new store, so --base is needed: the checkpoint from which the models were fine-tuned"
        )
    if not values.base:
        store = Store.open(values.store)
        return store, store.checkpoint()
    base = load(values.base, pooling=values.pooling)
    with base.companions() as files:
        for reason in lost_modules(files, base.model):
            print(printable(f"exports will not be the SentenceTransformer of {values.base}: {reason}"))
    if not there:
        return None, untied(base) if any_untied(base, models) else base
    # The base may have been untied when the store was made.
    as_stored = untied(base) if untied(base).model.config == Store.open(values.store).model_config else base
    return _create(values, as_stored), as_stored


def _create(values: Values, base: "Checkpoint") -> "Store":
    from wsr.store import Store

    return Store.create_for(values.store, base)
