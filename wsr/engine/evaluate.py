"""Exact evaluation: the generalised loss of each point of a region on a dataset.

The generalised loss of a point is the test loss of a fresh linear classifier on its frozen encoder: the classifier is
fitted on the probe split of the target dataset and its loss is measured on the test split. No member was trained on
either split.
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
"""Arrays saved for each evaluated point."""


@dataclass(frozen=True)
class Protocol:
    """The classifier that measures the features of a point.

    Example:
      >>> import wsr
      >>> wsr.Protocol(inverse_l2=0.1)
      Protocol(probe='linear', inverse_l2=0.1)
    """

    probe: str = "linear"
    """Name of the classifier, one of ``wsr.engine.probe.PROBES``."""
    inverse_l2: float = 1.0
    """Inverse of the linear probe's L2 penalty, ``C`` in scikit-learn."""


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """Losses and predictions of some points on one dataset.

    Example:
      >>> import numpy as np, wsr
      >>> region = wsr.made_up_region(2)
      >>> data = wsr.load_dataset("made_up_a1", wsr.load("tiny").processor, max_length=48)
      >>> members = wsr.evaluate(region, np.eye(2), data)
      >>> members.generalised_loss.shape, members.losses.shape
      ((2,), (2, 60))
      >>> list(members.to_frame().columns)
      ['generalised_loss', 'accuracy', 'how', 'm0', 'm1']
    """

    region: Region
    """The population."""
    coefficients: Float[np.ndarray, "points members"]
    """One row per point."""
    dataset: Dataset
    """The target dataset."""
    losses: Float[np.ndarray, "points texts"]
    """Loss of each test text: cross-entropy in nats, or squared error for regression."""
    predictions: Shaped[np.ndarray, "points texts"]
    """Predicted class of each test text, or predicted value for regression."""
    how: tuple[str, ...]
    """How each point was scored: ``exact``, or by a surrogate with its degree and error."""

    @property
    def generalised_loss(self) -> Float[np.ndarray, " points"]:
        """Mean test loss of each point."""
        return self.losses.mean(axis=1)

    @property
    def scores(self) -> Float[np.ndarray, " points"]:
        """Score of each point in the dataset's own metric."""
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
        """Returns a table with one row per point: loss, score, how it was scored, and one coefficient per member."""
        import pandas

        scores = {"generalised_loss": self.generalised_loss, self.dataset.metric: self.scores, "how": self.how}
        return pandas.DataFrame(scores | dict(zip(self.region.names, self.coefficients.T, strict=True)))

    def rows(self, group: str, **more: Any) -> list[Row]:
        """Returns one row per point and metric as in ``results.jsonl``, which stores coefficients and no weights.

        Args:
          group: name of the group of points.
          more: further entries of each row.
        """
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
    """Evaluates points of a region on a dataset exactly, by forward passes over its texts.

    Args:
      region: the population.
      coefficients: one point or one row per point; one column per member, in the order of ``region.members``.
      dataset: the target dataset; its probe and test splits are used.
      protocol: the classifier that is fitted to each point's features.
      settings: chunk size, memory, devices, precision and cache of results.

    Example:
      >>> import wsr
      >>> region = wsr.made_up_region()
      >>> data = wsr.load_dataset("made_up_a2", wsr.load("tiny").processor, max_length=48)
      >>> evaluation = wsr.evaluate(region, region.centroid(), data)
      >>> evaluation.generalised_loss.shape, evaluation.losses.shape
      ((1,), (1, 60))
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
    """Fits a probe to each point's features and returns its test losses and predictions.

    Args:
      features: features of the texts of the ``probe`` and the ``test`` split.
      dataset: the labels of both splits.
      protocol: the classifier.

    Returns:
      Losses and predictions, each of shape ``[points, texts]``.
    """
    result = fit_on(features, dataset, protocol)
    return np.asarray(result.losses), np.asarray(result.predictions)


def fit_on(
    features: Mapping[str, Float[AnyArray, "points _ hidden"]], dataset: Dataset, protocol: Protocol
) -> ProbeResult:
    """Fits the protocol's probe to each point's features.

    Args:
      features: features of the texts of the ``probe`` and the ``test`` split.
      dataset: the labels of both splits.
      protocol: the classifier.

    Returns:
      Test losses, predictions and fitted heads.
    """
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
    """Returns the key of a point's result: a hash of everything that determines it, so equal requests share a result.

    Args:
      region: the population.
      row: coefficients of the point.
      dataset: the target dataset.
      protocol: the classifier.
      precision: precision of the encoder.
    """
    what: dict[str, object] = {"dataset": dataset.content_hash, "probe": [protocol.probe, protocol.inverse_l2]}
    return key_of(region, row, what, precision)
