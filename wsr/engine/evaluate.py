"""The engine: coefficients in, one result a point out.

A point is scored by its generalised loss: its encoder is frozen, a fresh linear classifier is fitted on the probe split
of the target dataset, and the loss is taken on the test split. Neither split was seen by any member.
"""

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Shaped

from wsr.data.dataset import AnySplit, Dataset
from wsr.data.metrics import score
from wsr.engine.probe import PROBES, ProbeResult
from wsr.engine.region_features import Precision, region_features
from wsr.region.region import Region
from wsr.runtime.hosts import agree, deal, exchange
from wsr.runtime.progress import Counter
from wsr.store.results import Points
from wsr.types import AnyArray

EXACT = "exact"
KEPT = ("losses", "predictions")
"""Arrays that are kept of a point that was probed."""


@dataclass(frozen=True)
class Protocol:
    """How points are scored."""

    probe: str = "linear"
    """Which classifier is fitted, a name in ``wsr.engine.probe.PROBES``."""
    inverse_l2: float = 1.0
    """scikit-learn's ``C`` of the linear probe."""
    rows: int = 16
    """Packed rows a forward pass reads, about; more on an accelerator that few points leave idle."""
    row_length: int = 64
    """Tokens in a row; longer texts make longer rows."""
    precision: Precision = "float32"
    """What the encoder computes in; bfloat16 is faster on accelerators, at a small error of the losses."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of some points on one dataset."""

    region: Region
    coefficients: Float[np.ndarray, "points members"]
    dataset: Dataset
    losses: Float[np.ndarray, "points texts"]
    """Loss of each test text: cross-entropy in nats, or the squared error for regression."""
    predictions: Shaped[np.ndarray, "points texts"]
    how: tuple[str, ...]
    """How each point was obtained."""

    @property
    def generalised_loss(self) -> Float[np.ndarray, " points"]:
        """Mean test loss of each point."""
        return self.losses.mean(axis=1)

    @property
    def scores(self) -> Float[np.ndarray, " points"]:
        """The dataset's own metric of each point."""
        labels = self.dataset.splits["test"].labels
        return np.array([score(self.dataset.metric, labels, own) for own in self.predictions])

    def rows(self, group: str, **more: str | float) -> list[dict]:
        """One row a point and metric, as ``results.jsonl`` keeps them: coefficients, never weights."""
        values = {"generalised_loss": self.generalised_loss, self.dataset.metric: self.scores}
        return [
            {
                **more,
                "group": group,
                "members": [self.region.names[k] for k in np.flatnonzero(row)],
                "coefficients": [float(row[k]) for k in np.flatnonzero(row)],
                "dataset": self.dataset.name,
                "metric": metric,
                # JSON has no NaN, which a correlation with constant predictions is.
                "value": float(of_points[point]) if np.isfinite(of_points[point]) else None,
                "n": self.losses.shape[1],
                "how": self.how[point],
            }
            for point, row in enumerate(self.coefficients)
            for metric, of_points in values.items()
        ]


def evaluate(
    region: Region,
    coefficients: Float[np.ndarray, "points members"],
    dataset: Dataset,
    *,
    protocol: Protocol = Protocol(),
    points: Points | None = None,
    chunk: int | None = None,
    memory_budget_gib: float | None = None,
    mesh: Mesh | None = None,
    counter: Counter | None = None,
) -> Evaluation:
    """Scores points of a region on a dataset, exactly: each by forward passes over the texts.

    Args:
      region: the population.
      coefficients: the points, over the region's members.
      dataset: the target; its probe and test splits are used.
      protocol: how points are scored.
      points: where finished points are kept; those already there are not evaluated again.
      chunk: points on each device at the same time; None: chosen for the device.
      memory_budget_gib: of each device; None: most of what it has.
      mesh: devices by points and texts, see ``wsr.runtime.devices``; None: all accelerators, or one CPU; or, of several
        processes (``wsr.runtime.hosts``), all devices: each evaluates and keeps its share, and all return all points.
      counter: advanced by one a point.
    """
    kept = score_points(
        region,
        coefficients,
        [point_key(region, row, dataset, protocol) for row in coefficients],
        {split: dataset.splits[split] for split in ("probe", "test")},
        lambda features: dict(zip(KEPT, score_features(features, dataset, protocol), strict=True)),
        protocol=protocol,
        points=points,
        chunk=chunk,
        memory_budget_gib=memory_budget_gib,
        mesh=mesh,
        counter=counter,
        note=dataset.name,
    )
    losses, predictions = (kept[name] for name in KEPT)
    return Evaluation(region, np.asarray(coefficients), dataset, losses, predictions, (EXACT,) * len(losses))


def score_points(
    region: Region,
    coefficients: Float[np.ndarray, "points members"],
    keys: Sequence[str],
    splits: Mapping[str, AnySplit],
    score: Callable[[Mapping[str, Float[AnyArray, "chunk _ _"]]], Mapping[str, Shaped[np.ndarray, "chunk texts"]]],
    *,
    protocol: Protocol,
    points: Points | None,
    chunk: int | None,
    memory_budget_gib: float | None,
    mesh: Mesh | None,
    counter: Counter | None,
    note: str,
) -> dict[str, Shaped[np.ndarray, "points texts"]]:
    """Returns what ``score`` makes of the features of each point's texts; it is kept in ``points`` under ``keys``.

    Only points that are not kept already are encoded. The other arguments are those of ``evaluate``; ``note`` is for
    the counter.
    """
    points = points or Points.in_memory()
    missing = [number for number, key in enumerate(keys) if key not in points]
    if mesh is None:
        missing, chunk, memory_budget_gib = agree(keys, missing, chunk, memory_budget_gib)
    share = deal(len(missing), mesh)
    own = [missing[number] for number in share.points]
    if counter:
        counter.advance(len(keys) - len(missing))
    left = len(missing)
    for numbers, features in region_features(
        region,
        coefficients[own],
        splits,
        rows=protocol.rows,
        row_length=protocol.row_length,
        chunk=chunk,
        memory_budget_gib=memory_budget_gib,
        mesh=share.mesh,
        precision=protocol.precision,
    ):
        if share.keeps:
            scores = score(features)
            for at, number in enumerate(numbers):
                points.put(keys[own[number]], **{name: values[at] for name, values in scores.items()})
        if counter:
            done = min(left, len(numbers) * share.groups)  # the others are about as far
            counter.advance(done, note=note)
            left -= done
    if mesh is None:
        _tell_others(points, [keys[number] for number in own] if share.keeps else [])
    if counter:
        counter.advance(left, note=note)
    kept = [points.get(key) for key in keys]
    return {name: np.stack([point[name] for point in kept]) for name in kept[0]}


def _tell_others(points: Points, keys: Sequence[str]) -> None:
    """Lets all processes know the points that each has evaluated, whatever their file system shows yet."""
    if jax.process_count() == 1:
        return
    own = io.BytesIO()
    if keys:
        values = [points.get(key) for key in keys]
        arrays = {name: np.stack([point[name] for point in values]) for name in values[0]}
        np.savez(own, allow_pickle=False, keys=np.array(keys), **arrays)
    for content in exchange(own.getvalue()):
        if content:
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                arrays = dict(archive)
            for at, key in enumerate(arrays.pop("keys").tolist()):
                points.remember(key, **{name: values[at] for name, values in arrays.items()})


def score_features(
    features: Mapping[str, Float[AnyArray, "points _ hidden"]], dataset: Dataset, protocol: Protocol
) -> tuple[Float[np.ndarray, "points texts"], Shaped[np.ndarray, "points texts"]]:
    """Returns test losses and predictions of points whose features of the probe and test split are known."""
    result = fit_on(features, dataset, protocol)
    return np.asarray(result.losses), np.asarray(result.predictions)


def fit_on(
    features: Mapping[str, Float[AnyArray, "points _ hidden"]], dataset: Dataset, protocol: Protocol
) -> ProbeResult:
    """Fits the protocol's probe to each point whose features of the probe and test split are known."""
    return PROBES[protocol.probe](
        features["probe"],
        dataset.splits["probe"].labels,
        features["test"],
        dataset.splits["test"].labels,
        classes=dataset.classes,
        **({"inverse_l2": protocol.inverse_l2} if protocol.probe == "linear" else {}),
    )


def point_key(region: Region, row: Float[np.ndarray, " members"], dataset: Dataset, protocol: Protocol) -> str:
    """Names a result by all that determines it: two requests for the same point share it."""
    what: dict[str, object] = {"dataset": dataset.content_hash, "probe": [protocol.probe, protocol.inverse_l2]}
    return key_of(region, row, what, protocol.precision)


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
