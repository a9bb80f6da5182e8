"""How many members are trained together: what the device asks for and its memory allows."""

from collections.abc import Sequence

import jax

from wsr.devices import chunk_for_device, fitting
from wsr.finetune.batches import group_batches
from wsr.finetune.job import Job
from wsr.models.model import Model
from wsr.types import Params


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
    each = max((member_bytes(model, start, job) for job in _heaviest(jobs)), default=0)
    wanted = chunk or chunk_for_device(len(jobs))
    return fitting(
        wanted, lambda size: size * each, what="members", fixed=chunk is not None, memory_budget_gib=memory_budget_gib
    )


def member_bytes(model: Model, start: Params, job: Job) -> int:
    """Returns about what training one member takes: its state, what a step makes of it, activations kept for the
    backward pass. Nothing is computed or compiled.

    Weights, two moments, gradient, update and new weights are six copies; XLA's own buffers add about a tenth.
    """
    params_bytes = sum(4 * leaf.size for leaf in jax.tree.leaves(start))
    if job.recipe.mode == "head":  # trained on features, which one forward pass gives
        return params_bytes
    encoder, plan = group_batches(model, start, [job])
    batch = {name: jax.ShapeDtypeStruct(array.shape[2:], array.dtype) for name, array in plan["inputs"].items()}
    key = jax.random.key(0) if job.recipe.dropout else None

    def kept(params: Params, batch: dict, shared: dict) -> object:
        # What members share does not count here.
        return jax.vjp(lambda own: encoder.encode({**own, **shared}, batch, dropout_key=key), params)[1]

    saved = jax.eval_shape(kept, start, batch, plan["shared"])
    activations = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(saved))
    return int(6 * params_bytes + 1.1 * activations)


def _heaviest(jobs: Sequence[Job]) -> list[Job]:
    """One job of each mode: that with the most tokens in a step."""
    heaviest: dict[str, tuple[float, Job]] = {}
    for job in jobs:
        tokens = job.recipe.batch_size * float(job.split.lengths.mean())
        if tokens > heaviest.get(job.recipe.mode, (0.0, job))[0]:
            heaviest[job.recipe.mode] = (tokens, job)
    return [job for _, job in heaviest.values()]
