"""The engine: coefficients in, one result a point out.

A point is scored by its generalised loss: its encoder is frozen, a fresh linear classifier is fitted on the probe split
of the target dataset, and the loss is taken on the test split. Neither split was seen by any member.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Shaped

from wsr.data.dataset import Dataset
from wsr.data.metrics import score
from wsr.engine.probe import PROBES, ProbeResult
from wsr.engine.scoring import key_of, score_points
from wsr.engine.settings import Precision, Settings
from wsr.region.region import Region
from wsr.store.row import Row, result_row
from wsr.types import AnyArray

if TYPE_CHECKING:
    import pandas

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


@dataclass(frozen=True, eq=False, repr=False)
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

    def __repr__(self) -> str:
        losses = self.generalised_loss
        best, exact = int(losses.argmin()), sum(how == EXACT for how in self.how)
        return (
            f"{type(self).__name__} of {len(losses)} points on {self.dataset.name}, {self.losses.shape[1]} texts: "
            f"generalised loss {losses.min():.4f} to {losses.max():.4f}\n"
            f"  best point {best}: {self.dataset.metric} {self.scores[best]:.4f}; {exact} points exact"
        )

    def _repr_html_(self) -> str:
        return self.to_frame()._repr_html_()

    def to_frame(self) -> "pandas.DataFrame":
        """One row a point: its loss, its score, how it was obtained, and its coefficients by member."""
        import pandas

        scores = {"generalised_loss": self.generalised_loss, self.dataset.metric: self.scores, "how": self.how}
        return pandas.DataFrame(scores | dict(zip(self.region.names, self.coefficients.T, strict=True)))

    def rows(self, group: str, **more: Any) -> list[Row]:
        """One row a point and metric, as ``results.jsonl`` keeps them: coefficients, never weights."""
        values = {"generalised_loss": self.generalised_loss, self.dataset.metric: self.scores}
        return [
            result_row(
                group,
                self.dataset.name,
                metric,
                of_points[point],
                texts=self.losses.shape[1],
                how=self.how[point],
                members=self.region.names,
                coefficients=row,
                **more,
            )
            for point, row in enumerate(self.coefficients)
            for metric, of_points in values.items()
        ]


def evaluate(
    region: Region,
    coefficients: Float[np.ndarray, "*points members"],
    dataset: Dataset,
    *,
    protocol: Protocol = Protocol(),
    settings: Settings = Settings(),
) -> Evaluation:
    """Scores points of a region on a dataset, exactly: each by forward passes over the texts.

    Args:
      region: the population.
      coefficients: one point, or a row for each point, over the region's members.
      dataset: the target; its probe and test splits are used.
      protocol: how points are scored.
      settings: how the engine works.

    Example:
      >>> import wsr
      >>> region = wsr.made_up_region()
      >>> data = wsr.load_dataset("made_up_a2", wsr.load("tiny").processor, max_length=48)
      >>> scores = wsr.evaluate(region, region.centroid(), data)
      >>> scores.generalised_loss.shape, scores.losses.shape
      ((1,), (1, 200))
    """
    coefficients = np.atleast_2d(coefficients)
    kept = score_points(
        region,
        coefficients,
        [point_key(region, row, dataset, protocol, settings.precision) for row in coefficients],
        {split: dataset.splits[split] for split in ("probe", "test")},
        lambda features: dict(zip(KEPT, score_features(features, dataset, protocol), strict=True)),
        settings=settings,
        note=dataset.name,
    )
    losses, predictions = (kept[name] for name in KEPT)
    return Evaluation(region, coefficients, dataset, losses, predictions, (EXACT,) * len(losses))


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


def point_key(
    region: Region, row: Float[np.ndarray, " members"], dataset: Dataset, protocol: Protocol, precision: Precision
) -> str:
    """Names a result by all that determines it: two requests for the same point share it."""
    what: dict[str, object] = {"dataset": dataset.content_hash, "probe": [protocol.probe, protocol.inverse_l2]}
    return key_of(region, row, what, precision)
