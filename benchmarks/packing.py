"""Several texts a row, against a few buckets by length: one model over 600 texts, with and without compiling."""

import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import Float

from benchmarks.harness import Result, side_by_side
from wsr.data.dataset import Split
from wsr.data.load import load_dataset
from wsr.data.packing import Batches, evaluation_batches
from wsr.models import load
from wsr.models.model import Model
from wsr.types import Params

ROW_LENGTH, TOKENS, REPEATS = 64, 1024, 3
BUCKETS = {"4 buckets of 16": (16, 32, 48, 64), "2 buckets of 32": (32, 64), "padded": (64,)}


def run() -> list[Result]:
    """Times the features of a split of short texts and one of long texts."""
    checkpoint = load("minilm")
    results = []
    for name in ("vader_movie", "newsgroups_rec_sci"):
        dataset = load_dataset(name, checkpoint.processor, max_length=ROW_LENGTH, sizes={"test": 600})
        results.append(_compare(checkpoint.model, checkpoint.params, name, dataset.texts("test")))
    return results


def _compare(model: Model, params: Params, name: str, split: Split) -> Result:
    packed = [(np.arange(len(split)), evaluation_batches(split, rows=TOKENS // ROW_LENGTH, row_length=ROW_LENGTH))]
    plans = {"packed rows": packed} | {label: _buckets(split, widths) for label, widths in BUCKETS.items()}
    placed = jax.device_put(params)
    program = jax.jit(model.encode)
    calls = {label: (lambda plan=plan: _features(program, placed, plan, len(split))) for label, plan in plans.items()}
    figures: dict[str, float | int | str] = {}
    jax.config.update("jax_enable_compilation_cache", False)
    expected = calls["packed rows"]()
    for label, call in calls.items():
        jax.clear_caches()
        start = time.perf_counter()
        found = call()
        figures[f"first call, compiling included, {label}, seconds"] = time.perf_counter() - start
        np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=label)
        used = sum(batches.inputs["token_ids"].size for _, batches in plans[label])
        figures[f"real tokens of those computed, {label}"] = float(split.lengths.sum() / used)
    seconds = side_by_side(calls, repeats=REPEATS)
    jax.config.update("jax_enable_compilation_cache", True)
    return Result(
        name=f"packing, {name}",
        work=f"MiniLM over {len(split)} texts, {split.lengths.mean():.0f} tokens each on average, at most {ROW_LENGTH}",
        ours="packed rows",
        seconds=seconds,
        figures=figures,
    )


def _buckets(split: Split, widths: Sequence[int]) -> list[tuple[np.ndarray, Batches]]:
    """One text a row; rows of the narrowest width that holds it, of the same tokens a batch."""
    narrowest = np.searchsorted(widths, split.lengths)
    plan = []
    for number, width in enumerate(widths):
        texts = np.flatnonzero(narrowest == number)
        if len(texts):
            batches = evaluation_batches(split.take(texts), rows=TOKENS // width, row_length=width, packed=False)
            plan.append((texts, batches))
    return plan


def _features(
    program: Callable, params: Params, plan: Sequence[tuple[np.ndarray, Batches]], texts: int
) -> Float[np.ndarray, "texts hidden"]:
    outputs = []
    for _, batches in plan:
        for step in range(len(batches.index)):
            outputs.append(program(params, {name: array[step] for name, array in batches.inputs.items()}))
    results = iter(outputs)
    features = None
    for numbers, batches in plan:
        for index in batches.index:
            values = np.asarray(next(results))
            if features is None:
                features = np.empty((texts, values.shape[-1]), np.float32)
            filled = index >= 0
            features[numbers[index[filled]]] = values[filled]
    assert features is not None
    return features
