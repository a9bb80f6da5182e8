"""writes a point of a store as a Hugging Face folder: wsr export POINT --store=S --to=FOLDER.

POINT is a member's name, centroid, base, or coefficients, name=0.5,other=0.5. The folder has config, tokenizer,
safetensors and a model card; with --head a member's own head too, which makes it a classifier."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from wsr.models.huggingface.heads import ClassifierHead
    from wsr.models.model import Model
    from wsr.store import Store


def define(values: flags.FlagValues) -> None:
    """Defines the verb's flags."""
    flags.DEFINE_string("store", None, "The store.", flag_values=values)
    flags.DEFINE_string("to", None, "Folder to write; it must not be there yet.", flag_values=values)
    flags.DEFINE_bool("head", False, "Of a member: its own head too.", flag_values=values)


def run(values: flags.FlagValues, positional: Sequence[str]) -> None:
    """Exports leaf by leaf."""
    from pathlib import Path

    from wsr.cli.checks import refuse_positional, required
    from wsr.cli.command import command_of
    from wsr.errors import WsrError
    from wsr.exchange.model_card import model_card
    from wsr.exchange.named_point import named_point, open_point
    from wsr.models.huggingface.folder import write_folder
    from wsr.models.load import load_tokenizer
    from wsr.runtime.compilation import use_persistent_cache
    from wsr.store import Store

    if not positional:
        raise WsrError("which point? wsr export POINT --store=S --to=FOLDER: a member, centroid, base or name=0.5,...")
    refuse_positional(positional[1:])
    required("--store", values.store)
    required("--to", values.to)
    use_persistent_cache()
    point, folder = positional[0], Path(values.to)
    store = Store.open(values.store)
    model = store.model
    coefficients = named_point(store, point, _population(store, point))
    head = _head(store, model, point) if values.head else None
    tokenizer = load_tokenizer(store.base_name, model.config["vocab_size"])
    card = model_card(
        store,
        coefficients,
        title=folder.name,
        method=_method(store, point, coefficients),
        command=command_of("export", values, positional),
        classifier=head is not None,
    )
    write_folder(model, open_point(store, coefficients), tokenizer, folder, head=head, card=card)
    print(f"{point}{' with its head' if head else ''}: {len(coefficients)} members, written to {folder}")


def _population(store: "Store", point: str) -> list[str]:
    """The members that a centroid is of."""
    from wsr.errors import WsrError
    from wsr.region.learned import learned

    if point != "centroid":
        return []
    names = [record.name for record in store.records() if learned(record)]
    if not names:
        raise WsrError(f"{store.path}: no member did better than chance; there is no centroid")
    left_out = sorted(set(store.names()) - set(names))
    if left_out:
        print(f"left out, not better than chance: {', '.join(left_out)}", flush=True)
    return names


def _head(store: "Store", model: "Model", point: str) -> "ClassifierHead":
    from wsr.errors import WsrError
    from wsr.models.huggingface.heads import linear_classifier, stored_classifier

    if point not in store:
        raise WsrError(f"--head: {point!r} has no head; a head belongs to one member and its dataset")
    head, record = store.head(point), store.record(point)
    if not head:
        raise WsrError(f"--head: the member {point!r} was imported without a head")
    if "source" in record.hyperparameters:
        return stored_classifier(head, record.hyperparameters)
    return linear_classifier(model, head)


def _method(store: "Store", point: str, coefficients: dict[str, float]) -> str:
    if point in store:
        return "one model of a population"
    if not coefficients:
        return "the checkpoint that a population was fine-tuned from"
    what = "the centroid of" if point == "centroid" else "a linear combination of"
    return f"{what} {len(coefficients)} models fine-tuned from one checkpoint"
