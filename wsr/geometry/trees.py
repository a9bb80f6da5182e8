"""Nested dicts of arrays as flat dicts by path, and models stacked into one tree."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from wsr.types import Params


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the leaves by path, ``"layers/0/attention/query/kernel"``, in sorted order."""
    return dict(sorted(traverse_util.flatten_dict(dict(tree), sep="/").items()))


def nest(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of ``flatten``."""
    return traverse_util.unflatten_dict(dict(leaves), sep="/")


def stack(trees: Sequence[Params]) -> Params:
    """Stacks trees of one form into one with leaves ``[members, ...]``, in host memory."""
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *trees)
