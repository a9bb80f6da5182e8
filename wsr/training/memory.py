"""How many members are trained together: what the device asks for and its memory allows."""

from collections.abc import Sequence
from typing import Any

import jax
from jaxtyping import Array

from wsr.geometry.trees import nest
from wsr.models.model import Model
from wsr.runtime.devices import chunk_for_device, fitting
from wsr.training.batches import group_batches
from wsr.training.job import Job
from wsr.training.trainable import partition
from wsr.types import Params

COPIES = 6
"""Of what is trained: weights, two moments, gradient, update and new weights."""


def chunk_for_training(
    model: Model,
    start: Params,
    jobs: Sequence[Job],
    *,
    chunk: int | None = None,
    memory_budget_gib: float | None = None,
) -> int:
    """Returns the members to train together on the default device.

    Args:
      model: the architecture.
      start: encoder parameters all members start from.
      jobs: the members.
      chunk: members together; None: chosen.
      memory_budget_gib: of the device; None: most of what it has.

    Raises:
      WsrError: where not even the smallest chunk fits.
    """
    heaviest = _heaviest(jobs)
    each = max((member_bytes(model, start, job) for job in heaviest), default=0)
    shared = max((shared_bytes(start, job) for job in heaviest), default=0)
    wanted = chunk or chunk_for_device(len(jobs))
    return fitting(
        wanted,
        lambda size: shared + size * each,
        what="members",
        fixed=chunk is not None,
        memory_budget_gib=memory_budget_gib,
    )


def member_bytes(model: Model, start: Params, job: Job) -> int:
    """Returns about what training one member more takes: its state, what a step makes of it, activations kept for the
    backward pass. Nothing is computed or compiled.

    Trained weights, two moments, gradient, update and new weights are six copies; XLA's own buffers add about a tenth.
    """
    if job.recipe.mode == "head":  # trained on features, which one forward pass gives
        return _bytes(start)
    frozen, trainable = partition(start, job)
    encoder, plan = group_batches(model, start, [job])
    frozen |= plan["shared"]
    batch = {name: jax.ShapeDtypeStruct(array.shape[2:], array.dtype) for name, array in plan["inputs"].items()}
    key = jax.random.key(0) if job.recipe.dropout else None

    def kept(trainable: dict, frozen: dict, batch: dict) -> list:
        def encode(trainable: dict) -> Array:
            return encoder.encode(nest(frozen | trainable), batch, dropout_key=key)

        shared = {id(leaf) for leaf in frozen.values()}
        return [leaf for leaf in jax.tree.leaves(jax.vjp(encode, trainable)[1]) if id(leaf) not in shared]

    return int(COPIES * _bytes(trainable) + 1.1 * _bytes(jax.eval_shape(kept, trainable, frozen, batch)))


def shared_bytes(start: Params, job: Job) -> int:
    """Returns what all members trained together have in common: the weights that stay."""
    return _bytes(partition(start, job)[0])


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _heaviest(jobs: Sequence[Job]) -> list[Job]:
    """One job of each mode: that with the most tokens in a step."""
    heaviest: dict[str, tuple[float, Job]] = {}
    for job in jobs:
        tokens = job.recipe.batch_size * float(job.split.lengths.mean())
        if tokens > heaviest.get(job.recipe.mode, (0.0, job))[0]:
            heaviest[job.recipe.mode] = (tokens, job)
    return [job for _, job in heaviest.values()]
