"""Factors of the summed task vector that depend on the depth of the layer: LiNeS."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from wsr.merging.averages import default_scale, mixing
from wsr.merging.ingredients import Ingredients, Leaf, Out
from wsr.merging.method import OfWeights, option
from wsr.merging.task_matrices import TABLES_AND_HEADS

_NUMBERED = re.compile(r"(.*?[./])(\d+)[./]")
"""The stack of layers that a leaf belongs to, and the layer's number, in Flax and in PyTorch."""


@dataclass(frozen=True)
class Lines(OfWeights):
    """LiNeS, layer-increasing network scaling: ``theta = base + (alpha + beta l / (L - 1)) sum_k tau_k``.

    ``l`` is the number of the leaf's layer, from 0, and ``L`` the number of layers in its stack. Leaves outside layers
    have the factor ``alpha``.

    Source: Wang et al., LiNeS: post-training layer scaling prevents forgetting and enhances model merging, 2024, with
    ``alpha`` 1 / members for a sum of task vectors and ``beta`` chosen on validation data between 0 and 1.

    Example:
      >>> import wsr
      >>> merged = wsr.merge(wsr.made_up_region(3), wsr.merging.Lines(beta=0.5))
      >>> sorted(merged)
      ['embeddings', 'layers']
    """

    wide: ClassVar = True

    alpha: float | None = option(
        None, "Factor of the sum of task vectors in the first layer and outside layers.", otherwise="1 / members"
    )
    beta: float = option(0.5, "What the factor of the last layer has beyond that of the first.")

    def prepared(self, ingredients: Ingredients) -> Callable[[Leaf, Out], None]:
        """Counts the layers and returns the merge of one leaf."""
        alpha = default_scale(self.alpha, ingredients, normalise=False)
        places = {path: layer_of(path) for path in ingredients.shapes}
        last: dict[str, int] = {}
        for stack, layer in filter(None, places.values()):
            last[stack] = max(layer, last.get(stack, 0))
        ones = np.ones(len(ingredients.names))

        def fill(leaf: Leaf, out: Out) -> None:
            place = places[leaf.path]
            depth = place[1] / max(last[place[0]], 1) if place else 0.0
            mixing((alpha + self.beta * depth) * ones)(leaf, out)

        return fill


def layer_of(path: str) -> tuple[str, int] | None:
    """Returns the stack of layers that a leaf belongs to and the layer's number; None for a table, a head or no layer.

    Args:
      path: path of the leaf.

    Example:
      >>> from wsr.merging.layers import layer_of
      >>> layer_of("bert.encoder.layer.3.attention.self.query.weight")
      ('bert.encoder.layer.', 3)
    """
    found = _NUMBERED.match(path)
    return (found[1], int(found[2])) if found and not TABLES_AND_HEADS.search(found[1]) else None
