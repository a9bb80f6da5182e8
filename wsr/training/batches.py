"""Makes the batches of a group of members, stacked and all of one shape."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32

from wsr.data.images import ImageSplit
from wsr.data.packing import Batches, row_length_for, rows_needed, training_batches
from wsr.models.features import all_features, refuse_unfit
from wsr.models.model import Model
from wsr.runtime import seeds
from wsr.training.job import Job
from wsr.training.lora import adapted
from wsr.types import Batch, Params

# Rounding makes groups of other datasets and seeds mostly have the same shape, so that they share a compiled program.
_ROW_MULTIPLE = 4
IMAGES = "images of the group"
"""Key of the images among the frozen parameters; no architecture has a parameter of this name."""


def group_batches(model: Model, start: Params, jobs: Sequence[Job], pieces: int = 1) -> tuple[Model, dict[str, Any]]:
    """Returns the encoder to train through and the batches of all members, ``[group, steps, pieces, ...]``.

    In mode "head" the encoder passes on features that were computed once beforehand; in mode "lora" it adds the product
    of the factors to its matrices. Images lie in memory once, however often they are read: the encoder looks them up by
    number in the arrays under "shared", which join its frozen parameters.

    Args:
      model: the architecture.
      start: encoder parameters from which all members start.
      jobs: the members of the group; their batches have the same number of texts.
      pieces: equal pieces into which the texts of each batch are cut, see ``wsr.training.memory``.
    """
    splits = [job.split for job in jobs]
    refuse_unfit(model, *splits)
    steps = max(job.steps for job in jobs)
    row_length = row_length_for(jobs[0].recipe.row_length, *splits)

    def order(job: Job) -> np.random.Generator:
        return seeds.generator(job.seed, *job.stream, "order")

    # The same texts in the same order, whatever the number of pieces.
    shape: dict[str, Any] = {
        "batch_size": jobs[0].recipe.batch_size // pieces,
        "steps": steps * pieces,
        "row_length": row_length,
        "packed": model.packed,
    }
    needed = max(rows_needed(job.split, generator=order(job), **shape) for job in jobs)
    rows = -(-needed // _ROW_MULTIPLE) * _ROW_MULTIPLE
    batches = [training_batches(job.split, generator=order(job), rows=rows, **shape) for job in jobs]
    if jobs[0].recipe.mode == "head":
        inputs = {
            "features": np.stack([_batch_features(model, start, job, b) for job, b in zip(jobs, batches, strict=True)])
        }
        encoder = _hand_through(model.hidden)
    else:
        inputs = {name: np.stack([b.inputs[name] for b in batches]) for name in batches[0].inputs}
        recipe = jobs[0].recipe
        encoder = adapted(model, recipe.lora_scale) if recipe.mode == "lora" else model
    shared: dict[str, Array] = {}
    if "images" in inputs:
        tables = [split.pixel_values for split in splits if isinstance(split, ImageSplit)]
        table, inputs["images"] = _table_of_images(tables, list(inputs["images"]))
        encoder, shared = _by_number(encoder), {IMAGES: jnp.asarray(table)}
    labels = np.stack([b.labels for b in batches])
    by_piece = {name: array.reshape(len(jobs), steps, pieces, *array.shape[2:]) for name, array in inputs.items()}
    return encoder, {"shared": shared, "inputs": by_piece, "labels": labels.reshape(len(jobs), steps, pieces, -1)}


def _batch_features(model: Model, start: Params, job: Job, batches: Batches) -> np.ndarray:
    return all_features(model, start, job.split)[np.maximum(batches.index, 0)]


def _table_of_images(
    tables: Sequence[Float32[np.ndarray, "_ height width channels"]],
    numbers: Sequence[Int32[np.ndarray, "steps batch"]],
) -> tuple[Float32[np.ndarray, "images height width channels"], Int32[np.ndarray, "group steps batch"]]:
    """Returns one table with the images of all members, without repeating shared tables, and the numbers in it."""
    distinct = {id(table): table for table in tables}
    starts = dict(zip(distinct, np.cumsum([0, *map(len, distinct.values())]), strict=False))
    moved = [own + starts[id(table)] for table, own in zip(tables, numbers, strict=True)]
    return np.concatenate(list(distinct.values())), np.stack(moved).astype(np.int32)


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
