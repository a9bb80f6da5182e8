"""The batches of a group of members, stacked: all of one shape."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from wsr import seeds
from wsr.data.packing import Batches, row_length_for, rows_needed, training_batches
from wsr.features import all_features
from wsr.finetune.job import Job
from wsr.finetune.lora import adapted
from wsr.models.model import Model
from wsr.types import Params

# Groups of other datasets and seeds then mostly have the same shape, and need no program of their own.
_ROW_MULTIPLE = 4


def group_batches(model: Model, start: Params, jobs: Sequence[Job]) -> tuple[Model, dict[str, Any]]:
    """Returns the encoder to train through and the batches of all members, ``[group, steps, ...]``.

    Training only a head needs the features once: then the "encoder" hands through features computed beforehand.
    Training factors, it adds their product.
    """
    steps = max(job.steps for job in jobs)
    row_length = row_length_for(jobs[0].recipe.row_length, *(job.split for job in jobs))

    def order(job: Job) -> np.random.Generator:
        return seeds.generator(job.seed, *job.stream, "order")

    shape: dict[str, Any] = {"steps": steps, "row_length": row_length, "packed": model.packed}
    needed = max(
        rows_needed(job.split, batch_size=job.recipe.batch_size, generator=order(job), **shape) for job in jobs
    )
    rows = -(-needed // _ROW_MULTIPLE) * _ROW_MULTIPLE
    batches = [
        training_batches(job.split, batch_size=job.recipe.batch_size, generator=order(job), rows=rows, **shape)
        for job in jobs
    ]
    if jobs[0].recipe.mode == "head":
        inputs = {
            "features": np.stack([_batch_features(model, start, job, b) for job, b in zip(jobs, batches, strict=True)])
        }
        encoder = _hand_through(model.hidden)
    else:
        inputs = {name: np.stack([b.inputs[name] for b in batches]) for name in batches[0].inputs}
        recipe = jobs[0].recipe
        encoder = adapted(model, recipe.lora_scale) if recipe.mode == "lora" else model
    return encoder, {
        "inputs": inputs,
        "labels": np.stack([b.labels for b in batches]),
        "valid": np.stack([b.index >= 0 for b in batches]),
    }


def _batch_features(model: Model, start: Params, job: Job, batches: Batches) -> np.ndarray:
    return all_features(model, start, job.split)[np.maximum(batches.index, 0)]


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
