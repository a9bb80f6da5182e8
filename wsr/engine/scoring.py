"""Scores points: finds those without a result, encodes and scores them, saves the results."""

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np
from jaxtyping import Float, Shaped

from wsr.data.dataset import AnySplit
from wsr.engine.region_features import for_each_chunk
from wsr.engine.settings import Settings
from wsr.models.precision import Precision, meaning
from wsr.region.region import Region
from wsr.runtime.hosts import Deal, agree, deal, exchange
from wsr.store.results import Results
from wsr.types import AnyArray

Score = Callable[[Mapping[str, Float[AnyArray, "chunk _ _"]]], Mapping[str, Shaped[np.ndarray, "chunk ..."]]]
"""Turns the features of some points, by split, into the arrays that are saved for each point."""


def score_points(
    region: Region,
    coefficients: Float[np.ndarray, "points members"],
    keys: Sequence[str],
    splits: Mapping[str, AnySplit],
    score: Score,
    *,
    settings: Settings,
    note: str,
) -> dict[str, Shaped[np.ndarray, "points ..."]]:
    """Scores the points that are not in the cache, saves their results, and returns the results of all points.

    Args:
      region: the population.
      coefficients: one row per point, one column per member.
      keys: key of each point's result, see ``key_of``.
      splits: the texts to encode, by name.
      score: turns features into results; the last chunk is padded with copies of its last point, whose results are
        ignored.
      settings: chunk size, memory, devices, precision and cache of results.
      note: text shown beside the progress.

    Returns:
      Arrays by name, one row per point.
    """
    results = settings.results or Results.in_memory()
    work = _missing(keys, results, settings)
    settings.advance(len(keys) - work.missing, note)
    left = work.missing

    def finish(numbers: Sequence[int], features: Mapping[str, Float[AnyArray, "chunk _ _"]]) -> None:
        """Scores and saves a chunk of points."""
        nonlocal left
        if work.share.keeps:
            _keep(results, [keys[work.points[number]] for number in numbers], score(features))
        done = min(left, len(numbers) * work.share.groups)  # assumes the other processes advance at the same rate
        settings.advance(done, note)
        left -= done

    for_each_chunk(region, coefficients[work.points], splits, finish, settings=work.settings)
    if settings.mesh is None:
        _tell_others(results, [keys[number] for number in work.points] if work.share.keeps else [])
    settings.advance(left, note)
    kept = [results.get(key) for key in keys]
    return {name: np.stack([point[name] for point in kept]) for name in kept[0]}


def key_of(region: Region, row: Float[np.ndarray, " members"], what: Mapping[str, object], precision: Precision) -> str:
    """Returns the key of a point's result, a hash of the model, the base, the point and ``what``.

    Args:
      region: the population.
      row: coefficients of the point.
      what: everything else that the result depends on.
      precision: precision of the encoder.
    """
    point = sorted(
        (member.content_sha256, float(coefficient).hex())
        for member, coefficient in zip(region.members, row, strict=True)
        if coefficient
    )
    whole: dict[str, object] = {
        "model": [region.model.name, dict(region.model.config)],
        "base": region.base_sha256,
        "point": point,
        **what,
    }
    if computed := meaning(precision, jax.default_backend()):
        whole["precision"] = computed
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class _Missing:
    """The points without a result, and this process's share of them."""

    missing: int
    """Their number over all processes."""
    points: list[int]
    """Indices of this process's points."""
    share: Deal
    settings: Settings
    """Settings with the mesh, chunk and memory budget that all processes agreed on."""


def _missing(keys: Sequence[str], results: Results, settings: Settings) -> _Missing:
    missing = [number for number, key in enumerate(keys) if key not in results]
    if settings.mesh is None:
        missing, chunk, budget = agree(keys, missing, settings.chunk, settings.memory_budget_gib)
        settings = replace(settings, chunk=chunk, memory_budget_gib=budget)
    share = deal(len(missing), settings.mesh)
    own = [missing[number] for number in share.points]
    return _Missing(len(missing), own, share, replace(settings, mesh=share.mesh))


def _keep(results: Results, keys: Sequence[str], arrays: Mapping[str, Shaped[np.ndarray, "chunk ..."]]) -> None:
    for at, key in enumerate(keys):
        results.put(key, **{name: values[at] for name, values in arrays.items()})


def _tell_others(results: Results, keys: Sequence[str]) -> None:
    """Sends each process's new results to all others, because their file systems may not show them yet."""
    if jax.process_count() == 1:
        return
    own = io.BytesIO()
    if keys:
        values = [results.get(key) for key in keys]
        arrays = {name: np.stack([point[name] for point in values]) for name in values[0]}
        np.savez(own, allow_pickle=False, keys=np.array(keys), **arrays)
    for content in exchange(own.getvalue()):
        if content:
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                arrays = dict(archive)
            for at, key in enumerate(arrays.pop("keys").tolist()):
                results.remember(key, **{name: values[at] for name, values in arrays.items()})
