"""What an architecture declares about its counterpart in Hugging Face's transformers: config and names of weights."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

Module: TypeAlias = tuple[str, str, str]
"""Their module ("encoder.layer.0.output.dense"), ours ("layers/0/feed_forward/output"), its kind in ``KINDS``."""


@dataclass(frozen=True)
class Layout:
    """How a tensor of theirs becomes a leaf of ours, and back."""

    into: Callable[[np.ndarray], np.ndarray]
    back: Callable[[np.ndarray], np.ndarray]


SAME = Layout(lambda theirs: theirs, lambda ours: ours)
TRANSPOSED = Layout(lambda theirs: theirs.T, lambda ours: ours.T)
"""A matrix, or a convolution: PyTorch's [outputs, inputs, width] is [width, inputs, outputs] in Flax."""
# [1, rows, features] <-> [rows, features]
UNBATCHED = Layout(lambda theirs: theirs[0], lambda ours: ours[None])
# A convolution: [features, channels, height, width] <-> [height, width, channels, features]
CHANNELS_LAST = Layout(lambda theirs: theirs.transpose(2, 3, 1, 0), lambda ours: ours.transpose(3, 2, 0, 1))


@dataclass(frozen=True)
class Tensor:
    """One tensor of a module."""

    theirs: str
    """Its name below their module; empty where the module is itself a tensor."""
    ours: str
    layout: Layout = SAME


KINDS: Mapping[str, tuple[Tensor, ...]] = {
    "embedding": (Tensor("weight", "embedding"),),
    "norm": (Tensor("weight", "scale"), Tensor("bias", "bias")),
    "scale": (Tensor("weight", "scale"),),
    "dense": (Tensor("weight", "kernel", TRANSPOSED), Tensor("bias", "bias")),
    "matrix": (Tensor("weight", "kernel", TRANSPOSED),),
    "conv1d": (Tensor("weight", "kernel"), Tensor("bias", "bias")),
    "bias": (Tensor("", "bias"),),
    "table": (Tensor("", "embedding", UNBATCHED),),
    "conv": (Tensor("weight", "kernel", CHANNELS_LAST), Tensor("bias", "bias")),
}
"""Kinds of modules: layer norm with and without bias ("scale"), dense layers with and without ("matrix"), ..."""


@dataclass(frozen=True, kw_only=True)
class Counterpart:
    """An architecture's Hugging Face side. A config attribute neither taken nor known to be harmless is refused."""

    model_type: str
    """``model_type`` of the config class."""
    model_class: str
    """The bare encoder's class, which ``AutoModel`` makes."""
    prefix: str
    """What the names of the encoder's tensors begin with in a model with a head: ``"bert."``."""
    taken: tuple[str, ...]
    """Config attributes that shape the computation; our config has them under the same names."""
    modules: Callable[[Mapping[str, Any]], Iterable[Module]]
    """The encoder's modules under a config of ours."""
    dropped: str
    """A regular expression of tensors, without the prefix, that belong to a head or hold constants."""
    only: Mapping[str, Any] = field(default_factory=dict)
    """Attributes with the only value that is understood, where that is not the config class's default."""
    optional: Mapping[str, Any] = field(default_factory=dict)
    """Attributes among the taken that the config class does not know, with what their absence means."""
    harmless: frozenset[str] = frozenset()
    """Attributes of this architecture that change nothing in the hidden states."""
    language_model_class: str | None = None
    """The class with the language model's head, which a model with ``token_losses`` is exported as."""
    present: Mapping[str, str] = field(default_factory=dict)
    """Attributes of our config that say whether a checkpoint holds a tensor: an untied head, for example."""
    aliases: tuple[tuple[str, str], ...] = ()
    """Other spellings of names of tensors, each a regular expression and what replaces it."""
    pooling: str = "cls"
    """What the classification heads of the Hugging Face models read."""
