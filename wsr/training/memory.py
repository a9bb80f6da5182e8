"""Chooses how many members are trained together: as many as the device wants and its memory allows.

If not even one member fits, its batches are cut into pieces, whose gradients are averaged, or the backward pass
computes the activations of each block again (rematerialisation), or both: the quickest way that fits. The result is
that of whole batches up to rounding; with dropout, each piece draws its own. If that does not suffice, several devices
share each member (``wsr.models.cuts``).
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from wsr.geometry.trees import flatten, nest
from wsr.models import cuts
from wsr.models.model import Model
from wsr.runtime.devices import (
    divisors,
    fitting,
    member_mesh,
    members_for_devices,
    memory_budget,
    own_devices,
)
from wsr.training.batches import group_batches
from wsr.training.job import Job
from wsr.training.trainable import partition
from wsr.types import Params

COPIES = 6
"""Copies of the trained weights: weights, two moments, gradient, update and new weights."""
_PASS_TOKENS = 500
"""Tokens that take as long as one more pass over the weights, their gradient and its sum, which each piece takes.

It is that of RoBERTa-base on v5e. Compiled for it, the piece of two layers takes 1.65 ms for 256 tokens and 2.51 ms for
1,024: 0.56 microseconds for a token and layer, and for a pass 5.3 times the bytes of the weights at 819 GB/s."""


def devices_for_member(
    model: Model,
    start: Params,
    jobs: Sequence[Job],
    *,
    memory_budget_gib: float | None = None,
    devices: Sequence[Any] | None = None,
) -> int:
    """Returns the smallest number of devices that must share a member for it to fit, with batches in pieces or not.

    It is all devices if no number suffices.

    Args:
      model: the architecture.
      start: encoder parameters from which all members start.
      jobs: the members.
      memory_budget_gib: memory to use on each device, in GiB; None: most of it.
      devices: JAX devices; None: all accelerators of this process, or its CPU.
    """
    *fewer, every = divisors(len(devices or own_devices()))
    budget, steps, heaviest = memory_budget(memory_budget_gib), _most_steps(jobs), _heaviest(jobs)
    ways = _ways(model, heaviest, devices[0] if devices else None)

    def fits(job: Job, parts: int) -> bool:
        left = budget - shared_bytes(start, job, parts)
        return any(member_bytes(model, start, job, *way, steps=steps, shared_by=parts) <= left for way in ways)

    return next((parts for parts in fewer if all(fits(job, parts) for job in heaviest)), every)


def pieces_for_training(
    model: Model,
    start: Params,
    jobs: Sequence[Job],
    *,
    shared_by: int = 1,
    memory_budget_gib: float | None = None,
    device: Any = None,
) -> tuple[int, bool]:
    """Returns into how many equal pieces to cut each batch, and whether to rematerialise.

    It is the quickest way with which one member fits the memory budget: (1, False) if whole batches fit. If none fits,
    it is the one that takes the least memory. A step takes time in proportion to its tokens plus ``_PASS_TOKENS`` for
    each piece, and a third more if it computes its forward pass twice. On a CPU it never rematerialises: XLA computes
    the activations again there, but takes as much temporary memory as before.

    Args:
      model: the architecture.
      start: encoder parameters from which all members start.
      jobs: the members.
      shared_by: number of devices that share each member.
      memory_budget_gib: memory to use on each device, in GiB; None: most of it.
      device: a JAX device, or anything with its ``platform``; None takes the first.
    """
    budget, steps, heaviest = memory_budget(memory_budget_gib), _most_steps(jobs), _heaviest(jobs)
    tokens = max((_tokens(job) for job in heaviest), default=0.0)
    needed: dict[tuple[int, bool], int] = {}
    for way in sorted(
        _ways(model, heaviest, device),
        key=lambda way: (tokens + way[0] * _PASS_TOKENS) * (4 / 3 if way[1] else 1),
    ):
        needed[way] = max(
            shared_bytes(start, job, shared_by)
            + member_bytes(model, start, job, *way, steps=steps, shared_by=shared_by)
            for job in heaviest
        )
        if needed[way] <= budget:
            return way
    return min(needed, key=needed.__getitem__, default=(1, False))


def _ways(model: Model, jobs: Sequence[Job], device: Any) -> list[tuple[int, bool]]:
    """Returns the numbers of pieces that divide every batch, each with and without rematerialisation if possible."""
    platform = (device or jax.devices()[0]).platform
    can = platform != "cpu" and model.encode_rematerialised is not None
    pieces = divisors(math.gcd(*(job.recipe.batch_size for job in jobs)))
    return [(number, rematerialise) for number in pieces for rematerialise in (False, True)[: 1 + can]]


def chunk_for_training(
    model: Model,
    start: Params,
    jobs: Sequence[Job],
    *,
    chunk: int | None = None,
    pieces: int = 1,
    rematerialise: bool = False,
    shared_by: int = 1,
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
      rematerialise: whether the backward pass computes the activations of each block again.
      shared_by: number of devices that share each member.
      memory_budget_gib: memory to use on each device, in GiB; None: most of it.
      devices: JAX devices; None: all accelerators of this process, or its CPU.

    Raises:
      WsrError: a single member, or the ``chunk`` asked for, exceeds the memory budget.
    """
    heaviest, steps = _heaviest(jobs), _most_steps(jobs)
    way: dict[str, Any] = {"pieces": pieces, "rematerialise": rematerialise, "steps": steps, "shared_by": shared_by}
    each = max((member_bytes(model, start, job, **way) for job in heaviest), default=0)
    shared = max((shared_bytes(start, job, shared_by) for job in heaviest), default=0)
    wanted = chunk or members_for_devices(len(jobs), model=shared_by, devices=devices)

    def needed(size: int) -> int:
        groups = member_mesh(size, model=shared_by, devices=devices).shape["members"]
        return shared + size // groups * each

    return fitting(
        wanted,
        needed,
        what="members",
        fixed=chunk is not None,
        memory_budget_gib=memory_budget_gib,
    )


def member_bytes(
    model: Model,
    start: Params,
    job: Job,
    pieces: int = 1,
    rematerialise: bool = False,
    *,
    steps: int | None = None,
    shared_by: int = 1,
) -> int:
    """Returns roughly the bytes that training one more member takes, without computing or compiling anything.

    They are six copies of the trained weights (weights, two moments, gradient, update and new weights; with several
    pieces also the sum of gradients; with early stopping also the best ones), the activations kept for the backward
    pass of a piece, plus a tenth of those for XLA's buffers, and the batches of all steps and of the validation split,
    which lie on the device from the first step to the last.

    Args:
      model: the architecture.
      start: encoder parameters from which all members start.
      job: the member.
      pieces: number of pieces into which each batch is cut.
      rematerialise: whether the backward pass keeps only the inputs of the blocks, and one block's activations at a
        time.
      steps: steps of the member that trains longest, because members trained together have as many batches; None: the
        job's own.
      shared_by: number of devices that share the member. The bytes are those on each of them, as if each kept all
        activations.
    """
    steps = steps or job.steps
    if job.recipe.mode == "head":  # trained on features, which take one forward pass
        texts = steps * job.recipe.batch_size + (len(job.dataset.splits["validation"]) if job.recipe.patience else 0)
        return cuts.bytes_on_each(start, shared_by) + texts * (model.hidden + 1) * np.dtype(np.float32).itemsize
    frozen, trainable = partition(start, job)
    encoder, plan = group_batches(model, start, [job], pieces)
    frozen |= plan["shared"]
    batch = {name: jax.ShapeDtypeStruct(array.shape[3:], array.dtype) for name, array in plan["inputs"].items()}
    key = jax.random.key(0) if job.recipe.dropout else None
    activations, _ = _kept(encoder, start, frozen, trainable, batch, key, shared_by)
    if rematerialise:
        again, _ = group_batches(model.rematerialised, start, [job], pieces)
        inputs, blocks = _kept(again, start, frozen, trainable, batch, key, shared_by)
        activations = inputs + (activations - inputs) // max(1, blocks)
    copies = COPIES + (pieces > 1) + (job.recipe.patience is not None)
    batches = (_bytes(plan["inputs"]) + _bytes(plan["labels"])) * steps // job.steps
    batches += _bytes(plan.get("validation", {}))
    return int(copies * cuts.bytes_on_each(trainable, shared_by) + 1.1 * activations + batches)


def _kept(
    encoder: Model, start: Params, frozen: dict, trainable: dict, batch: dict, key: Array | None, shared_by: int
) -> tuple[int, int]:
    """Returns the bytes that the forward pass keeps for the backward pass, and the number of rematerialised blocks."""

    def encode(trainable: dict, frozen: dict, batch: dict) -> Array:
        return encoder.encode(nest(frozen | trainable), batch, dropout_key=key)

    def kept(trainable: dict, frozen: dict, batch: dict) -> list:
        shared = {id(leaf) for leaf in frozen.values()}
        backwards = jax.vjp(lambda own: encode(own, frozen, batch), trainable)[1]
        return [leaf for leaf in jax.tree.leaves(backwards) if id(leaf) not in shared]

    matrices = {leaf.shape for leaf in flatten(start).values() if leaf.ndim > 1}
    held = sum(
        leaf.size * leaf.dtype.itemsize // (shared_by if leaf.shape in matrices else 1)  # adapted matrices are cut too
        for leaf in jax.tree.leaves(jax.eval_shape(kept, trainable, frozen, batch))
    )
    program = jax.make_jaxpr(encode)(trainable, frozen, batch)
    blocks = sum(equation.primitive.name.startswith(("remat", "checkpoint")) for equation in program.eqns)
    return held, blocks


def shared_bytes(start: Params, job: Job, shared_by: int = 1) -> int:
    """Returns the bytes of the frozen weights, which members trained together share, on a device.

    Args:
      start: encoder parameters from which all members start.
      job: a member.
      shared_by: number of devices that share each member.
    """
    return cuts.bytes_on_each(partition(start, job)[0], shared_by)


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _most_steps(jobs: Sequence[Job]) -> int:
    return max((job.steps for job in jobs), default=0)


def _heaviest(jobs: Sequence[Job]) -> list[Job]:
    """Returns, for each mode, the job with the most tokens in a step."""
    heaviest: dict[str, tuple[float, Job]] = {}
    for job in jobs:
        tokens = _tokens(job)
        if tokens > heaviest.get(job.recipe.mode, (0.0, job))[0]:
            heaviest[job.recipe.mode] = (tokens, job)
    return [job for _, job in heaviest.values()]


def _tokens(job: Job) -> float:
    return job.recipe.batch_size * float(job.split.lengths.mean())
