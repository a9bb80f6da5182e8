"""How an architecture declares its counterpart in Hugging Face's transformers: config attributes and weight names."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

Module: TypeAlias = tuple[str, str, str]
"""A module's name in transformers ("encoder.layer.0.output.dense"), its path here ("layers/0/feed_forward/output") and
its kind in ``KINDS``."""


@dataclass(frozen=True)
class Layout:
    """Converts a tensor of transformers to our leaf (``into``) and back (``back``)."""

    into: Callable[[np.ndarray], np.ndarray]
    back: Callable[[np.ndarray], np.ndarray]


SAME = Layout(lambda theirs: theirs, lambda ours: ours)
TRANSPOSED = Layout(lambda theirs: theirs.T, lambda ours: ours.T)
"""A matrix, [outputs, inputs] in PyTorch, or a convolution, [outputs, inputs, width]: Flax reverses the axes."""
# [1, rows, features] <-> [rows, features]
UNBATCHED = Layout(lambda theirs: theirs[0], lambda ours: ours[None])
# [features] <-> [1, features]
UNSTACKED = Layout(lambda theirs: theirs[None], lambda ours: ours[0])
# A convolution: [features, channels, height, width] <-> [height, width, channels, features]
CHANNELS_LAST = Layout(lambda theirs: theirs.transpose(2, 3, 1, 0), lambda ours: ours.transpose(3, 2, 0, 1))


@dataclass(frozen=True)
class Tensor:
    """One tensor of a module, under both names."""

    theirs: str
    """Its name within the transformers module; empty if the module itself is the tensor."""
    ours: str
    layout: Layout = SAME


KINDS: Mapping[str, tuple[Tensor, ...]] = {
    "embedding": (Tensor("weight", "embedding"),),
    "norm": (Tensor("weight", "scale"), Tensor("bias", "bias")),
    "scale": (Tensor("weight", "scale"),),
    "dense": (Tensor("weight", "kernel", TRANSPOSED), Tensor("bias", "bias")),
    "matrix": (Tensor("weight", "kernel", TRANSPOSED),),
    "conv1d": (Tensor("weight", "kernel"), Tensor("bias", "bias")),
    "kernel": (Tensor("", "kernel", TRANSPOSED),),
    "bias": (Tensor("", "bias"),),
    "table": (Tensor("", "embedding", UNBATCHED),),
    "row": (Tensor("", "embedding", UNSTACKED),),
    "conv": (Tensor("weight", "kernel", CHANNELS_LAST), Tensor("bias", "bias")),
    "bare_conv": (Tensor("weight", "kernel", CHANNELS_LAST),),
}
"""The tensors of each kind of module: "norm", "dense" and "conv" have a bias, "scale", "matrix" and "bare_conv" are the
same without."""


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A model of transformers of which our encoder is one part, such as CLIP: the rest is kept as a head is."""

    model_type: str
    """``model_type`` of its config class."""
    model_class: str
    """Its class."""
    part: str
    """Attribute of its config that holds the encoder's own config."""
    decides: tuple[str, ...] = ()
    """Attributes of its config that take the place of those of the same name in the encoder's."""


@dataclass(frozen=True, kw_only=True)
class Counterpart:
    """Describes an architecture's Hugging Face models.

    Import refuses a config with an attribute that the encoder's code in transformers reads and that is neither in
    ``taken`` nor harmless; other attributes are passed on.
    """

    model_type: str
    """``model_type`` of the config class."""
    model_class: str
    """Class of the encoder without a head, which ``AutoModel`` returns."""
    prefix: str
    """Prefix of the encoder's tensor names in a model with a head, for example ``"bert."``."""
    other_prefixes: tuple[str, ...] = ()
    """Prefixes in models with certain heads, if they differ from ``prefix``."""
    taken: tuple[str, ...]
    """Config attributes that determine the computation; our config keeps their names."""
    modules: Callable[[Mapping[str, Any]], Iterable[Module]]
    """Lists the encoder's modules for one of our configs."""
    dropped: str
    """Regular expression for tensor names, without the prefix, that belong to a head."""
    constants: str = r"embeddings\.(position_ids|token_type_ids)"
    """Regular expression for tensor names, without the prefix, that hold no learned values: positions, masks."""
    only: Mapping[str, Any] = field(default_factory=dict)
    """Attributes with a single supported value, and that value, if it differs from the config class's default."""
    optional: Mapping[str, Any] = field(default_factory=dict)
    """Attributes in ``taken`` that the config class lacks, with the value that an absent attribute stands for."""
    harmless: frozenset[str] = frozenset()
    """Attributes that the encoder's code in transformers reads and that do not affect the hidden states."""
    language_model_class: str | None = None
    """Class with the language-modelling head; a model with ``token_losses`` is exported as this class."""
    present: Mapping[str, str] = field(default_factory=dict)
    """Boolean attributes of our config, each with the tensor whose presence it records: an untied head, for example."""
    untied: Mapping[str, str] = field(default_factory=dict)
    """Boolean attributes of our config, each with the tensor that is usually tied: true if a file's differs."""
    tied: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Tensors of the encoder, each with the tensors of heads that are tied to it: a file may hold only one of them."""
    copies: Mapping[str, str] = field(default_factory=dict)
    """Tensors that transformers' encoder reads in place of another, which must be equal, and that other."""
    aliases: tuple[tuple[str, str], ...] = ()
    """Alternative tensor names: a regular expression and its replacement for each."""
    projected_class: str | None = None
    """Class with the projection after the pooling; a model with ``projection`` in its config is exported as this class.
    """
    classes: tuple[str, ...] = ()
    """Classes with the encoder whose folders are read as this architecture; empty: all that no other names."""
    whole: Whole | None = None
    """The model that contains this encoder, whose folders are read too."""
    pooling: str = "cls"
    """Pooling that the Hugging Face classification heads of this architecture use."""

    def reads(self, model_type: object) -> bool:
        """Returns whether folders of this ``model_type`` hold the encoder: its own, or those of the whole model."""
        return model_type == self.model_type or (self.whole is not None and model_type == self.whole.model_type)
