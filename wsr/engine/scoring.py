"""Which points are missing and whose they are; their features; what is kept of them."""

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np
from jaxtyping import Float, Shaped

from wsr.data.dataset import AnySplit
from wsr.engine.region_features import region_features
from wsr.engine.settings import Precision, Settings
from wsr.region.region import Region
from wsr.runtime.hosts import Deal, agree, deal, exchange
from wsr.store.results import Results
from wsr.types import AnyArray

Score = Callable[[Mapping[str, Float[AnyArray, "chunk _ _"]]], Mapping[str, Shaped[np.ndarray, "chunk texts"]]]
"""From the features of some points, by split, to the arrays that are kept of each point."""


def score_points(
    region: Region,
    coefficients: Float[np.ndarray, "points members"],
    keys: Sequence[str],
    splits: Mapping[str, AnySplit],
    score: Score,
    *,
    settings: Settings,
    note: str,
) -> dict[str, Shaped[np.ndarray, "points texts"]]:
    """Returns what ``score`` makes of the features of each point's texts, and keeps it under the point's key.

    Only points that are not kept already are encoded.

    Args:
      region: the population.
      coefficients: the points, over the region's members.
      keys: names the result of each point, see ``key_of``.
      splits: the texts to encode, by name.
      score: may return fewer points than it is given features of: the last chunk is filled up with copies.
      settings: how the engine works; its results are where points are kept.
      note: shown beside the progress.
    """
    results = settings.results or Results.in_memory()
    work = _missing(keys, results, settings)
    settings.advance(len(keys) - work.missing, note)
    left = work.missing
    for numbers, features in region_features(region, coefficients[work.points], splits, settings=work.settings):
        if work.share.keeps:
            _keep(results, [keys[work.points[number]] for number in numbers], score(features))
        done = min(left, len(numbers) * work.share.groups)  # the other processes are about as far
        settings.advance(done, note)
        left -= done
    if settings.mesh is None:
        _tell_others(results, [keys[number] for number in work.points] if work.share.keeps else [])
    settings.advance(left, note)
    kept = [results.get(key) for key in keys]
    return {name: np.stack([point[name] for point in kept]) for name in kept[0]}


def key_of(region: Region, row: Float[np.ndarray, " members"], what: Mapping[str, object], precision: Precision) -> str:
    """Names what is kept of a point: ``what`` says which of its results that is."""
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
    if precision != "float32":
        whole["precision"] = precision
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class _Missing:
    """The points that are not kept yet, and those of them that are this process's."""

    missing: int
    """Over all processes."""
    points: list[int]
    """This process's, as numbers of all points."""
    share: Deal
    settings: Settings
    """With the mesh, the chunk and the budget that all processes go by."""


def _missing(keys: Sequence[str], results: Results, settings: Settings) -> _Missing:
    missing = [number for number, key in enumerate(keys) if key not in results]
    if settings.mesh is None:
        missing, chunk, budget = agree(keys, missing, settings.chunk, settings.memory_budget_gib)
        settings = replace(settings, chunk=chunk, memory_budget_gib=budget)
    share = deal(len(missing), settings.mesh)
    own = [missing[number] for number in share.points]
    return _Missing(len(missing), own, share, replace(settings, mesh=share.mesh))


def _keep(results: Results, keys: Sequence[str], arrays: Mapping[str, Shaped[np.ndarray, "chunk texts"]]) -> None:
    for at, key in enumerate(keys):
        results.put(key, **{name: values[at] for name, values in arrays.items()})


def _tell_others(results: Results, keys: Sequence[str]) -> None:
    """Lets all processes know the points that each has evaluated, whatever their file system shows yet."""
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
