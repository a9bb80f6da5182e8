"""Which units of a model may change places without changing what it computes: hidden units, heads, features of a head.

A feed-forward network keeps its function if its hidden units change places. So does attention if its heads do, or the
features of its values within a head; and those of its queries and keys, unless positions or norms tell them apart. The
residual stream may be permuted as a whole: the logits of a language model stay as they are, and the features of an
encoder change places. ``tests/test_permutations.py`` applies all of them to every architecture.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from wsr.geometry.trees import flatten
from wsr.models.model import Model

_HEADS = ("num_attention_heads", "n_heads", "n_head", "num_heads")
"""Names of the number of heads in configs."""
_READ_STREAM = frozenset(
    (
        *("query", "key", "value", "query_key_value", "distance_key", "distance_query"),
        *("intermediate", "gate", "up", "gate_and_up", "head"),
    )
)
"""Layers whose inputs are the residual stream."""
_WRITE_STREAM = frozenset(("output", "mix", "attention_output", "down", "projection"))
"""Layers whose outputs are."""
_TABLES = frozenset(("token", "position", "token_type", "class_token", "probe"))
_NORMS = frozenset(
    (
        *("norm", "attention_norm", "feed_forward_norm", "last_norm", "distance_norm", "embedding_norm", "cross_norm"),
        *("attention_output_norm", "feed_forward_output_norm"),
    )
)


@dataclass(frozen=True)
class Axis:
    """A stretch of an axis of a leaf."""

    path: str
    """Path of the leaf."""
    axis: int
    start: int = 0
    """Index at which the stretch begins."""


@dataclass(frozen=True)
class FeedForwardUnits:
    """The hidden units of a feed-forward network."""

    size: int
    """Number of units."""
    into: tuple[Axis, ...]
    """Axes of the layers before the units, with one entry for each unit."""
    out: tuple[Axis, ...]
    """Axes of the layer after them."""


@dataclass(frozen=True)
class AttentionUnits:
    """The heads of an attention layer. The features of a head lie side by side."""

    heads: int
    key_heads: int
    """Number of key and value heads, each shared by ``heads / key_heads`` query heads."""
    width: int
    """Number of features of a head."""
    query: tuple[Axis, ...]
    key: tuple[Axis, ...]
    value: tuple[Axis, ...]
    output: tuple[Axis, ...]
    free: bool
    """Whether the features of queries and keys may change places within a head."""


@dataclass(frozen=True)
class Permutable:
    """All units of a model that may change places."""

    feed_forwards: tuple[FeedForwardUnits, ...]
    attentions: tuple[AttentionUnits, ...]
    head_tables: tuple[Axis, ...]
    """Axes with one entry for each head of every layer: if there are any, the heads of all layers move together."""
    stream: tuple[Axis, ...]
    """Axes that carry the residual stream; empty if some leaf of the model is not understood."""
    hidden: int
    """Width of the residual stream."""

    @property
    def stream_alone(self) -> tuple[Axis, ...]:
        """Axes of the residual stream of leaves on which no other units lie, such as token tables."""
        others = {axis.path for own in self.feed_forwards for axis in (*own.into, *own.out)}
        for own in self.attentions:
            others |= {axis.path for axis in (*own.query, *own.key, *own.value, *own.output)}
        return tuple(axis for axis in self.stream if axis.path not in others)


def permutable(model: Model) -> Permutable:
    """Returns the units of a model that may change places, by the names of its layers.

    Args:
      model: the architecture; one with layers of other names has none.

    Example:
      >>> import wsr
      >>> from wsr.models.permutations import permutable
      >>> found = permutable(wsr.load("tiny").model)
      >>> [units.size for units in found.feed_forwards], found.attentions[0].heads
      ([32, 32], 2)
    """
    shapes = {path: leaf.shape for path, leaf in flatten(jax.eval_shape(model.init, jax.random.key(0))).items()}
    children: dict[str, set[str]] = {}
    for path in shapes:
        parent, _, name = path.rpartition("/")[0].rpartition("/")
        children.setdefault(parent, set()).add(name)
    heads = next((int(model.config[name]) for name in _HEADS if name in model.config), 0)
    feed_forwards, attentions = [], []
    for parent, names in children.items():
        at = f"{parent}/" if parent else ""
        feed_forwards += _feed_forward(shapes, at, names)
        attentions += _attention(shapes, at, names, heads, model.config) if heads else []
    tables = [
        Axis(path, 1) for path, shape in shapes.items() if path.endswith("distance/embedding") and shape[1:] == (heads,)
    ]
    stream = _stream(shapes, model.hidden, {table.path for table in tables})
    return Permutable(tuple(feed_forwards), tuple(attentions), tuple(tables), stream, model.hidden)


Shapes = Mapping[str, tuple[int, ...]]


def _outputs(shapes: Shapes, module: str, start: int = 0) -> list[Axis]:
    """Returns the axes of a layer that have one entry for each of its outputs."""
    found = [Axis(f"{module}/kernel", 1, start)]
    return [*found, Axis(f"{module}/bias", 0, start)] if f"{module}/bias" in shapes else found


def _inputs(module: str) -> tuple[Axis, ...]:
    return (Axis(f"{module}/kernel", 0),)


def _feed_forward(shapes: Shapes, at: str, names: set[str]) -> list[FeedForwardUnits]:
    if {"gate_and_up", "down"} <= names:
        size = shapes[f"{at}down/kernel"][0]
        into = [*_outputs(shapes, f"{at}gate_and_up"), *_outputs(shapes, f"{at}gate_and_up", size)]
        return [FeedForwardUnits(size, tuple(into), _inputs(f"{at}down"))]
    for first, last in (("intermediate", "output"), ("up", "down")):
        if {first, last} <= names:
            before = [first, *({"gate"} & names)]
            into = [axis for name in before for axis in _outputs(shapes, f"{at}{name}")]
            return [FeedForwardUnits(shapes[f"{at}{last}/kernel"][0], tuple(into), _inputs(f"{at}{last}"))]
    return []


def _attention(shapes: Shapes, at: str, names: set[str], heads: int, config: Mapping[str, Any]) -> list[AttentionUnits]:
    key_heads = int(config.get("num_key_value_heads") or heads)
    free = "rope_parameters" not in config and not {"query_norm", "key_norm"} & names and key_heads == heads
    if {"query_key_value", "attention_output"} <= names:
        size = shapes[f"{at}attention_output/kernel"][0]
        parts = [tuple(_outputs(shapes, f"{at}query_key_value", part * size)) for part in range(3)]
        output = _inputs(f"{at}attention_output")
    elif {"query", "key", "value"} <= names and {"mix", "output"} & names:
        size = shapes[f"{at}query/kernel"][1]
        of_distances = {"query": "distance_query", "key": "distance_key", "value": ""}
        parts = [
            tuple(axis for own in (name, more) if own in names for axis in _outputs(shapes, f"{at}{own}"))
            for name, more in of_distances.items()
        ]
        output = _inputs(f"{at}{'mix' if 'mix' in names else 'output'}")
    else:
        return []
    query, key, value = parts
    return [AttentionUnits(heads, key_heads, size // heads, query, key, value, output, free)]


def _stream(shapes: Shapes, hidden: int, passed_over: set[str]) -> tuple[Axis, ...]:
    """Returns the axes of the residual stream; empty if a leaf is not understood."""
    projected = "projection/kernel" in shapes
    found: list[Axis] = []
    for path, shape in shapes.items():
        if path in passed_over:
            continue
        module, _, leaf = path.rpartition("/")
        axes = _stream_axes(module.rpartition("/")[2], leaf, module, projected=projected)
        if axes is None or any(shape[axis] != hidden for axis in axes):
            return ()
        found += [Axis(path, axis) for axis in axes]
    return tuple(found)


def _stream_axes(name: str, leaf: str, module: str, *, projected: bool) -> Sequence[int] | None:
    """Returns the axes of one leaf that carry the stream; None if the leaf is not understood."""
    if name in ("query_norm", "key_norm") or (projected and module.startswith("embeddings/")):
        return ()
    if module == "convolution/convolution":
        return (1, 2) if leaf == "kernel" else (0,)
    if name == "patches":
        return (3,) if leaf == "kernel" else (0,)
    if name in _TABLES or name == "distance":
        return (1,)
    if name in _NORMS:
        return (0,)
    if name in _READ_STREAM:
        return (0,) if leaf == "kernel" else ()
    if name in _WRITE_STREAM:
        return (1,) if leaf == "kernel" else (0,)
    return None
