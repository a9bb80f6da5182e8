"""Chooses how many members are trained together: as many as the device wants and its memory allows.

If not even one member fits, its training is divided (``wsr.training.division``): its batches are cut into pieces, or
the backward pass computes the activations of each block again (rematerialisation), or both: the quickest way that fits.
If that does not suffice, several devices share each member (``wsr.models.cuts``).
"""

import math
from collections.abc import Sequence
from dataclasses import replace
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
from wsr.training.division import WHOLE, Division
from wsr.training.job import Job
from wsr.training.trainable import partition
from wsr.types import Params

COPIES = 6
"""Copies of the trained weights: weights, two moments, gradient, update and new weights."""
_COPIES_IN_LOOPS = 7
"""Arrays as large as a block of attention scores that the backward pass of long rows holds at once.

Compiled for a CPU, two layers of BERT at rows of 1,024 tokens hold 6.6 (``tests/test_blockwise_attention.py``)."""
_PASS_TOKENS = 500
"""Tokens that take as long as one more pass over the weights, their gradient and its sum, which each piece takes.

It is that of RoBERTa-base on v5e. Compiled for it, the piece of two layers takes 1.65 ms for 256 tokens and 2.51 ms for
1,024: 0.56 microseconds for a token and layer, and for a pass 5.3 times the bytes of the weights at 819 GB/s."""


def division_for_training(
    model: Model,
    start: Params,
    jobs: Sequence[Job],
    *,
    memory_budget_gib: float | None = None,
    devices: Sequence[Any] | None = None,
) -> Division:
    """Returns the division with which one member fits the memory budget.

    As few devices as possible share the member. Among the ways to divide batches and backward pass that then fit, it is
    the quickest: a step takes time in proportion to its tokens plus ``_PASS_TOKENS`` for each piece, and a third more
    if it computes its forward pass twice. On a CPU it never rematerialises: XLA computes the activations again there,
    but takes as much temporary memory as before. If nothing fits, all devices share the member, in the way that takes
    the least memory.

    Args:
      model: the architecture.
      start: encoder parameters from which all members start.
      jobs: the members.
      memory_budget_gib: memory to use on each device, in GiB; None: most of it.
      devices: JAX devices, or anything with their ``platform``; None: all accelerators of this process, or its CPU.
    """
    devices = list(devices or own_devices())
    budget, steps, heaviest = memory_budget(memory_budget_gib), _most_steps(jobs), _heaviest(jobs)
    tokens = max((_tokens(job) for job in heaviest), default=0.0)
    ways = sorted(
        _ways(model, heaviest, devices[0]),
        key=lambda way: (tokens + way.pieces * _PASS_TOKENS) * (4 / 3 if way.rematerialised else 1),
    )

    def bytes_of(division: Division) -> int:
        parts = division.shared_by
        weights = max(shared_bytes(start, job, parts) + _weight_bytes(start, job, division) for job in heaviest)
        if weights > budget and parts < len(devices):  # the activations need not be known
            return weights
        return max(
            shared_bytes(start, job, parts) + member_bytes(model, start, job, division, steps=steps) for job in heaviest
        )

    needed: dict[Division, int] = {}
    for parts in divisors(len(devices)):
        needed = {}
        for division in (replace(way, shared_by=parts) for way in ways):
            needed[division] = bytes_of(division)
            if needed[division] <= budget:
                return division
    return min(needed, key=needed.__getitem__)


def _ways(model: Model, jobs: Sequence[Job], device: Any) -> list[Division]:
    """Returns the numbers of pieces that divide every batch, each with and without rematerialisation if possible."""
    can = device.platform != "cpu" and model.encode_rematerialised is not None
    pieces = divisors(math.gcd(*(job.recipe.batch_size for job in jobs)))
    return [Division(number, again) for number in pieces for again in (False, True)[: 1 + can]]


def chunk_for_training(
    model: Model,
    start: Params,
    jobs: Sequence[Job],
    *,
    chunk: int | None = None,
    division: Division = WHOLE,
    memory_budget_gib: float | None = None,
    devices: Sequence[Any] | None = None,
) -> int:
    """Returns the number of members trained together on all devices: one on each device before two on one.

    Args:
      model: the architecture.
      start: encoder parameters from which all members start.
      jobs: the members.
      chunk: the number wanted; None: what suits the device.
      division: how the training of each member is divided.
      memory_budget_gib: memory to use on each device, in GiB; None: most of it.
      devices: JAX devices; None: all accelerators of this process, or its CPU.

    Raises:
      WsrError: a single member, or the ``chunk`` asked for, exceeds the memory budget.
    """
    heaviest, steps, parts = _heaviest(jobs), _most_steps(jobs), division.shared_by
    each = max((member_bytes(model, start, job, division, steps=steps) for job in heaviest), default=0)
    shared = max((shared_bytes(start, job, parts) for job in heaviest), default=0)
    wanted = chunk or members_for_devices(len(jobs), model=parts, devices=devices)

    def needed(size: int) -> int:
        groups = member_mesh(size, model=parts, devices=devices).shape["members"]
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
    division: Division = WHOLE,
    *,
    steps: int | None = None,
) -> int:
    """Returns roughly the bytes that training one more member takes on each device that shares it.

    Nothing is computed or compiled.

    They are six copies of the trained weights (weights, two moments, gradient, update and new weights; with several
    pieces also the sum of gradients; with early stopping also the best ones), the activations kept for the backward
    pass of a piece and, for long rows, a block of their attention scores and its gradients, plus a tenth of those for
    XLA's buffers, and the batches of all steps and of the validation split, which lie on the device from the first step
    to the last.

    Args:
      model: the architecture.
      start: encoder parameters from which all members start.
      job: the member.
      division: how its training is divided. A rematerialised backward pass keeps only the inputs of the blocks, and one
        block's activations at a time. Of the activations, devices that share a member each keep the residual stream
        and a part of all others.
      steps: steps of the member that trains longest, because members trained together have as many batches; None: the
        job's own.
    """
    steps, shared_by = steps or job.steps, division.shared_by
    if job.recipe.mode == "head":  # trained on features, which take one forward pass
        texts = steps * job.recipe.batch_size + (len(job.dataset.splits["validation"]) if job.recipe.patience else 0)
        return cuts.bytes_on_each(start, shared_by) + texts * (model.hidden + 1) * np.dtype(np.float32).itemsize
    frozen, trainable = partition(start, job)
    encoder, plan = group_batches(model, start, [job], division.pieces)
    frozen |= plan["shared"]
    batch = {name: jax.ShapeDtypeStruct(array.shape[3:], array.dtype) for name, array in plan["inputs"].items()}
    key = jax.random.key(0) if job.recipe.dropout else None
    activations, program = _kept(encoder, start, frozen, trainable, batch, key, shared_by)
    if division.rematerialised:
        again, _ = group_batches(model.rematerialised, start, [job], division.pieces)
        inputs, own = _kept(again, start, frozen, trainable, batch, key, shared_by)
        blocks = sum(equation.primitive.name.startswith(("remat", "checkpoint")) for equation in own.eqns)
        activations = inputs + (activations - inputs) // max(1, blocks)
    activations += _COPIES_IN_LOOPS * _largest_product_in_loops(program) // shared_by
    batches = (_bytes(plan["inputs"]) + _bytes(plan["labels"])) * steps // job.steps
    batches += _bytes(plan.get("validation", {}))
    return int(_weight_bytes(start, job, division) + 1.1 * activations + batches)


def _weight_bytes(start: Params, job: Job, division: Division) -> int:
    """Returns the bytes of all copies of the trained weights on each device."""
    copies = COPIES + (division.pieces > 1) + (job.recipe.patience is not None)
    return copies * cuts.bytes_on_each(partition(start, job)[1], division.shared_by)


def _kept(
    encoder: Model, start: Params, frozen: dict, trainable: dict, batch: dict, key: Array | None, shared_by: int
) -> tuple[int, Any]:
    """Returns the bytes that the forward pass keeps for the backward pass, and the program of the forward pass."""

    def encode(trainable: dict, frozen: dict, batch: dict) -> Array:
        return encoder.encode(nest(frozen | trainable), batch, dropout_key=key)

    def kept(trainable: dict, frozen: dict, batch: dict) -> list:
        shared = {id(leaf) for leaf in frozen.values()}
        backwards = jax.vjp(lambda own: encode(own, frozen, batch), trainable)[1]
        return [leaf for leaf in jax.tree.leaves(backwards) if id(leaf) not in shared]

    leaves = flatten(start)
    matrices = {leaf.shape for leaf in leaves.values() if leaf.ndim > 1}
    stream = {leaf.shape[-1] for path, leaf in leaves.items() if path.endswith("scale")} | {encoder.hidden}

    def on_each(leaf: jax.ShapeDtypeStruct) -> int:
        """Only the residual stream, which norms read, lies whole on each device: not heads and hidden features."""
        whole = leaf.shape[-1:] in {(width,) for width in stream} and leaf.shape not in matrices
        return leaf.size * leaf.dtype.itemsize // (1 if whole else shared_by)

    held = sum(map(on_each, jax.tree.leaves(jax.eval_shape(kept, trainable, frozen, batch))))
    return held, jax.make_jaxpr(encode)(trainable, frozen, batch).jaxpr


def _largest_product_in_loops(program: Any, *, within: bool = False) -> int:
    """Returns the bytes of the largest matrix product in any loop of a program: a block of attention scores."""
    largest = 0
    for equation in program.eqns:
        name, inner = equation.primitive.name, within or equation.primitive.name in ("scan", "while")
        if within and name == "dot_general":
            largest = max(largest, *(own.aval.size * own.aval.dtype.itemsize for own in equation.outvars))
        for value in equation.params.values():
            if own := getattr(value, "jaxpr", value if hasattr(value, "eqns") else None):
                largest = max(largest, _largest_product_in_loops(own, within=inner))
    return largest


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
