"""Encoder features of a split, for one model or for many points of weight space."""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from wsr.data.dataset import AnySplit
from wsr.data.images import ImageSplit
from wsr.data.packing import Batches, evaluation_batches, in_text_order, row_length_for
from wsr.errors import WsrError
from wsr.models import cuts
from wsr.models.model import Model
from wsr.models.precision import Precision, rounded
from wsr.runtime.devices import MOST_BYTES, divisors, memory_budget, mesh_for, own_devices
from wsr.runtime.placement import placed
from wsr.types import Params

_SLOT_MULTIPLE = 64  # batches of different datasets are padded to few shapes, so that few programs are compiled


def split_features(model: Model, params: Params, batches: Batches, texts: int) -> Float[np.ndarray, "texts hidden"]:
    """Returns one model's features of every text of a split.

    Args:
      model: the architecture.
      params: its parameters.
      batches: the packed split.
      texts: number of texts in the split.
    """
    mesh = _mesh_of_one(params)
    alone = jax.tree.map(lambda leaf: leaf[None], params)
    point = jax.device_put(alone, cuts.shardings(params, mesh, "points"))
    return np.asarray(point_features(model, point, batches, texts, mesh)[0])


def all_features(model: Model, params: Params, split: AnySplit) -> Float[np.ndarray, "texts hidden"]:
    """Returns one model's features of every text of a split, packed into batches of a size that suits a CPU."""
    refuse_unfit(model, split)
    batches = evaluation_batches(split, rows=16, row_length=row_length_for(64, split), packed=model.packed)
    return split_features(model, params, batches, len(split))


def refuse_unfit(model: Model, *splits: AnySplit) -> None:
    """Raises ``WsrError`` if a split holds texts and the model reads images, the reverse, or too long a text."""
    for split in splits:
        found = "images" if isinstance(split, ImageSplit) else "text"
        if found != model.reads:
            raise WsrError(f"{model.name} reads {model.reads}, but the dataset holds {found}")
        longest = int(split.lengths.max(initial=0)) if found == "text" else 0
        if longest > model.max_length:
            raise WsrError(
                f"a text has {longest} tokens, but {model.name} reads at most {model.max_length}; load the texts with "
                f"max_length={model.max_length} or less (on the command line --max_length={model.max_length})"
            )


def point_features(
    model: Model, points: Params, batches: Batches, texts: int, mesh: Mesh
) -> Float[Array, "points {texts} hidden"]:
    """Returns the features of every text at each point.

    With several points at a time on the mesh, each device keeps the features of its points. Those of a single point
    lie on this process's first device, as do those of all points if several processes share the mesh.

    Args:
      model: the architecture.
      points: parameters with leaves ``[points, ...]``, sharded over the mesh's axis of points, and within a model as
        ``wsr.models.cuts`` says.
      batches: the packed split.
      texts: number of texts in the split.
      mesh: the devices; each encodes its share of the texts at its share of the points.
    """
    program = _encoder(model, mesh)
    home, along_texts = mesh.local_devices[0], mesh.shape["texts"]
    stay = mesh.is_multi_process or mesh.shape["points"] > 1
    inputs, slots = _inputs(batches, along_texts)
    placement = NamedSharding(mesh, PartitionSpec("texts"))
    outputs = []
    for first in range(0, len(next(iter(inputs.values()))), along_texts):
        step = {name: array[first : first + along_texts] for name, array in inputs.items()}
        output = program(points, placed(step, placement))
        outputs.append(output if stay else jax.device_put(output, home))
    slot_of_text = _slot_of_text(batches, texts, slots)
    if mesh.is_multi_process:  # the only communication between processes: each receives all features
        return _ordered(mesh, PartitionSpec())(outputs, slot_of_text).addressable_data(0)
    if stay:
        return _ordered(mesh, PartitionSpec("points"))(outputs, slot_of_text)
    return _in_text_order(outputs, slot_of_text)


def encoding_bytes(
    model: Model, base: Params, batches: Batches, mesh: Mesh, chunk: int, *, precision: Precision = "float32"
) -> int:
    """Returns the bytes that encoding one batch at ``chunk`` points takes on each device, without their parameters.

    The figure comes from the memory analysis of the compiled program, the one that runs; it is ``MOST_BYTES`` if the
    compiler finds that the program exceeds the device's memory. With another precision than
    float32 it includes the converted copy of the weights.

    Args:
      model: the architecture.
      base: parameters whose shapes the points have.
      batches: the packed split.
      mesh: the devices.
      chunk: points encoded together.
      precision: precision of the encoder.
    """

    inputs, _ = _inputs(batches, mesh.shape["texts"])
    along_texts = NamedSharding(mesh, PartitionSpec("texts"))
    step = {
        name: jax.ShapeDtypeStruct((mesh.shape["texts"], *array.shape[1:]), array.dtype, sharding=along_texts)
        for name, array in inputs.items()
    }
    together = chunk * mesh.shape["points"]
    computing = partial(rounded, precision=precision, platform=mesh.devices.flat[0].platform)
    leaves = jax.eval_shape(computing, base)
    points = jax.tree.map(
        lambda leaf, own: jax.ShapeDtypeStruct((together, *leaf.shape), leaf.dtype, sharding=own),
        leaves,
        cuts.shardings(leaves, mesh, "points"),
    )
    try:
        memory = _encoder(model, mesh).lower(points, step).compile().memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return MOST_BYTES
    # Backends without a memory analysis count as needing nothing.
    copied = 0 if precision == "float32" else cuts.bytes_on_each(leaves, mesh.shape["model"])
    return chunk * copied + (memory.temp_size_in_bytes + memory.output_size_in_bytes if memory else 0)


def _mesh_of_one(params: Params) -> Mesh:
    """Returns all devices, of which as few share the model as leave it half of their memory."""
    all_parts = divisors(len(own_devices()))
    parts = all_parts[-1]
    if parts > 1:
        half = memory_budget() / 2
        parts = next((parts for parts in all_parts if cuts.bytes_on_each(params, parts) <= half), parts)
    return mesh_for(1, model=parts)


def _inputs(batches: Batches, along_texts: int) -> tuple[dict[str, np.ndarray], int]:
    """Returns batches padded to whole turns of the mesh and to a common number of slots, and that number."""
    steps, slots = batches.index.shape
    inputs = dict(batches.inputs)
    if "starts" in inputs:
        inputs["starts"] = np.pad(inputs["starts"], ((0, 0), (0, -slots % _SLOT_MULTIPLE)))
        slots = inputs["starts"].shape[1]
    # The last step stands in for missing ones; nobody reads its features.
    turn = np.minimum(np.arange(steps + -steps % along_texts), steps - 1)
    return {name: array[turn] if len(turn) > steps else array for name, array in inputs.items()}, slots


def _slot_of_text(batches: Batches, texts: int, slots: int) -> Int[np.ndarray, " texts"]:
    """Returns the slot that holds each text, counted over all steps of ``slots`` slots."""
    steps, filled = batches.index.shape
    places = (np.arange(steps)[:, None] * slots + np.arange(filled)).astype(np.int32)
    return np.asarray(in_text_order(places, batches.index, texts))


@jax.jit
def _in_text_order(
    outputs: list[Float[Array, "points turn slots hidden"]], slot_of_text: Int[Array, " texts"]
) -> Float[Array, "points texts hidden"]:
    together = jnp.concatenate(outputs, axis=1)
    return together.reshape(len(together), -1, together.shape[-1])[:, slot_of_text]


@lru_cache(maxsize=32)
def _ordered(mesh: Mesh, spec: PartitionSpec) -> jax.stages.Wrapped:
    return jax.jit(_in_text_order, out_shardings=NamedSharding(mesh, spec))


@lru_cache(maxsize=32)
def _encoder(model: Model, mesh: Mesh) -> jax.stages.Wrapped:
    """Returns the compiled program for parameters ``[points, ...]`` and one batch for each device along the texts.

    Points and texts are divided by hand, and nothing is communicated along them whatever the compiler does. The axis
    ``model`` is left to the compiler: it follows the shardings of the parameters (``wsr.models.cuts``), so that one
    source of an architecture serves one device and several.
    """

    def encode(params: Params, batch: dict[str, Array]) -> Float[Array, "points 1 slots hidden"]:
        """Encodes one device's batch at its points."""
        own = jax.tree.map(lambda array: array[0], batch)
        if jax.tree.leaves(params)[0].shape[0] > 1:
            return jax.vmap(partial(model.encode, batch=own))(params)[:, None]
        # vmap over a single model costs time on a CPU: remove the axis and put it back.
        return model.encode(jax.tree.map(lambda leaf: leaf[0], params), own)[None, None]

    points, texts = PartitionSpec("points"), PartitionSpec("texts")
    cut = jax.shard_map(
        encode,
        mesh=mesh,
        in_specs=(points, texts),
        out_specs=PartitionSpec("points", "texts"),
        # With one device to a model there is nothing to divide.
        axis_names={"points", "texts"} if mesh.shape["model"] > 1 else set(mesh.axis_names),
        check_vma=False,
    )
    return jax.jit(cut)
