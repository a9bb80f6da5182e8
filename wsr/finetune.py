"""Fine-tunes a population: a chunk of members in one compiled program.

Everything in which members of a chunk differ (dataset, seed, hyperparameters, data size) is data of the program and not
part of it, so one compilation serves all members of the same shapes. A member that becomes non-finite stops at that
step and leaves the others untouched.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from wsr import seeds
from wsr.data.dataset import Dataset, Split
from wsr.data.metrics import score
from wsr.data.packing import Batches, evaluation_batches, rows_needed, training_batches
from wsr.errors import WsrError
from wsr.features import split_features
from wsr.models.model import Model
from wsr.progress import Counter
from wsr.trees import flatten, nest, stack
from wsr.types import Head, Params

Mode = Literal["full", "bitfit", "head"]


@dataclass(frozen=True)
class Recipe:
    """How a member is trained. The defaults are the recipe of the paper's authors (PAPER: AdamW, linear decay)."""

    mode: Mode = "full"
    """``full`` trains everything, ``bitfit`` the bias terms and the head, ``head`` the head alone."""
    learning_rate: float = 5e-5
    head_learning_rate: float | None = None
    """Of the freshly initialised head; None: that of the encoder."""
    batch_size: int = 256
    epochs: float = 10.0
    weight_decay: float = 0.01
    """Of matrices only: biases and layer norms are not decayed."""
    warmup: float = 0.006
    """Part of the steps with a rising learning rate."""
    dropout: bool = True
    """Whether the rates of the architecture's configuration are applied."""
    patience: int | None = None
    """Early stopping: checks of the validation loss without improvement before a member stops. None: never."""
    check_every: int = 50
    """Steps between two checks."""
    min_improvement: float = 0.001
    row_length: int = 128
    """Tokens of a packed row."""


@dataclass(frozen=True, eq=False)
class Job:
    """One member to train: its data, its seed, its recipe."""

    dataset: Dataset
    seed: int
    recipe: Recipe
    size: int | None = None
    """Fine-tuning examples, drawn by the seed; None: all."""

    @property
    def split(self) -> Split:
        """The examples this member is fine-tuned on."""
        whole = self.dataset.splits["finetune"]
        if self.size is None or self.size == len(whole):
            return whole
        if self.size > len(whole):
            raise WsrError(
                f"dataset {self.dataset.name}: asked for {self.size} fine-tuning examples, it has {len(whole)}"
            )
        chosen = seeds.generator(self.seed, self.dataset.name, "subset").permutation(len(whole))
        return whole.take(np.sort(chosen[: self.size]))

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return max(1, round(self.recipe.epochs * len(self.split) / self.recipe.batch_size))

    def learning_rates(self, steps: int) -> Float[np.ndarray, " steps"]:
        """Rises linearly over the warm-up, falls linearly to 0; 0 after this member's last step."""
        done = np.arange(steps)
        rising = max(1.0, self.recipe.warmup * self.steps)
        return np.clip(np.minimum((done + 1) / rising, (self.steps - done) / max(self.steps - rising, 1)), 0, 1)


@dataclass(frozen=True, eq=False)
class Finetuned:
    """A trained member, in host memory."""

    job: Job
    params: Params
    head: Head
    losses: Float[np.ndarray, " steps"]
    """Training loss at each step taken."""
    failed_step: int | None
    """The step at which it became non-finite, or None. A failed member is no member: quarantine it."""
    group_size: int
    """Members that shared its program."""


def finetune(
    model: Model, start: Params, jobs: Sequence[Job], *, chunk: int, counter: Counter | None = None
) -> Iterator[Finetuned]:
    """Trains every job from ``start`` and yields the members, chunk by chunk, in order.

    Args:
      model: the architecture.
      start: encoder parameters all members start from.
      jobs: members to train; those of a chunk are padded to common shapes, so give neighbours similar sizes.
      chunk: members trained together; see ``wsr.features.chunk_for_device``. The last chunk is padded by repeating its last
        member, so that "same seed, same bits" does not depend on how many members there are.
      counter: advanced by one for each optimiser step of each member.
    """
    for recipe_mode in sorted({job.recipe.mode for job in jobs}):
        for regression in (False, True):
            alike = [j for j in jobs if j.recipe.mode == recipe_mode and j.dataset.regression == regression]
            for first in range(0, len(alike), chunk):
                group = alike[first : first + chunk]
                padded = group + [group[-1]] * (chunk - len(group))
                yield from _train_group(model, start, padded, counter)[: len(group)]


def predict(features: Float[Array, "texts hidden"], head: Head, *, regression: bool) -> np.ndarray:
    """Returns class ids, or values for regression, of a member's own head."""
    outputs = np.asarray(features) @ np.asarray(head["kernel"]) + np.asarray(head["bias"])
    return outputs[:, 0] if regression else outputs.argmax(axis=1)


def score_member(
    model: Model, params: Params, head: Head, dataset: Dataset, split: str, batches: Batches | None = None
) -> float:
    """Returns the dataset's own metric of a member with its own head on one split."""
    texts = dataset.splits[split]
    features = split_features(model, params, batches or evaluation_batches(texts, rows=16), len(texts))
    return score(dataset.metric, texts.labels, predict(features, head, regression=dataset.regression))


def initial_head(job: Job, hidden: int) -> dict[str, np.ndarray]:
    """The fresh head of a member, ``N(0, 0.02)`` as BERT's, from the stream (dataset, seed, "head")."""
    generator = seeds.generator(job.seed, job.dataset.name, "head")
    kernel = generator.normal(0.0, 0.02, (hidden, job.dataset.classes)).astype(np.float32)
    return {"kernel": kernel, "bias": np.zeros(job.dataset.classes, np.float32)}


# --- one group -------------------------------------------------------------------------------------------------------


def _train_group(model: Model, start: Params, jobs: Sequence[Job], counter: Counter | None) -> list[Finetuned]:
    encoder, plan = _plan_batches(model, start, jobs)
    steps = max(job.steps for job in jobs)
    mode = jobs[0].recipe.mode
    frozen, trainable = _partition(start if mode != "head" else {}, mode)
    width = max(job.dataset.classes for job in jobs)
    state = _initial_state(trainable, [_padded(initial_head(job, model.hidden), width) for job in jobs])
    per_member = _hyperparameters(jobs, steps)
    dropout = any(job.recipe.dropout for job in jobs) and mode != "head"
    program = _program(encoder, jobs[0].dataset.regression, dropout)
    watch = _EarlyStopping(model, jobs, frozen)

    losses = []
    interval = min(job.recipe.check_every for job in jobs) if watch.wanted else _SHOWN_EVERY
    for first in range(0, steps, interval):
        last = min(first + interval, steps)
        state, segment = program(state, frozen, plan, per_member, first, last)
        losses.append(np.asarray(segment)[:, first:last])
        if counter:
            done = [max(0, min(last, job.steps) - first) for job in jobs]
            counter.advance(sum(done[: _distinct(jobs)]), note=jobs[0].dataset.name)
        if watch.wanted:
            state = watch.check(state)
            if watch.all_stopped:
                break
    trained = watch.best(state) if watch.wanted else state
    return _unpack(jobs, frozen, start, trained, np.concatenate(losses, axis=1), model.hidden)


_SHOWN_EVERY = 10  # steps between two reports of progress; each is one call of the compiled program


def _plan_batches(model: Model, start: Params, jobs: Sequence[Job]) -> tuple[Model, dict[str, Any]]:
    """Returns the encoder to train through and the batches of all members, ``[group, steps, ...]``.

    Training only a head needs the features once: then the "encoder" hands through features computed beforehand.
    """
    steps = max(job.steps for job in jobs)
    options = [
        {
            "batch_size": job.recipe.batch_size,
            "steps": steps,
            "row_length": job.recipe.row_length,
            "packed": model.packed,
        }
        for job in jobs
    ]

    def order(job: Job) -> np.random.Generator:
        return seeds.generator(job.seed, job.dataset.name, "order")

    rows = max(
        rows_needed(job.split, generator=order(job), **option) for job, option in zip(jobs, options, strict=True)
    )
    batches = [
        training_batches(job.split, generator=order(job), rows=rows, **option)
        for job, option in zip(jobs, options, strict=True)
    ]
    if jobs[0].recipe.mode == "head":
        inputs = {
            "features": np.stack([_batch_features(model, start, job, b) for job, b in zip(jobs, batches, strict=True)])
        }
        encoder = _hand_through(model.hidden)
    else:
        inputs = {name: np.stack([b.inputs[name] for b in batches]) for name in batches[0].inputs}
        encoder = model
    return encoder, {
        "inputs": inputs,
        "labels": np.stack([b.labels for b in batches]),
        "valid": np.stack([b.index >= 0 for b in batches]),
    }


def _batch_features(model: Model, start: Params, job: Job, batches: Batches) -> np.ndarray:
    split = job.split
    packed = evaluation_batches(split, rows=16, row_length=job.recipe.row_length, packed=model.packed)
    return split_features(model, start, packed, len(split))[np.maximum(batches.index, 0)]


@lru_cache(maxsize=4)
def _hand_through(hidden: int) -> Model:
    return Model(
        name="features",
        config={},
        hidden=hidden,
        max_length=1,
        init=lambda key: {},
        encode=lambda params, batch, dropout_key=None: batch["features"],
    )


def _partition(params: Params, mode: Mode) -> tuple[dict[str, Array], dict[str, Array]]:
    """Splits the leaves into those that stay and those that are trained."""
    leaves = flatten(params)
    trained = {path for path in leaves if mode == "full" or path.rsplit("/", 1)[-1] == "bias"}
    return (
        {path: leaf for path, leaf in leaves.items() if path not in trained},
        {path: leaves[path] for path in sorted(trained)},
    )


def _initial_state(trainable: Mapping[str, Array], heads: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Any]:
    members = len(heads)
    weights = {
        "encoder": {path: np.repeat(np.asarray(leaf)[None], members, axis=0) for path, leaf in trainable.items()},
        "head": stack(heads),
    }
    return {
        "weights": jax.tree.map(jnp.asarray, weights),
        "adam": jax.vmap(optax.scale_by_adam().init)(weights),
        "failed_step": jnp.full(members, -1, jnp.int32),
        "running": jnp.ones(members, bool),
    }


def _hyperparameters(jobs: Sequence[Job], steps: int) -> dict[str, np.ndarray]:
    schedule = np.stack([job.learning_rates(steps) for job in jobs])
    encoder = np.array([job.recipe.learning_rate for job in jobs])
    head = np.array([job.recipe.head_learning_rate or job.recipe.learning_rate for job in jobs])
    keys = jnp.stack([seeds.stream(job.seed, job.dataset.name, "dropout") for job in jobs])
    return {
        "encoder_rate": (schedule * encoder[:, None]).astype(np.float32),
        "head_rate": (schedule * head[:, None]).astype(np.float32),
        "weight_decay": np.array([job.recipe.weight_decay for job in jobs], np.float32),
        "steps": np.array([job.steps for job in jobs], np.int32),
        "classes": np.array([job.dataset.classes for job in jobs], np.int32),
        "dropout_key": keys,
    }


@lru_cache(maxsize=8)
def _program(encoder: Model, regression: bool, dropout: bool) -> Callable:
    """The compiled training loop: steps ``first`` to ``last`` (dynamic, so that one compilation serves all segments)."""

    def member_step(state: dict, frozen: dict, plan: dict, own: dict, step: Int[Array, ""]) -> tuple[dict, Array]:
        batch, labels, valid = jax.tree.map(lambda leaf: leaf[step], (plan["inputs"], plan["labels"], plan["valid"]))
        key = jax.random.fold_in(own["dropout_key"], step) if dropout else None

        def loss_of(weights: dict) -> Array:
            features = encoder.encode(nest(frozen | weights["encoder"]), batch, dropout_key=key)
            return _loss(features, weights["head"], labels, valid, own["classes"], regression)

        loss, gradient = jax.value_and_grad(loss_of)(state["weights"])
        direction, adam = optax.scale_by_adam().update(gradient, state["adam"])
        rate = {"encoder": own["encoder_rate"][step], "head": own["head_rate"][step]}
        moved = {
            part: jax.tree.map(
                partial(_descend, rate=rate[part], decay=own["weight_decay"]),
                state["weights"][part],
                direction[part],
            )
            for part in ("encoder", "head")
        }
        finite = jnp.isfinite(loss) & jnp.isfinite(optax.global_norm(gradient))
        active = state["running"] & (step < own["steps"])
        keep = partial(jax.tree.map, lambda new, old: jnp.where(active & finite, new, old))
        return {
            "weights": keep(moved, state["weights"]),
            "adam": keep(adam, state["adam"]),
            "failed_step": jnp.where(active & ~finite, step, state["failed_step"]),
            "running": state["running"] & (finite | ~active),
        }, loss

    def segment(
        state: dict, frozen: dict, plan: dict, own: dict, first: Int[Array, ""], last: Int[Array, ""]
    ) -> tuple[dict, Array]:
        members, steps = plan["labels"].shape[:2]

        def body(step: Int[Array, ""], carry: tuple[dict, Array]) -> tuple[dict, Array]:
            state, losses = carry
            state, loss = each(state, frozen, plan, own, step)
            return state, losses.at[:, step].set(loss)

        each = jax.vmap(member_step, in_axes=(0, None, 0, 0, None)) if members > 1 else _alone(member_step)
        return jax.lax.fori_loop(first, last, body, (state, jnp.full((members, steps), jnp.nan)))

    return jax.jit(segment, donate_argnums=0)


def _alone(member_step: Callable) -> Callable:
    """The step of a group of one, without the batching that costs time on a CPU."""

    def step(state: dict, frozen: dict, plan: dict, own: dict, step: Int[Array, ""]) -> tuple[dict, Array]:
        first = partial(jax.tree.map, lambda leaf: leaf[0])
        return jax.tree.map(lambda leaf: leaf[None], member_step(first(state), frozen, first(plan), first(own), step))

    return step


def _loss(
    features: Float[Array, "batch hidden"],
    head: Head,
    labels: Array,
    valid: Array,
    classes: Int[Array, ""],
    regression: bool,
) -> Float[Array, ""]:
    outputs = features @ head["kernel"] + head["bias"]
    if regression:
        each = jnp.square(outputs[:, 0] - labels)
    else:
        # Heads of a group are padded to the most classes among them; the padding takes no probability.
        outputs = jnp.where(jnp.arange(outputs.shape[1]) < classes, outputs, -1e9)
        each = optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
    return jnp.where(valid, each, 0.0).sum() / jnp.maximum(valid.sum(), 1)


def _descend(weight: Array, direction: Array, *, rate: Array, decay: Array) -> Array:
    """AdamW's step (Loshchilov and Hutter 2019); vectors are not decayed."""
    return weight - rate * (direction + (decay * weight if weight.ndim > 1 else 0.0))


class _EarlyStopping:
    """Keeps each member's best weights by validation loss and stops those that no longer improve."""

    def __init__(self, model: Model, jobs: Sequence[Job], frozen: Mapping[str, Array]):
        self.wanted = any(job.recipe.patience is not None for job in jobs)
        self._model, self._jobs, self._frozen = model, jobs, frozen
        self._lowest = np.full(len(jobs), np.inf)
        self._waited = np.zeros(len(jobs), int)
        self._kept: list[Any] = [None] * len(jobs)

    def check(self, state: dict[str, Any]) -> dict[str, Any]:
        """Scores all members and returns the state with the stopped ones no longer running."""
        for member, job in enumerate(self._jobs):
            if not bool(state["running"][member]):
                continue
            weights = jax.tree.map(lambda leaf, member=member: np.asarray(leaf[member]), state["weights"])
            loss = self._validation_loss(job, weights)
            if loss < self._lowest[member] - job.recipe.min_improvement:
                self._lowest[member], self._waited[member], self._kept[member] = loss, 0, weights
            else:
                self._waited[member] += 1
        going = [
            job.recipe.patience is None or waited < job.recipe.patience
            for job, waited in zip(self._jobs, self._waited, strict=True)
        ]
        self.all_stopped = not bool((np.asarray(state["running"]) & going).any())
        return state | {"running": state["running"] & jnp.asarray(going)}

    def best(self, state: dict[str, Any]) -> dict[str, Any]:
        """Returns the state with every member's best weights."""
        last = [jax.tree.map(lambda leaf, m=m: np.asarray(leaf[m]), state["weights"]) for m in range(len(self._jobs))]
        return state | {"weights": stack([kept or own for kept, own in zip(self._kept, last, strict=True)])}

    def _validation_loss(self, job: Job, weights: Mapping[str, Any]) -> float:
        split = job.dataset.splits["validation"]
        batches = evaluation_batches(split, rows=16, row_length=job.recipe.row_length, packed=self._model.packed)
        params = nest(dict(self._frozen) | weights["encoder"])
        features = jnp.asarray(split_features(self._model, params, batches, len(split)))
        valid = jnp.ones(len(split), bool)
        classes = jnp.int32(job.dataset.classes)
        return float(_loss(features, weights["head"], split.labels, valid, classes, job.dataset.regression))


def _padded(head: Mapping[str, np.ndarray], width: int) -> dict[str, np.ndarray]:
    missing = width - len(head["bias"])
    return {
        "kernel": np.pad(head["kernel"], ((0, 0), (0, missing))),
        "bias": np.pad(head["bias"], (0, missing)),
    }


def _unpack(
    jobs: Sequence[Job],
    frozen: Mapping[str, Array],
    start: Params,
    state: Mapping[str, Any],
    losses: np.ndarray,
    hidden: int,
) -> list[Finetuned]:
    weights, failed = jax.device_get((state["weights"], state["failed_step"]))
    members = []
    for number, job in enumerate(jobs):
        own = {path: leaf[number] for path, leaf in weights["encoder"].items()}
        params = nest({p: np.asarray(leaf) for p, leaf in frozen.items()} | own) if job.recipe.mode != "head" else start
        head = {
            "kernel": weights["head"]["kernel"][number][:, : job.dataset.classes],
            "bias": weights["head"]["bias"][number][: job.dataset.classes],
        }
        step = int(failed[number])
        taken = losses[number, : job.steps]
        members.append(Finetuned(job, params, head, taken, step if step >= 0 else None, len(jobs)))
    return members


def _distinct(jobs: Sequence[Job]) -> int:
    """How many of a group are not padding."""
    return len({id(job) for job in jobs})
