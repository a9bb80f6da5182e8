"""Chooses how many members are trained together: as many as the device wants and its memory allows.

If not even one member fits, its batches are cut into pieces, whose gradients are averaged. The result is that of whole
batches up to rounding; with dropout, each piece draws its own.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from wsr.geometry.trees import nest
from wsr.models.model import Model
from wsr.runtime.devices import fitting, member_mesh, members_for_devices, memory_budget
from wsr.training.batches import group_batches
from wsr.training.job import Job
from wsr.training.trainable import partition
from wsr.types import Params

COPIES = 6
"""Copies of the trained weights: weights, two moments, gradient, update and new weights."""


def pieces_for_training(
    model: Model, start: Params, jobs: Sequence[Job], *, memory_budget_gib: float | None = None
) -> int:
    """Returns the smallest number of equal pieces of a batch with which one member fits the memory budget.

    It is 1 if whole batches fit. If no number fits, it is the one that takes the least memory.

    Args:
      model: the architecture.
      start: encoder parameters from which all members start.
      jobs: the members.
      memory_budget_gib: memory to use on each device, in GiB; None: most of it.
    """
    budget, steps = memory_budget(memory_budget_gib), _most_steps(jobs)
    return max((_pieces(model, start, job, steps, budget) for job in _heaviest(jobs)), default=1)


def _pieces(model: Model, start: Params, job: Job, steps: int, budget: int) -> int:
    left, needed = budget - shared_bytes(start, job), {}
    for pieces in range(1, job.recipe.batch_size + 1):
        if job.recipe.batch_size % pieces == 0:
            needed[pieces] = member_bytes(model, start, job, pieces, steps)
            if needed[pieces] <= left:
                return pieces
    return min(needed, key=needed.__getitem__)


def chunk_for_training(
    model: Model,
    start: Params,
    jobs: Sequence[Job],
    *,
    chunk: int | None = None,
    pieces: int = 1,
    memory_budget_gib: float | None = None,
    devices: Sequence[Any] | None = None,
) -> int:
    """Returns the number of members trained together on all devices: one on each device before two on one.

    Args:
      model: the architecture.
      start: encoder parameters from which all members start.
      jobs: the members.
      chunk: the number wanted; None: what suits the device.
      pieces: number of pieces into which each batch is cut.
      memory_budget_gib: memory to use on each device, in GiB; None: most of it.
      devices: JAX devices; None: all accelerators of this process, or its CPU.

    Raises:
      WsrError: a single member, or the ``chunk`` asked for, exceeds the memory budget.
    """
    heaviest, steps = _heaviest(jobs), _most_steps(jobs)
    each = max((member_bytes(model, start, job, pieces, steps) for job in heaviest), default=0)
    shared = max((shared_bytes(start, job) for job in heaviest), default=0)
    wanted = chunk or members_for_devices(len(jobs), devices=devices)
    return fitting(
        wanted,
        lambda size: shared + size // member_mesh(size, devices=devices).size * each,
        what="members",
        fixed=chunk is not None,
        memory_budget_gib=memory_budget_gib,
    )


def member_bytes(model: Model, start: Params, job: Job, pieces: int = 1, steps: int | None = None) -> int:
    """Returns roughly the bytes that training one more member takes, without computing or compiling anything.

    They are six copies of the trained weights (weights, two moments, gradient, update and new weights; with several
    pieces also the sum of gradients), the activations kept for the backward pass of a piece, plus a tenth of those for
    XLA's buffers, and the batches of all steps, which lie on the device from the first to the last.

    Args:
      model: the architecture.
      start: encoder parameters from which all members start.
      job: the member.
      pieces: number of pieces into which each batch is cut.
      steps: steps of the member that trains longest, because members trained together have as many batches; None: the
        job's own.
    """
    steps = steps or job.steps
    if job.recipe.mode == "head":  # trained on features, which take one forward pass
        return _bytes(start) + steps * job.recipe.batch_size * (model.hidden + 1) * np.dtype(np.float32).itemsize
    frozen, trainable = partition(start, job)
    encoder, plan = group_batches(model, start, [job], pieces)
    frozen |= plan["shared"]
    batch = {name: jax.ShapeDtypeStruct(array.shape[3:], array.dtype) for name, array in plan["inputs"].items()}
    key = jax.random.key(0) if job.recipe.dropout else None

    def kept(trainable: dict, frozen: dict, batch: dict) -> list:
        def encode(trainable: dict) -> Array:
            return encoder.encode(nest(frozen | trainable), batch, dropout_key=key)

        shared = {id(leaf) for leaf in frozen.values()}
        return [leaf for leaf in jax.tree.leaves(jax.vjp(encode, trainable)[1]) if id(leaf) not in shared]

    copies = COPIES + (pieces > 1)
    batches = (_bytes(plan["inputs"]) + _bytes(plan["labels"])) * steps // job.steps
    return int(copies * _bytes(trainable) + 1.1 * _bytes(jax.eval_shape(kept, trainable, frozen, batch)) + batches)


def shared_bytes(start: Params, job: Job) -> int:
    """Returns the bytes of the frozen weights, which members trained together share."""
    return _bytes(partition(start, job)[0])


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _most_steps(jobs: Sequence[Job]) -> int:
    return max((job.steps for job in jobs), default=0)


def _heaviest(jobs: Sequence[Job]) -> list[Job]:
    """Returns, for each mode, the job with the most tokens in a step."""
    heaviest: dict[str, tuple[float, Job]] = {}
    for job in jobs:
        tokens = job.recipe.batch_size * float(job.split.lengths.mean())
        if tokens > heaviest.get(job.recipe.mode, (0.0, job))[0]:
            heaviest[job.recipe.mode] = (tokens, job)
    return [job for _, job in heaviest.values()]
