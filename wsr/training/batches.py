"""Makes the batches of a group of members, stacked and all of one shape."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

from wsr.data.dataset import AnySplit
from wsr.data.images import ImageSplit
from wsr.data.packing import Batches, evaluation_batches, row_length_for, rows_needed, training_batches
from wsr.models.features import all_features, refuse_unfit
from wsr.models.model import Model
from wsr.models.precision import computing_in
from wsr.runtime import seeds
from wsr.runtime.devices import rows_for_device
from wsr.training.job import Job
from wsr.training.lora import adapted
from wsr.types import Batch, Params

# Rounding makes groups of other datasets and seeds mostly have the same shape, so that they share a compiled program.
_ROW_MULTIPLE = 4
_VALIDATION_STEP_MULTIPLE, _VALIDATION_SLOT_MULTIPLE = 8, 64
_NUMBERS = 16  # images of a validation split in a batch
IMAGES = "images of the group"
"""Key of the images among the frozen parameters; no architecture has a parameter of this name."""


def group_batches(model: Model, start: Params, jobs: Sequence[Job], pieces: int = 1) -> tuple[Model, dict[str, Any]]:
    """Returns the encoder to train through and the batches of all members, ``[group, steps, pieces, ...]``.

    The encoder computes in the precision of the recipe. In mode "head" it passes on features that were computed once
    beforehand; in mode "lora" it adds the product of the factors to its matrices. Images lie in memory once, however
    often they are read: the encoder looks them up by number in the arrays under "shared", which join its frozen
    parameters.

    If early stopping checks a member, "validation" holds the validation splits in batches ``[group, steps, ...]``:
    "inputs", "labels", "filled" (False in padding slots) and "steps", each member's number of batches. Further ones are
    padding.

    Args:
      model: the architecture.
      start: encoder parameters from which all members start.
      jobs: the members of the group; their batches have the same number of texts.
      pieces: equal pieces into which the texts of each batch are cut, see ``wsr.training.memory``.
    """
    model = computing_in(model, jobs[0].recipe.precision, jax.default_backend())
    steps = max(job.steps for job in jobs)
    splits = [job.split for job in jobs]
    refuse_unfit(model, *splits)
    batches = _of_training(model, jobs, splits, steps * pieces, jobs[0].recipe.batch_size // pieces)
    held_out = [_held_out(job) for job in jobs] if any(job.recipe.patience for job in jobs) else []
    refuse_unfit(model, *held_out)
    checks = _of_validation(model, jobs[0], held_out) if held_out else []
    encoder, shared, inputs = _read(model, start, jobs[0], [*splits, *held_out], [*batches, *checks])

    def by_piece(leaves: list[np.ndarray]) -> np.ndarray:
        return np.stack(leaves).reshape(len(jobs), steps, pieces, *leaves[0].shape[1:])

    plan = {
        "shared": shared,
        "inputs": _by_name(inputs[: len(jobs)], by_piece),
        "labels": by_piece([own.labels for own in batches]),
    }
    if checks:
        plan["validation"] = {
            "inputs": _by_name(inputs[len(jobs) :], np.stack),
            "labels": np.stack([own.labels for own in checks]),
            "filled": np.stack([own.index >= 0 for own in checks]),
            "steps": np.array([(own.index >= 0).any(axis=1).sum() for own in checks], np.int32),
        }
    return encoder, plan


def _of_training(
    model: Model, jobs: Sequence[Job], splits: Sequence[AnySplit], steps: int, texts: int
) -> list[Batches]:
    """Returns each member's batches of ``texts`` texts: the same texts in the same order, whatever their number."""

    def order(job: Job) -> np.random.Generator:
        return seeds.generator(job.seed, *job.stream, "order")

    row_length = row_length_for(jobs[0].recipe.row_length, *splits)
    shape: dict[str, Any] = {"batch_size": texts, "steps": steps, "row_length": row_length, "packed": model.packed}
    own = list(zip(jobs, splits, strict=True))
    needed = max(rows_needed(split, generator=order(job), **shape) for job, split in own)
    rows = -(-needed // _ROW_MULTIPLE) * _ROW_MULTIPLE
    return [training_batches(split, generator=order(job), rows=rows, **shape) for job, split in own]


def _held_out(job: Job) -> AnySplit:
    """Returns a member's validation split; no texts if the member is never checked."""
    return job.split.take(np.arange(0)) if job.recipe.patience is None else job.dataset.splits["validation"]


def _of_validation(model: Model, job: Job, splits: Sequence[AnySplit]) -> list[Batches]:
    """Returns each split once, in batches of a size that suits the device, all of one shape."""
    if job.recipe.mode == "head" or model.reads == "images":  # looked up by number
        batches, multiple = [_numbered(split) for split in splits], 1
    else:
        row_length = row_length_for(job.recipe.row_length, *splits)
        shape: dict[str, Any] = {"row_length": row_length, "packed": model.packed}
        rows = rows_for_device(16, 1, row_length)
        batches = [evaluation_batches(split, rows=rows, **shape) for split in splits]
        multiple = _VALIDATION_SLOT_MULTIPLE
    steps, slots = np.max([(1, 1), *(own.index.shape for own in batches)], axis=0)
    steps = -(-steps // _VALIDATION_STEP_MULTIPLE) * _VALIDATION_STEP_MULTIPLE
    slots = -(-slots // multiple) * multiple

    def padded(array: np.ndarray, *, slotted: bool, value: int = 0) -> np.ndarray:
        missing = (slots - array.shape[1]) if slotted else 0
        width = [(0, steps - len(array)), (0, missing), *[(0, 0)] * (array.ndim - 2)]
        return np.pad(array, width, constant_values=value)

    return [
        Batches(
            {name: padded(array, slotted=name in ("starts", "images")) for name, array in own.inputs.items()},
            padded(own.labels, slotted=True),
            padded(own.index, slotted=True, value=-1),
            own.tokens,
        )
        for own in batches
    ]


def _numbered(split: AnySplit) -> Batches:
    """Returns each image or text of a split once, by its number."""
    index = np.full(-(-len(split) // _NUMBERS) * _NUMBERS, -1, np.int32)
    index[: len(split)] = np.arange(len(split))
    labels = np.zeros(len(index), split.labels.dtype)
    labels[: len(split)] = split.labels
    numbers = index.reshape(-1, _NUMBERS)
    return Batches({"images": np.maximum(numbers, 0)}, labels.reshape(-1, _NUMBERS), numbers, len(split))


def _read(
    model: Model, start: Params, job: Job, splits: Sequence[AnySplit], batches: Sequence[Batches]
) -> tuple[Model, dict[str, Array], list[dict[str, np.ndarray]]]:
    """Returns the encoder, the arrays that it looks inputs up in, and the inputs of each member's batches."""
    if job.recipe.mode == "head":
        distinct = {id(split): split for split in splits if len(split)}
        features = {number: all_features(model, start, split) for number, split in distinct.items()}
        nothing = np.zeros((1, model.hidden), np.float32)
        inputs = [
            {"features": features.get(id(split), nothing)[np.maximum(own.index, 0)]}
            for split, own in zip(splits, batches, strict=True)
        ]
        return _hand_through(model.hidden), {}, inputs
    encoder = adapted(model, job.recipe.lora_scale) if job.recipe.mode == "lora" else model
    if model.reads == "text":
        return encoder, {}, [own.inputs for own in batches]
    table, firsts = _table_of_images([split.pixel_values for split in splits if isinstance(split, ImageSplit)])
    numbers = [
        {"images": (own.inputs["images"] + first).astype(np.int32)} for own, first in zip(batches, firsts, strict=True)
    ]
    return _by_number(encoder), {IMAGES: jnp.asarray(table)}, numbers


def _by_name(
    inputs: Sequence[dict[str, np.ndarray]], together: Callable[[list[np.ndarray]], np.ndarray]
) -> dict[str, np.ndarray]:
    return {name: together([own[name] for own in inputs]) for name in inputs[0]}


def _table_of_images(
    tables: Sequence[Float32[np.ndarray, "_ height width channels"]],
) -> tuple[Float32[np.ndarray, "images height width channels"], list[int]]:
    """Returns one table with all images, without repeating tables, and the number of each table's first image in it."""
    distinct = {id(table): table for table in tables}
    starts = dict(zip(distinct, np.cumsum([0, *map(len, distinct.values())]), strict=False))
    return np.concatenate(list(distinct.values())), [int(starts[id(table)]) for table in tables]


@lru_cache(maxsize=4)
def _by_number(model: Model) -> Model:
    def encode(params: Params, batch: Batch, dropout_key: Array | None = None) -> Array:
        if "images" in batch:
            batch = {"pixel_values": params[IMAGES][batch["images"]]}
        own = {name: part for name, part in params.items() if name != IMAGES}
        return model.encode(own, batch, dropout_key=dropout_key)

    return replace(model, encode=encode)


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
