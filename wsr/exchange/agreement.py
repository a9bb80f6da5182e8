"""Whether models that lie in files may be merged entry by entry: the checks of an import, for any architecture.

A mean of weights has a meaning only if both models compute alike: equal config, vocabulary and order of classes, and
one base. Tensors are read in pieces, and JAX is loaded only if two configs differ.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from wsr.exchange.door import Brought
from wsr.exchange.kinship import LEAST_COSINE, products
from wsr.exchange.splitting import folders_split_otherwise
from wsr.exchange.tokens import vocabulary
from wsr.runtime.model_folder import SENTENCEPIECE_FILES, read_json
from wsr.runtime.tensor_files import FLOATS, Tensor

_SAMPLE = 2**16  # entries of each matrix that are compared
# Attributes that say nothing about the computation, in the config of any architecture.
_ABOUT_FILE = frozenset(
    (
        *("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "finetuning_task"),
        *("bos_token_id", "cls_token_id", "eos_token_id", "mask_token_id", "sep_token_id", "task_specific_params"),
    )
)
# Labels are compared by themselves; another number of tokens or classes shows in the shapes.
_COMPARED = frozenset(("id2label", "label2id", "num_labels", "vocab_size"))
_TRAINING_ONLY = re.compile(r"dropout|pdrop|dropped|initializer|drop_path")
_LAST_LAYER = re.compile(
    r"(?:^|\.)(?:classifier|classification_head|score|logits_proj)(?:\.(?:out_proj|linear|linear_out|\d+))?"
    r"\.(?:weight|bias)$"
)
_CLASSIFIES = re.compile(r"For(Sequence|Token|Image|Audio\w*|Video\w*)Classification$")


def config_differences(ours: Brought, theirs: Brought) -> list[str]:
    """Returns the attributes in which two configs differ and that may change what the models compute.

    Args:
      ours: a model.
      theirs: another; if one of them has no config, nothing is compared.
    """
    if ours.config is None or theirs.config is None:
        return []
    mine, other = ours.config, theirs.config
    skipped = _ABOUT_FILE | _COMPARED
    unlike = _unlike(mine, other, skipped)
    if "model_type" in unlike:
        unlike = ["model_type"]
    elif unlike:
        # An attribute that is absent has the default of transformers, and some have two names.
        mine, other = with_defaults(mine, other)
        matters = _matters(str(mine.get("model_type")))
        unlike = [name for name in _unlike(mine, other, skipped) if matters(name)]
    return [f"config {name} is {other.get(name)!r} in {theirs} and {mine.get(name)!r} in {ours}" for name in unlike]


def vocabulary_difference(ours: Brought, theirs: Brought) -> str | None:
    """Returns the first token in which the vocabularies of two folders differ, or a text that they split otherwise.

    None if there is neither.

    Args:
      ours: a model.
      theirs: another; if one of them has no tokenizer, nothing is compared.
    """
    if not (ours.path.is_dir() and theirs.path.is_dir()):
        return None
    for name in ("tokenizer.json", *SENTENCEPIECE_FILES, "vocab.txt"):
        here, there = ours.transformer / name, theirs.transformer / name
        if here.is_file() and there.is_file():
            if here.read_bytes() == there.read_bytes():
                return None
            if name in SENTENCEPIECE_FILES:
                return f"{name} differs between {theirs} and {ours}"
    mine, other = vocabulary(ours.transformer), vocabulary(theirs.transformer)
    if mine is None or other is None:
        return None
    unlike = sorted(number for number in mine.keys() | other.keys() if mine.get(number) != other.get(number))
    if not unlike:
        told = folders_split_otherwise(ours.transformer, theirs.transformer)
        return (
            f"the tokenizers of {theirs} (there) and {ours} (here) have the same tokens, but {told}" if told else None
        )
    first, more = unlike[0], f" (and {len(unlike) - 1} more)" if len(unlike) > 1 else ""
    return f"token {first} is {other.get(first)!r} in {theirs} and {mine.get(first)!r} in {ours}{more}"


def rows_by_label(ours: Brought, theirs: Brought) -> list[int] | str | None:
    """Returns which row of their classifier belongs to each row of ours.

    Args:
      ours: a model.
      theirs: another.

    Returns:
      The rows; None if they are in one order or there is no classifier; a text if the names do not tell the order.
    """
    mine, other = ours.labels, theirs.labels
    if mine is None or other is None:
        # transformers leaves out the names that it gives by default.
        plain_names = [f"LABEL_{number}" for number in range(len(mine or other or ()))]
        mine, other = mine or plain_names, other or plain_names
    if mine == other or len(mine) != len(other) or len(mine) == 1:
        return None
    if not (
        last_layer(ours) or any(_CLASSIFIES.search(name) for name in (ours.config or {}).get("architectures") or ())
    ):
        return None
    plain = [[name.casefold() for name in own] for own in (mine, other)]
    unlike = f"the classes are {', '.join(other)} in {theirs} and {', '.join(mine)} in {ours}"
    if sorted(plain[0]) != sorted(plain[1]) or len(set(plain[0])) != len(mine):
        return unlike
    if plain[0] == plain[1]:
        return None
    return [plain[1].index(name) for name in plain[0]] if last_layer(ours) else unlike


def last_layer(model: Brought) -> list[str]:
    """Returns the names of the tensors of a classifier that have one row for each class."""
    classes = len(model.labels or ())
    return [
        name
        for name, tensor in model.tensors.items()
        if _LAST_LAYER.search(name) and tensor.shape[:1] == (classes,) and tensor.dtype in FLOATS
    ]


def cosine_with(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> float:
    """Returns the median cosine of two models' matrices, over at most the first 2^16 entries of each; 1 without any.

    ``wsr.exchange.kinship`` says what it means.

    Args:
      ours: tensors of a model.
      theirs: tensors of another, of the same names and shapes.
    """
    cosines = []
    for name, own in ours.items():
        if len(own.shape) >= 2 and own.dtype in FLOATS and own.size:
            pieces = np.empty((2, min(own.size, _SAMPLE)), np.float32)
            own.read(0, pieces[0])
            theirs[name].read(0, pieces[1])
            if not np.isfinite(pieces).all():  # the merge itself refuses it, and names the tensor
                continue
            inner, their_square, our_square, _ = products(pieces[1], pieces[0])
            if our_square > 0:
                cosines.append(inner / np.sqrt(their_square * our_square) if their_square > 0 else 0.0)
    return float(np.median(cosines)) if cosines else 1.0


def other_base(ours: Brought, theirs: Brought) -> str | None:
    """Returns a text if two models were not fine-tuned from one base.

    Args:
      ours: a model.
      theirs: another, with tensors of the same names and shapes.
    """
    cosine = cosine_with(ours.tensors, theirs.tensors)
    if cosine >= LEAST_COSINE:
        return None
    return (
        f"{theirs} and {ours} were not fine-tuned from one base: their matrices have a median cosine of {cosine:.4f} "
        f"(nearly 1 after fine-tuning, nearly 0 for independent models; at least {LEAST_COSINE:g} is required)"
    )


def _unlike(ours: Mapping[str, Any], theirs: Mapping[str, Any], skipped: frozenset[str]) -> list[str]:
    # None means "not set".
    names = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    return [name for name in names if name not in skipped and not _TRAINING_ONLY.search(name)]


def with_defaults(*configs: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns configs with the defaults of transformers for attributes that they lack; unknown ones as they are."""
    from transformers import AutoConfig

    try:
        return [AutoConfig.for_model(**config).to_dict() for config in configs]
    except Exception:  # An unknown architecture, or values that its config class refuses: compared as they are.
        return [*configs]


def _matters(model_type: str) -> Callable[[str], bool]:
    """Returns whether an attribute may change what models of an architecture compute: any may of an unknown one."""
    from wsr.models.huggingface.config import ATTRIBUTES_READ, HARMLESS

    read = read_json(ATTRIBUTES_READ)["read"].get(model_type)
    known = {name for names in read.values() for name in names} if read else None
    return lambda name: name not in HARMLESS and (known is None or name in known)
