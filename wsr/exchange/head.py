"""The head of an imported model: its tensors, its labels, and what to tell about them."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from jax import numpy as jnp

from wsr.geometry.trees import flatten
from wsr.models.counterpart import Counterpart
from wsr.models.huggingface.peft import Adapter
from wsr.models.huggingface.weights import is_dropped
from wsr.types import Params

# Config entries about the head, stored so that an export restores the whole classifier.
ABOUT_HEAD = ("architectures", "id2label", "label2id", "problem_type", "classifier_dropout")
_CLASSES = re.compile(r"(classifier|out_proj|score)\.weight$")
_LANGUAGE_MODEL = re.compile(r".*(MaskedLM|PreTraining|CausalLM|LMHeadModel)")


def head_of(
    tensors: Mapping[str, np.ndarray],
    dropped: tuple[str, ...],
    params: Params,
    rows: Any,
    their_rows: Any,
    notes: list[str],
) -> dict[str, np.ndarray]:
    """Returns the float32 tensors of a model's head by their names in the file, and adds notes about them."""
    head = {}
    tables = [leaf for leaf in flatten(params).values() if leaf.ndim == 2 and leaf.shape[0] == rows]
    for name in dropped:
        tensor = tensors[name]
        # Positions and masks, which are not learned.
        if not jnp.issubdtype(tensor.dtype, np.floating):
            continue
        leaf = np.asarray(tensor, np.float32)
        if leaf.ndim and leaf.shape[0] == their_rows and their_rows != rows:
            if their_rows < rows:
                notes.append(f"{name} does not have a row for every token of the base: left out")
                continue
            leaf = leaf[:rows]
        if any(leaf.shape == table.shape and np.array_equal(leaf, table) for table in tables):
            notes.append(f"{name} is tied to the token embedding: not stored again")
            continue
        head[name] = leaf
    if head:
        notes.append(f"stored separately as its head: {', '.join(sorted(head))}")
    return head


def adapter_head(adapter: Adapter) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns the float32 tensors of an adapter's head, and config entries that number its labels."""
    head = {name: np.asarray(tensor, np.float32) for name, tensor in adapter.head.items()}
    # An adapter's config does not list its labels.
    classes = next((len(head[name]) for name in head if _CLASSES.search(name)), 0)
    if not classes:
        return head, {}
    labels = {str(number): f"LABEL_{number}" for number in range(classes)}
    return head, {"id2label": labels, "label2id": {label: int(number) for number, label in labels.items()}}


def head_differences(head: Mapping[str, np.ndarray], theirs: Mapping[str, Any]) -> list[str]:
    """Returns a message if the classifier's number of rows differs from the number of labels in the config."""
    labels = theirs.get("id2label")
    if not isinstance(labels, Mapping):
        return []
    rows = {name: leaf.shape[0] for name, leaf in head.items() if _CLASSES.search(name) and leaf.ndim == 2}
    return [
        f"the head {name} has {count} rows where config id2label names {len(labels)} labels"
        for name, count in rows.items()
        if count != len(labels)
    ]


def tell_of_pooler(counterpart: Counterpart, dropped: tuple[str, ...], notes: list[str]) -> None:
    """Adds a note if the architecture has a pooler and the file has none."""
    known = any(is_dropped(counterpart, name) for name in ("pooler.dense.weight", "pooler.weight"))
    if known and not any("pooler." in name for name in dropped):
        notes.append("no pooler in the file")


def tell_of_tied_decoder(config: Mapping[str, Any], dropped: tuple[str, ...], notes: list[str]) -> None:
    """Adds a note if the decoder of a language model is not in its file."""
    language_model = any(_LANGUAGE_MODEL.fullmatch(str(kind)) for kind in config.get("architectures") or ())
    if language_model and not any(name.endswith(("decoder.weight", "lm_head.weight")) for name in dropped):
        notes.append("its decoder is tied to the token embedding and not in the file")
