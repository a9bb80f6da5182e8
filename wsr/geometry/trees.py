"""Converts nested dicts of arrays to flat dicts by path and back, and stacks models into one tree."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from wsr.types import Params


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the leaves of a nested dict by path, in sorted order.

    Example:
      >>> from wsr.geometry import trees
      >>> trees.flatten({"query": {"kernel": 1, "bias": 2}})
      {'query/bias': 2, 'query/kernel': 1}
    """
    return dict(sorted(traverse_util.flatten_dict(dict(tree), sep="/").items()))


def nest(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the nested dict that ``flatten`` flattened.

    Example:
      >>> from wsr.geometry import trees
      >>> trees.nest({"query/bias": 2, "query/kernel": 1})
      {'query': {'bias': 2, 'kernel': 1}}
    """
    return traverse_util.unflatten_dict(dict(leaves), sep="/")


def stack(trees: Sequence[Params]) -> Params:
    """Returns one tree with leaves ``[members, ...]`` from trees of the same form, in host memory.

    Example:
      >>> import numpy as np
      >>> from wsr.geometry import trees
      >>> trees.stack([{"bias": np.zeros(3)}, {"bias": np.ones(3)}])["bias"].shape
      (2, 3)
    """
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *trees)
