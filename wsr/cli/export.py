"""``wsr export``: a point of a population as a Hugging Face folder."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wsr.cli import adapter_flags
from wsr.cli.card_flags import LICENSE
from wsr.cli.flags import Flag, Group, Page, Values

if TYPE_CHECKING:
    from wsr.models.huggingface.heads import ClassifierHead
    from wsr.models.model import Model
    from wsr.store import Store


PAGE = Page(
    "wsr export",
    "wsr export POINT --store=STORE --to=FOLDER [options]",
    "Write a point of a store as a Hugging Face folder with config, tokenizer, safetensors and model card, or as a "
    "LoRA adapter.",
    (
        "wsr export centroid --store=runs/mine --to=runs/centroid",
        "wsr export made_up_a1-full-s0 --store=runs/mine --to=runs/theirs/first",
    ),
    (
        Group(
            "What is exported",
            (
                Flag("store", "Folder or URL of the store that holds the members.", required=True),
                Flag("head", "Add the member's own head, which makes the folder a classifier.", False),
            ),
        ),
        Group(
            "Output",
            (*adapter_flags.FLAGS, LICENSE, Flag("to", "New folder to write.", value="FOLDER", required=True)),
        ),
    ),
    ("POINT is the name of a member, centroid, base, or coefficients such as name=0.5,other=0.5.",),
    positional=1,
)


def run(values: Values, positional: Sequence[str]) -> None:
    """Exports leaf by leaf."""
    from functools import partial
    from pathlib import Path

    from wsr.cli.command import command_of
    from wsr.errors import WsrError
    from wsr.exchange.adapter import change_of_point
    from wsr.exchange.model_card import model_card
    from wsr.exchange.modules import modules_of_point
    from wsr.exchange.named_point import named_point, open_point
    from wsr.models.huggingface.folder import write_folder
    from wsr.models.huggingface.sentence_modules import lost_modules
    from wsr.runtime.compilation import use_persistent_cache
    from wsr.runtime.printable import printable
    from wsr.store import Store

    if not positional:
        raise WsrError(
            "no point is named: wsr export POINT --store=STORE --to=FOLDER, where POINT is a member, centroid, base or "
            "coefficients such as name=0.5,other=0.5"
        )
    use_persistent_cache()
    point, folder = positional[0], Path(values.to)
    store = Store.open(values.store)
    model = store.model
    coefficients = named_point(store, point, _population(store, point))
    head = _head(store, model, point) if values.head else None
    card = partial(
        model_card,
        store,
        coefficients,
        title=folder.name,
        method=_method(store, point, coefficients),
        command=command_of("export", values, positional),
        classifier=head is not None,
        licence=values.license,
    )
    written = f"{point}{' with its head' if head else ''}: {len(coefficients)} members, written to {folder}"
    if adapter_flags.wanted(values):
        change = change_of_point(store, lambda path: coefficients)
        adapter_flags.write(values, store, change, card, head=head)
        print(written)
        return
    files = store.companions(list(coefficients))
    modules = modules_of_point(store, coefficients)
    leaf = open_point(store, coefficients)
    write_folder(model, leaf, store.processor(), folder, head=head, card=card(), companions=files, modules=modules)
    for lost in lost_modules(files | dict.fromkeys(modules, Path()), model):
        print(printable(f"not the SentenceTransformer that it was: {lost}"))
    for name in store.replaced():
        print(printable(f"{name} in {store.base_name} has changed since: the store's own copy is used"))
    print(written)


def _population(store: "Store", point: str) -> list[str]:
    """The members that the centroid averages; empty for any other point."""
    from wsr.region.learned import names_of_region

    return names_of_region(store) if point == "centroid" else []


def _head(store: "Store", model: "Model", point: str) -> "ClassifierHead":
    from wsr.errors import WsrError
    from wsr.models.huggingface.heads import linear_classifier, stored_classifier

    if point not in store:
        raise WsrError(
            f"--head: {point!r} has no head; name a member, because a head belongs to one member and its dataset"
        )
    head, record = store.head(point), store.record(point)
    imported = "source" in record.hyperparameters
    # The head of a language model is one of its parameters.
    if not head and not (imported and model.token_losses):
        raise WsrError(f"--head: the member {point!r} was imported without a head")
    if imported:
        return stored_classifier(head, record.hyperparameters)
    return linear_classifier(model, head, record.data.get("label_names") or ())


def _method(store: "Store", point: str, coefficients: dict[str, float]) -> str:
    if point in store:
        return "one model of a population"
    if not coefficients:
        return "the checkpoint that a population was fine-tuned from"
    what = "the centroid of" if point == "centroid" else "a linear combination of"
    return f"{what} {len(coefficients)} models fine-tuned from one checkpoint"
