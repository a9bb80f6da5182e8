"""Reads a Hugging Face folder or a LoRA adapter as a member of a population, or refuses it with all reasons.

A model is refused if it would make an average meaningless: another architecture, computation, shape or vocabulary. Its
distance from the base is reported; ``require_base`` refuses a model that was not fine-tuned from it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import ml_dtypes  # noqa: F401  # NumPy knows "bfloat16" by its name from here on.
import numpy as np

from wsr.errors import WsrError
from wsr.exchange.door import open_model, open_modules
from wsr.exchange.head import (
    about_adapter,
    complete_language_model,
    complete_projection,
    head_differences,
    head_of,
    head_of_base,
    tell_of_pooler,
    tell_of_tied_decoder,
    without_frozen,
)
from wsr.exchange.kinship import LEAST_COSINE, Kinship, kinship, rounding
from wsr.exchange.licences import card_of_folder
from wsr.exchange.splitting import splits_otherwise
from wsr.geometry.low_rank import LowRank, add
from wsr.geometry.trees import flatten, nest
from wsr.models.counterpart import Counterpart
from wsr.models.huggingface.config import counterpart_of, other_attributes, read_config, read_json
from wsr.models.huggingface.files import read_tensors
from wsr.models.huggingface.peft import CONFIG as ADAPTER
from wsr.models.huggingface.peft import read_adapter
from wsr.models.huggingface.sentence_modules import lost_modules
from wsr.models.huggingface.tokenizer import read_tokenizer
from wsr.models.huggingface.weights import from_huggingface, is_constant, prefix_of
from wsr.models.model import Checkpoint, Model
from wsr.models.registry import build
from wsr.runtime.model_folder import (
    TOKENIZER_FILES,
    module_weights,
    refuse_links,
    settings_of_use,
    transformer_folder,
)
from wsr.store.record import to_plain_json
from wsr.types import Params

HALF = ("float16", "bfloat16")
# Attributes that matter only in training.
_TRAINING_ONLY = re.compile(r"dropout|pdrop|initializer")


@dataclass(frozen=True, eq=False)
class Incoming:
    """A model to import, with the leaves and shapes of the base."""

    folder: Path
    """Folder it was read from."""
    params: Params
    """Parameters of the encoder in float32, with the base's leaves and shapes."""
    head: Mapping[str, np.ndarray]
    """Tensors of its heads and pooler in float32, under their names in the file."""
    about: Mapping[str, Any]
    """Facts from the folder, as JSON: format, dtype, prefix of the encoder's names, labels of the head."""
    kinship: Kinship
    """How close it is to the base."""
    notes: tuple[str, ...]
    """Changes made to it, and other notes for the user."""
    low_rank: LowRank | None = None
    """Task vector of a LoRA adapter; ``params`` includes it."""


def read_member(folder: Path, base: Checkpoint) -> Incoming:
    """Reads the model in a folder as one fine-tuned from ``base``.

    Args:
      folder: a Hugging Face folder or a LoRA adapter.
      base: the base; if its ``processor`` is None, vocabularies are not compared.

    Raises:
      WsrError: if the folder is damaged, or its architecture, config, vocabulary or shapes differ from the base's; the
        message lists all differences in one line.
    """
    refuse_links(folder)
    if (folder / ADAPTER).exists():
        return _read_adapter(folder, base)
    open_model(folder)  # refuses what no verb reads, from the headers alone
    counterpart = counterpart_of(base.model)
    outer, folder = folder, transformer_folder(folder)
    theirs = _architecture(folder, counterpart)
    rows = base.model.config.get("vocab_size")
    their_rows = theirs.get("vocab_size", rows) if rows is not None else None
    problems = _config_differences(folder, base.model) + _lost(outer, base.model)
    notes: list[str] = []
    their_rows, fresh = _compare_vocabularies(folder, base.processor, rows, their_rows, problems, notes)
    model = base.model
    if their_rows != rows:
        model = build(base.model.name, {**base.model.config, "vocab_size": their_rows})
    tensors = read_tensors(folder)
    in_file = tuple(tensors)
    problems += complete_language_model(tensors, base, theirs, notes)
    complete_projection(tensors, base, notes)
    try:
        params, dropped = from_huggingface(model, tensors)
        problems += head_differences({name: tensors[name] for name in dropped}, theirs)
    except WsrError as error:
        problems.append(str(error))
    if problems:
        raise WsrError(f"{folder}: cannot be a member of this population: {'; '.join(problems)}")
    if model is not base.model or fresh:
        params = _fit_vocabulary(params, base, fresh)
    _refuse_broken(folder, params)
    learned = tuple(name for name in dropped if not is_constant(counterpart, name))
    learned = without_frozen(tensors, learned, base, notes)
    head = head_of(tensors, learned, params, rows, their_rows, theirs, notes)
    tell_of_pooler(counterpart, dropped, notes)
    tell_of_tied_decoder(theirs, in_file, notes)
    found = kinship(params, base.params)
    dtypes = sorted({str(tensor.dtype) for name, tensor in tensors.items() if name not in dropped})
    notes += [_of_precision(dtype, base.params, found) for dtype in dtypes if dtype in HALF]
    about = {
        "format": "safetensors",
        "dtype": ", ".join(dtypes),
        "prefix": prefix_of(counterpart, tensors),
        "config": other_attributes(folder, base.model.name),
        **_card(outer),
    }
    return Incoming(outer, params, head, about, found, tuple(notes))


def require_base(incoming: Incoming, hint: str = "") -> None:
    """Raises ``WsrError`` if a model was not fine-tuned from the base it was compared with.

    Args:
      incoming: the model.
      hint: text appended to the message.
    """
    if not incoming.kinship.same_base:
        raise WsrError(
            f"{incoming.folder}: not fine-tuned from this base: {incoming.kinship} (a fine-tuned model has a cosine of "
            f"nearly 1, an independent one of nearly 0; at least {LEAST_COSINE:g} is required){hint}"
        )


def _read_adapter(folder: Path, base: Checkpoint) -> Incoming:
    adapter = read_adapter(folder, base.model, base.params, head_of_base(base))
    notes = ["a LoRA adapter, merged into the base: its tensors do not show which base it was trained from"]
    if adapter.base_name:
        same = adapter.base_name.removeprefix("./").rstrip("/") == base.name.removeprefix("./").rstrip("/")
        other = "" if same else f" as its base, and this base is {base.name!r}: make sure that they are the same model"
        notes.append(f"its config names {adapter.base_name!r}{other}")
    about = {**about_adapter(adapter, base, notes), **_card(folder)}
    params = add(base.params, adapter.task_vector)
    _refuse_broken(folder, params)
    head = {name: np.asarray(tensor, np.float32) for name, tensor in adapter.head.items()}
    return Incoming(folder, params, head, about, kinship(params, base.params), tuple(notes), adapter.task_vector)


def _card(folder: Path) -> dict[str, Any]:
    """Returns the licence and the datasets that the card of a folder names, for the record of the member."""
    card = card_of_folder(folder)
    return {} if card is None else {"card": card}


def _lost(folder: Path, model: Model) -> list[str]:
    """Returns what an export could not keep of a SentenceTransformer, and modules whose weights are not finite."""
    broken = [name for name, own in open_modules(folder).items() if not np.isfinite(own.whole().astype("f4")).all()]
    lost = [f"NaN or infinity in {name}" for name in broken]
    lost += lost_modules(settings_of_use(folder) | module_weights(folder), model)
    remedy = "; to import its Transformer alone, copy the folder without modules.json"
    return [f"as a SentenceTransformer it cannot be kept: {'; '.join(lost)}{remedy}"] if lost else []


def _architecture(folder: Path, counterpart: Counterpart) -> dict[str, Any]:
    path = folder / "config.json"
    raw = read_json(path)
    if not counterpart.reads(raw.get("model_type")):
        raise WsrError(
            f"{path}: another architecture: model_type is {raw.get('model_type')!r} there and "
            f"{counterpart.model_type!r} in the base"
        )
    return raw


def _config_differences(folder: Path, model: Model) -> list[str]:
    try:
        _, config = read_config(folder, model.name)
    except WsrError as error:
        return [str(error)]
    theirs, ours = (to_plain_json(values, "config") for values in (config, model.config))
    whole = counterpart_of(model).whole
    # The tensors decide whether a language-modelling head is tied, and how wide the projection of a tower is.
    passed_over = {"vocab_size", "tie_word_embeddings", *(whole.decides if whole else ())}
    return [
        f"config {name} is {value!r} there and {ours[name]!r} in the base"
        for name, value in theirs.items()
        if name not in passed_over and not _TRAINING_ONLY.search(name) and value != ours[name]
    ]


def _compare_vocabularies(
    folder: Path, tokenizer: Any, rows: Any, their_rows: Any, problems: list[str], notes: list[str]
) -> tuple[Any, list[int]]:
    """Compares the vocabularies; adds to ``problems`` why they do not fit, or to ``notes`` how rows are adapted.

    Returns:
      The number of rows to read their token embedding with, and the rows of their tokens that the base does not have.
    """
    if rows is None or (tokenizer is None and rows == their_rows):
        return rows, []
    sizes = f"vocab_size is {their_rows!r} there and {rows} in the base"
    if not isinstance(their_rows, int) or isinstance(their_rows, bool) or not 0 < their_rows < 2**31:
        problems.append(f"config {sizes}")
        return rows, []
    if tokenizer is None or not any((folder / name).exists() for name in TOKENIZER_FILES):
        if rows == their_rows:
            notes.append("no tokenizer in the folder: assumed to have the base's tokens")
        else:
            problems.append(f"{sizes}, and without a tokenizer the rows cannot be matched")
        return their_rows, []
    try:
        tokenizer_there = read_tokenizer(folder, their_rows)
    except WsrError as error:
        problems.append(str(error))
        return their_rows, []
    ours, theirs = _tokens(tokenizer), _tokens(tokenizer_there)
    needed = max(ours) + 1
    if their_rows < needed:
        problems.append(f"{sizes}, but the base's tokenizer has {needed} entries")
    other = [number for number, token in ours.items() if number < their_rows and theirs.get(number) != token]
    if other:
        first, more = other[0], f" (and {len(other) - 1} more)" if len(other) > 1 else ""
        problems.append(
            f"another vocabulary: token {first} is {theirs.get(first)!r} there and {ours[first]!r} in the base{more}"
        )
    elif their_rows > rows:
        notes.append(f"the last {their_rows - rows} of {their_rows} tokens are not in the base: their rows are removed")
    elif their_rows < rows:
        notes.append(f"{rows - their_rows} rows without a token are missing: taken from the base")
    told = None if other else splits_otherwise(tokenizer.backend_tokenizer, tokenizer_there.backend_tokenizer)
    if told:
        notes.append(f"its tokenizer has the base's tokens, but {told}: the store has the base's tokenizer")
    # Members may have given one spare row to different tokens: their average would mean nothing.
    fresh = [number for number in theirs if number not in ours and number < rows]
    if fresh:
        named = ", ".join(repr(theirs[number]) for number in fresh[:3]) + (", ..." if len(fresh) > 3 else "")
        notes.append(f"{len(fresh)} new tokens in spare rows are not in the base ({named}): their rows are the base's")
    return their_rows, fresh


def _tokens(tokenizer: Any) -> dict[int, str]:
    return dict(sorted((number, token) for token, number in tokenizer.get_vocab().items()))


def _fit_vocabulary(params: Params, base: Checkpoint, fresh: list[int]) -> Params:
    """Cuts leaves with more rows than the base's, and takes missing rows and those in ``fresh`` from the base."""
    fitted = flatten(params)
    for path, axis in _token_axes(base.model).items():
        leaf = np.moveaxis(np.asarray(fitted[path]), axis, 0)
        rows = np.moveaxis(np.asarray(flatten(base.params)[path]), axis, 0)
        leaf = np.concatenate([leaf[: len(rows)], rows[len(leaf) :]])
        leaf[fresh] = rows[fresh]
        fitted[path] = np.moveaxis(leaf, 0, axis)
    return nest(fitted)


def _token_axes(model: Model) -> dict[str, int]:
    """Returns the axis of each leaf that has one row for each token."""
    wider = build(model.name, {**model.config, "vocab_size": model.config["vocab_size"] + 1})
    own, other = (flatten(jax.eval_shape(each.init, jax.random.key(0))) for each in (model, wider))
    pairs = {path: zip(leaf.shape, other[path].shape, strict=True) for path, leaf in own.items()}
    unlike = {path: [axis for axis, (a, b) in enumerate(sizes) if a != b] for path, sizes in pairs.items()}
    return {path: axes[0] for path, axes in unlike.items() if axes}


def _refuse_broken(folder: Path, params: Params) -> None:
    broken = [path for path, leaf in flatten(params).items() if not np.isfinite(np.asarray(leaf)).all()]
    if broken:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        raise WsrError(
            f"{folder}: a broken run: NaN or infinity in {', '.join(broken[:3])}{more} of its weights; it "
            "belongs to no region"
        )


def _of_precision(dtype: str, base: Params, found: Kinship) -> str:
    """Returns a note on how much of the task vector rounding to ``dtype`` removed, as far as that is known."""
    lost = rounding(base, np.dtype(dtype))
    if lost == 0:
        return f"stored as {dtype}, like the base: how much of its task vector rounding removed is unknown"
    if found.moved == 0:
        return f"stored as {dtype} and equal to the base"
    share = lost / found.moved
    return (
        f"stored as {dtype}: rounding weights like the base's moves them by {100 * share:.3g} % of the distance "
        f"between this model and the base{'; most of its task vector is rounding' if share > 0.5 else ''}"
    )
