"""Imports Hugging Face model folders strictly, and exports folders that ``transformers.AutoModel`` loads."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from wsr.data.image_processor import FILE as IMAGE_PROCESSOR_FILE
from wsr.data.image_processor import read_image_processor
from wsr.errors import WsrError
from wsr.geometry.trees import flatten
from wsr.models.huggingface.config import (
    counterpart_of,
    is_whole,
    other_attributes,
    read_config,
    read_json,
    to_config,
)
from wsr.models.huggingface.files import read_tensors
from wsr.models.huggingface.heads import ClassifierHead
from wsr.models.huggingface.pooling import POOLING_FILE, folder_pooling, write_pooling
from wsr.models.huggingface.sentence_modules import kept_files
from wsr.models.huggingface.shards import SHARD_BYTES, write_file, write_tensors
from wsr.models.huggingface.tokenizer import read_tokenizer
from wsr.models.huggingface.weights import from_huggingface, head_settings, language_model_heads, their_tensors
from wsr.models.huggingface.whole import rest_of_whole
from wsr.models.model import Checkpoint, Model
from wsr.models.registry import architectures, build
from wsr.runtime.model_folder import (
    CONFIG,
    MODULES,
    TOKENIZER_FILES,
    copy_companions,
    module_weights,
    refuse_links,
    settings_of_use,
    transformer_folder,
)
from wsr.runtime.model_folder import companions as all_companions
from wsr.runtime.new_folder import new_folder
from wsr.types import AnyArray

CARD = "README.md"
PROCESSORS_FILE = "processor_config.json"
"""In which transformers 5 saves the image processor of a model that reads images and texts."""
_OF_IMAGES = (IMAGE_PROCESSOR_FILE, PROCESSORS_FILE)
_OF_A_HEAD = ("architectures", "id2label", "label2id", "num_labels", "problem_type", "tie_word_embeddings")

_log = logging.getLogger(__name__)


def import_folder(folder: Path, *, pooling: str | None = None) -> Checkpoint:
    """Returns the checkpoint in a Hugging Face folder.

    Args:
      folder: holds a config, safetensors, and a tokenizer or an image processor, or is a SentenceTransformer with
        these in a folder of their own.
      pooling: "mean", "cls" or "last"; None: the pooling that the folder names (in a file of sentence-transformers),
        else the one that the Hugging Face classification heads of the architecture use.

    Raises:
      WsrError: something in the folder is missing, damaged or unsupported.
    """
    refuse_links(folder)
    inner = transformer_folder(folder)
    name, config = read_config(inner)
    counterpart = architectures()[name].counterpart
    assert counterpart is not None
    tensors = read_tensors(inner)
    present = head_settings(counterpart, config, tensors)
    pooling = pooling or folder_pooling(folder) or counterpart.pooling
    model = build(name, {**config, **present, "pooling": pooling})
    processor = read_processor(inner, model)
    params, dropped = from_huggingface(model, tensors)
    if dropped:
        _log.info("%s: not part of the encoder, dropped: %s", folder, ", ".join(dropped))
    return Checkpoint(model, params, processor, folder=folder)


def export(checkpoint: Checkpoint, folder: str | Path, *, card: str | None = None) -> None:
    """Writes a checkpoint as a Hugging Face folder, which ``AutoModel.from_pretrained`` loads with equal hidden states.

    The export of a BERT has no pooler: load it with ``AutoModel.from_pretrained(folder, add_pooling_layer=False)``.

    Args:
      checkpoint: the model, its parameters and its tokenizer or image processor. Settings beside the weights in its
        folder (chat templates, generation settings, ...) are copied.
      folder: a new or empty folder.
      card: text of the model card, README.md; None: no card.

    Raises:
      WsrError: ``folder`` is not empty or cannot be written, or the architecture has no Hugging Face counterpart.

    Example:
      >>> import tempfile, wsr
      >>> base, region = wsr.load("tiny"), wsr.made_up_region(3)
      >>> folder = tempfile.mkdtemp() + "/centroid"
      >>> wsr.export(base.with_params(region.params(region.centroid())), folder)
      >>> wsr.load(folder).model.name
      'bert'
    """
    leaves = flatten(checkpoint.params)
    leaf, processor, source = leaves.__getitem__, checkpoint.processor, checkpoint.folder
    # Without the processor: that of the checkpoint may have been changed since it was read.
    files: dict[str, Path] = {}
    if source and source.is_dir():
        files = settings_of_use(source) | module_weights(source)
        # A model of images has no say over the tokenizer of the text tower beside it.
        more = {CONFIG} if checkpoint.model.reads == "text" else all_companions(source).keys() - {*_OF_IMAGES}
        files |= {name: path for name, path in all_companions(source).items() if name in more}
    write_folder(checkpoint.model, leaf, processor, Path(folder), card=card, companions=files)


def write_folder(
    model: Model,
    leaf: Callable[[str], AnyArray],
    processor: Any,
    folder: Path,
    *,
    head: ClassifierHead | None = None,
    card: str | None = None,
    companions: Mapping[str, Path] | None = None,
    modules: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes a Hugging Face folder, completely or not at all, leaf by leaf: the model need not fit in memory.

    Args:
      model: the architecture.
      leaf: returns the float32 leaf at a path; called once for each, in the order of the file.
      processor: the tokenizer or image processor; written unless ``companions`` has its files.
      folder: a new or empty folder.
      head: a classification head; None: the bare encoder.
      card: text of the model card, README.md; None: no card.
      companions: files to copy, by relative path: tokenizer, chat templates, generation settings, ... Of a
        ``config.json`` among them, the attributes that do not determine the hidden states are passed on.
      modules: tensors of files to write in place of companions, by relative path: weights of a SentenceTransformer's
        modules.
      shard_bytes: size from which the weights are split into several files.

    Raises:
      WsrError: ``folder`` is not empty or cannot be written, or the architecture has no Hugging Face counterpart.
    """
    own = dict(modules or {})
    copied = kept_files({**(companions or {}), **dict.fromkeys(own, Path())}, model)
    whole = rest_of_whole(model, copied, head)
    if whole:
        config, extra = whole
    else:
        attributes = _marks(model, processor) | _passed_on(copied, model) | (dict(head.config) if head else {})
        config, extra = to_config(model, **attributes), dict(head.tensors) if head else {}
    table = {
        full_name(model, head, theirs): (ours, layout)
        for theirs, ours, layout in their_tensors(model)
        if not of_other_class(model, head, theirs)
    }
    shapes = flatten(jax.eval_shape(model.init, jax.random.key(0)))
    # Shapes only: a broadcast scalar takes no memory.
    forms = {
        name: layout.back(np.broadcast_to(np.float32(0), shapes[ours].shape)).shape
        for name, (ours, layout) in table.items()
    }

    def tensor(name: str) -> np.ndarray:
        if name in extra:
            return extra[name]
        ours, layout = table[name]
        return layout.back(np.asarray(leaf(ours), np.float32))

    with new_folder(folder) as unfinished:
        copy_companions({file: source for file, source in copied.items() if file not in own}, unfinished)
        for file in copied.keys() & own.keys():
            (unfinished / file).parent.mkdir(exist_ok=True)
            write_file(unfinished / file, {name: leaf.shape for name, leaf in own[file].items()}, own[file].__getitem__)
        if not copied.keys() & set(TOKENIZER_FILES if model.reads == "text" else _OF_IMAGES):
            _save(processor, unfinished)
        config.save_pretrained(unfinished)
        if MODULES not in copied:
            (unfinished / POOLING_FILE).parent.mkdir(exist_ok=True)
            write_pooling(model, unfinished)
        if card is not None:
            (unfinished / CARD).write_text(card, encoding="utf-8")
        write_tensors(unfinished, forms | {name: leaf.shape for name, leaf in extra.items()}, tensor, shard_bytes)


def _save(processor: Any, folder: Path) -> None:
    try:
        processor.save_pretrained(folder)
    except OSError:
        raise
    except Exception as error:  # tokenizers raises plain ones, on a full disk for example
        raise OSError(str(error)) from error


def _marks(model: Model, tokenizer: Any) -> dict[str, Any]:
    """Returns the ids of the first and last token, with which a language model begins and ends a text."""
    if model.token_losses is None:
        return {}
    found = {name: getattr(tokenizer, name, None) for name in ("bos_token_id", "eos_token_id")}
    return {name: number for name, number in found.items() if number is not None}


def full_name(model: Model, head: ClassifierHead | None, name: str) -> str:
    """Returns a tensor's name in the class that the config names: with the encoder's prefix, unless it is a head's."""
    counterpart = counterpart_of(model)
    if name in language_model_heads(counterpart):
        return name
    language_model = counterpart.prefix if model.token_losses is not None else ""
    return f"{head.prefix if head else language_model}{name}"


def of_other_class(model: Model, head: ClassifierHead | None, name: str) -> bool:
    """Returns whether a tensor is a language-modelling head and the folder's class, a classifier, has none."""
    counterpart = counterpart_of(model)
    classes = head.config.get("architectures") or () if head else ()
    return (
        bool(classes) and counterpart.language_model_class not in classes and name in language_model_heads(counterpart)
    )


def _passed_on(companions: Mapping[str, Path], model: Model) -> dict[str, Any]:
    """Returns the attributes of the base's config that are also true of a point, with the ids of its special tokens."""
    if CONFIG not in companions:
        return {}
    if is_whole(counterpart_of(model), read_json(companions[CONFIG])):
        return {}  # they are those of another class
    attributes = other_attributes(companions[CONFIG].parent, model.name)
    # Of attributes with one supported value, the encoder alone has that one: a T5's is no encoder-decoder.
    left_out = {*_OF_A_HEAD, *counterpart_of(model).only}
    return {name: value for name, value in attributes.items() if name not in left_out}


def read_processor(folder: Path, model: Model) -> Any:
    """Returns the folder's tokenizer or, if ``model`` reads images, its image processor.

    Raises:
      WsrError: the folder has none, or it is damaged or does not fit the model.
    """
    if model.reads == "text":
        return read_tokenizer(folder, model.config["vocab_size"])
    path, inside = folder / IMAGE_PROCESSOR_FILE, folder / PROCESSORS_FILE
    if path.exists() or not inside.exists():
        content = read_json(path)
    else:
        path, content = inside, read_json(inside).get("image_processor", {})
        if not isinstance(content, dict):
            raise WsrError(f"{path}: image_processor: expected a JSON object, found {type(content).__name__}")
    return read_image_processor(path, content, size=model.config["image_size"], channels=model.config["num_channels"])
