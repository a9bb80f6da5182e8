"""The leaves of another program's tree of parameters, and the tensors in PyTorch that they hold."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from wsr.models.huggingface.config import counterpart_of
from wsr.models.huggingface.weights import language_model_heads
from wsr.models.model import Model

Leaves = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Part:
    """One leaf of a tree."""

    shape: tuple[int, ...]
    """Its shape; of scanned layers, that of one layer."""
    tensors: tuple[str, ...]
    """The tensors that it holds, by name in PyTorch: one, or one for each of the layers that are stacked in it."""
    into: Callable[[np.ndarray], np.ndarray]
    """Makes a tensor of it, or of one layer of it."""
    scanned: bool = False
    """Whether it holds several layers, stacked along axis 1."""

    @property
    def whole_shape(self) -> tuple[int, ...]:
        """The shape with all layers in it."""
        return (self.shape[0], len(self.tensors), *self.shape[1:]) if self.scanned else self.shape


Layout = Mapping[str, Part]
"""Every leaf of a tree by path."""


def full_name(model: Model, name: str) -> str:
    """Returns the name of a tensor in the class that an export of the model names.

    Args:
      model: the architecture.
      name: the name in the encoder's own class.
    """
    counterpart = counterpart_of(model)
    bare = model.token_losses is None or name in language_model_heads(counterpart)
    return name if bare else f"{counterpart.prefix}{name}"
