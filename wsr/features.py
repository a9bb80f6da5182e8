"""Encoder features of a split, for one model or for many points of weight space."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from wsr.data.dataset import Split
from wsr.data.packing import Batches, evaluation_batches, in_text_order, row_length_for
from wsr.geometry import combine
from wsr.models.model import Model
from wsr.types import Params

_MOST_TOGETHER = 16
_SLOT_MULTIPLE = 64  # batches of different datasets are padded to few shapes, so that few programs are compiled


def split_features(model: Model, params: Params, batches: Batches, texts: int) -> Float[np.ndarray, "texts hidden"]:
    """Returns the features of every text of a split under one model."""
    alone = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], params)
    return _encode_all(model, alone, batches, texts)[0]


def all_features(model: Model, params: Params, split: Split) -> Float[np.ndarray, "texts hidden"]:
    """Returns the features of every text of a split under one model, packed as suits a CPU."""
    batches = evaluation_batches(split, rows=16, row_length=row_length_for(64, split), packed=model.packed)
    return split_features(model, params, batches, len(split))


def point_features(
    model: Model,
    base: Params,
    members: Params,
    coefficients: Float[np.ndarray, "points members"],
    batches: Batches,
    texts: int,
) -> Float[np.ndarray, "points texts hidden"]:
    """Returns the features of every text under each point; all points are on the device at the same time.

    Args:
      model: the architecture.
      base: the checkpoint.
      members: leaves stacked as ``[members, ...]``, an argument of the program: closed over, a population would become
        a constant of it.
      coefficients: the points.
      batches: the packed split.
      texts: how many texts the split has.
    """
    mixed = _combine(base, members, jnp.asarray(coefficients, jnp.float32))
    return _encode_all(model, mixed, batches, texts)


def chunk_for_device(wanted: int, *, device: Any = None) -> int:
    """Points or members to process together: 1 on a CPU, where ``vmap`` over weights is slower than a loop.

    Elsewhere at most 16, in chunks of as equal a size as can be: the last one is filled up with copies.
    """
    if (device or jax.devices()[0]).platform == "cpu" or wanted < 1:
        return 1
    chunks = -(-wanted // _MOST_TOGETHER)
    return -(-wanted // chunks)


_combine = jax.jit(combine)


def _encode_all(
    model: Model, params: Params, batches: Batches, texts: int
) -> Float[np.ndarray, "points {texts} hidden"]:
    steps, slots = batches.index.shape
    padding = -slots % _SLOT_MULTIPLE
    encode = _encoder(model)
    outputs = []
    for step in range(steps):
        inputs = {name: array[step] for name, array in batches.inputs.items()}
        if "starts" in inputs:
            inputs["starts"] = np.pad(inputs["starts"], (0, padding))
        outputs.append(encode(params, inputs)[:, :slots])
    features = np.asarray(jnp.stack(outputs, axis=1))
    return np.stack([in_text_order(point, batches.index, texts) for point in features])


@lru_cache(maxsize=8)
def _encoder(model: Model) -> Callable[[Params, dict[str, np.ndarray]], Array]:
    """One compiled program for a batch under ``[points, ...]`` parameters."""

    def encode(params: Params, batch: dict[str, Array]) -> Float[Array, "points batch hidden"]:
        if jax.tree.leaves(params)[0].shape[0] > 1:
            return jax.vmap(partial(model.encode, batch=batch))(params)
        # A batch of one model costs time on a CPU: take the axis off and put it back.
        return model.encode(jax.tree.map(lambda leaf: leaf[0], params), batch)[None]

    return jax.jit(encode)
