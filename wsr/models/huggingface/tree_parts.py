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
    """Its shape; if tensors are stacked in it, that of one of them."""
    tensors: tuple[str, ...]
    """The tensors that it holds, by name in PyTorch: one, or all that are stacked in it, such as all layers'."""
    into: Callable[[np.ndarray], np.ndarray]
    """Makes a tensor of it, or of one piece of it."""
    stacked: int | None = None
    """The axis along which tensors are stacked in it; None: it is one tensor."""

    @property
    def whole_shape(self) -> tuple[int, ...]:
        """The shape with all tensors in it."""
        if self.stacked is None:
            return self.shape
        return (*self.shape[: self.stacked], len(self.tensors), *self.shape[self.stacked :])


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
