"""Fine-tunes a population, chunk by chunk."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float

from wsr.data.dataset import Dataset
from wsr.data.metrics import score
from wsr.errors import WsrError
from wsr.geometry.linear_head import logits
from wsr.geometry.low_rank import LowRank, add
from wsr.geometry.trees import nest
from wsr.models import cuts
from wsr.models.features import all_features
from wsr.models.model import Model
from wsr.runtime.devices import member_mesh
from wsr.runtime.progress import Counter
from wsr.training.batches import group_batches
from wsr.training.division import WHOLE, Division
from wsr.training.early_stopping import EarlyStopping
from wsr.training.job import Job, initial_head
from wsr.training.lora import trained_factors
from wsr.training.memory import chunk_for_training
from wsr.training.program import hyperparameters, initial_state, predictions, training_program
from wsr.training.trainable import partition
from wsr.types import AnyArray, Head, Params

_CALL_SECONDS = 0.25
"""Rough duration of one call of the compiled program, unless a single step takes longer. Between two calls, progress is
reported and a process that was asked to end does so."""


@dataclass(frozen=True, eq=False)
class Finetuned:
    """A trained member, in host memory."""

    job: Job
    params: Params
    """The encoder's trained parameters."""
    head: Head
    losses: Float[np.ndarray, " steps"]
    """Training loss at each step taken."""
    failed_step: int | None
    """Step at which the loss or a gradient became non-finite; None: never. Quarantine a member that failed."""
    group_size: int
    """Number of members trained together with it, padding included."""
    division: Division
    """How its training was divided."""
    low_rank: LowRank | None = None
    """The task vector as factors, in mode "lora"."""


def finetune(
    model: Model,
    start: Params,
    jobs: Sequence[Job],
    *,
    chunk: int | None = None,
    division: Division = WHOLE,
    counter: Counter | None = None,
    devices: Sequence[Any] | None = None,
) -> Iterator[Finetuned]:
    """Fine-tunes every job from ``start`` and yields the trained members, chunk by chunk.

    Members of different modes, losses, batch sizes or dropout need different programs and are trained in different
    chunks; others keep their order.

    Args:
      model: the architecture.
      start: encoder parameters from which all members start.
      jobs: the members. A chunk is padded to common shapes, so put members of similar size next to each other.
      chunk: number of members trained together; None: as many as the device wants and fit its memory. The last chunk is
        padded by repeating its last member, so that a member's bits do not depend on how many members there are.
      division: how the training of each member is divided to take less memory; ``wsr.train`` chooses it.
      counter: advances by one for each optimiser step of each member.
      devices: JAX devices over which the members of a chunk are cut; None: all accelerators of this process, or its
        CPU.

    Raises:
      WsrError: the batches cannot be cut into so many pieces, or the architecture cannot be rematerialised.

    Example:
      >>> import wsr
      >>> base = wsr.load("tiny")
      >>> data = wsr.load_dataset("made_up_a1", base.processor, max_length=48)
      >>> jobs = [wsr.Job(data, seed, wsr.Recipe(epochs=2, batch_size=16), size=64) for seed in (0, 1)]
      >>> members = list(wsr.finetune(base.model, base.params, jobs))
      >>> [(member.job.seed, len(member.losses), member.failed_step) for member in members]
      [(0, 8, None), (1, 8, None)]
      >>> wsr.from_params(base.model, base.params, {f"seed {own.job.seed}": own.params for own in members}).names
      ('seed 0', 'seed 1')
    """
    for job in jobs:
        if division.pieces < 1 or job.recipe.batch_size % division.pieces:
            raise WsrError(
                f"training: pieces = {division.pieces} does not divide the batch size {job.recipe.batch_size}"
            )
    if division.rematerialised and model.encode_rematerialised is None:
        raise WsrError(f"training: {model.name} cannot be rematerialised, because its blocks are not known")
    if chunk is None:
        chunk = chunk_for_training(model, start, jobs, division=division, devices=devices)
    for group in groups_of(jobs, chunk):
        padded = group + [group[-1]] * (chunk - len(group))
        mesh = member_mesh(chunk, model=division.shared_by, devices=devices)
        yield from _train_group(model, start, padded, division, counter, mesh)[: len(group)]


def groups_of(jobs: Sequence[Job], chunk: int) -> list[list[Job]]:
    """Returns the jobs in groups that are trained together, with at most ``chunk`` jobs in each."""
    # Jobs that need different programs cannot share a group.
    alike: dict[tuple, list[Job]] = {}
    for job in jobs:
        alike.setdefault(_part_of_program(job), []).append(job)
    return [own[first : first + chunk] for own in alike.values() for first in range(0, len(own), chunk)]


def predict(features: Float[AnyArray, "texts hidden"], head: Head, *, regression: bool) -> np.ndarray:
    """Returns a head's predictions: the class of each text, or its value for regression."""
    return np.asarray(predictions(logits(features, head), regression))


def score_member(model: Model, params: Params, head: Head, dataset: Dataset, split: str) -> float:
    """Returns the score of a member, with the head it was trained with, on one split of a dataset.

    Args:
      model: the architecture.
      params: the member's encoder parameters.
      head: the member's head.
      dataset: the dataset; its ``metric`` is the score.
      split: name of the split, for example "test".
    """
    texts = dataset.splits[split]
    features = all_features(model, params, texts)
    return score(dataset.metric, texts.labels, predict(features, head, regression=dataset.regression))


def _part_of_program(job: Job) -> tuple:
    recipe = job.recipe
    factors = (recipe.lora_rank, recipe.lora_scale, recipe.lora_targets) if recipe.mode == "lora" else ()
    dropout = recipe.dropout and recipe.dropout_rng
    return (
        recipe.mode,
        recipe.precision,
        dropout,
        recipe.batch_size,
        job.dataset.regression,
        recipe.hidden_head,
        *factors,
    )


def _train_group(
    model: Model,
    start: Params,
    jobs: Sequence[Job],
    division: Division,
    counter: Counter | None,
    mesh: Mesh,
) -> list[Finetuned]:
    encoder, plan = group_batches(
        model.rematerialised if division.rematerialised else model, start, jobs, division.pieces
    )
    # Uploaded once, each device with its own members.
    cut: Any = NamedSharding(mesh, PartitionSpec("members"))
    whole: Any = NamedSharding(mesh, PartitionSpec())
    if mesh.size == 1:  # as the program returns them, or its second call would be compiled again
        cut = whole = mesh.devices.item()
    shared, validation = jax.device_put(plan.pop("shared"), whole), plan.pop("validation", None)
    plan = jax.device_put(plan, cut)
    steps = max(job.steps for job in jobs)
    mode = jobs[0].recipe.mode
    frozen, trainable = partition(start, jobs[0])
    own = [partition(start, job)[1] for job in jobs] if mode == "lora" else [trainable] * len(jobs)
    width = max(job.dataset.classes for job in jobs)
    state = initial_state(own, [_padded(initial_head(job, model.hidden), width) for job in jobs], mesh)
    per_member = jax.device_put(hyperparameters(jobs, steps), cut)
    constant = jax.device_put(frozen, whole if mesh.size == 1 else cuts.shardings(frozen, mesh)) | shared
    dropout = jobs[0].recipe.dropout and mode != "head"
    program = training_program(encoder, jobs[0].dataset.regression, dropout, mesh)
    watch = EarlyStopping(encoder, jobs, constant, validation, mesh, cut)

    losses = []
    first, length = 0, 1
    while first < steps and not watch.all_stopped:
        last = min(first + length, watch.next_check(first))
        started = time.monotonic()
        state, segment = program(state, constant, plan, per_member, first, last)
        losses.append(np.asarray(segment)[:, first:last])
        length = _steps_that_fit((time.monotonic() - started) / (last - first), length)
        if counter:
            done = [max(0, min(last, job.steps) - first) for job in jobs]
            counter.advance(sum(done[: _distinct(jobs)]), note=jobs[0].dataset.name)
        state = watch.check(state, last)
        first = last
    return _unpack(jobs, frozen, start, watch.best(state), np.concatenate(losses, axis=1), watch.steps, division)


def _steps_that_fit(seconds_a_step: float, length: int) -> int:
    """Returns the number of steps of the next call: what fits into ``_CALL_SECONDS``, at most twice the last call's."""
    return max(1, min(2 * length, int(_CALL_SECONDS / max(seconds_a_step, 1e-6))))


def _padded(head: Mapping[str, np.ndarray], width: int) -> dict[str, np.ndarray]:
    missing = width - len(head["bias"])
    return {
        **head,
        "kernel": np.pad(head["kernel"], ((0, 0), (0, missing))),
        "bias": np.pad(head["bias"], (0, missing)),
    }


def _unpack(
    jobs: Sequence[Job],
    frozen: Mapping[str, AnyArray],
    start: Params,
    state: Mapping[str, Any],
    losses: np.ndarray,
    steps: Sequence[int],
    division: Division,
) -> list[Finetuned]:
    weights, failed = jax.device_get((state["weights"], state["failed_step"]))
    members = []
    for number, job in enumerate(jobs):
        own = {path: leaf[number] for path, leaf in weights["encoder"].items()}
        low_rank = trained_factors(job.recipe, own) if job.recipe.mode == "lora" else None
        params = start
        if low_rank:
            params = add(start, low_rank)
        elif own:
            params = nest({path: np.asarray(leaf) for path, leaf in frozen.items()} | own)
        head = {name: leaf[number] for name, leaf in weights["head"].items()}
        head |= {name: head[name][..., : job.dataset.classes] for name in ("kernel", "bias")}
        step = int(failed[number])
        failed_step = step if step >= 0 else None
        taken = losses[number, : steps[number]]
        members.append(Finetuned(job, params, head, taken, failed_step, len(jobs), division, low_rank))
    return members


def _distinct(jobs: Sequence[Job]) -> int:
    """Returns how many jobs of a group are not padding."""
    return len({id(job) for job in jobs})
