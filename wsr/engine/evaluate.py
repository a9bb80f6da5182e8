"""Exact evaluation: the generalised loss of each point of a region on a dataset.

The generalised loss of a point is the test loss of a fresh linear classifier on its frozen encoder: the classifier is
fitted on the probe split of the target dataset and its loss is measured on the test split. No member was trained on
either split. With several draws, the probe split is cut into disjoint parts and a classifier is fitted on each, so that
the spread over probe texts can be measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from wsr.data.dataset import Dataset
from wsr.data.metrics import score
from wsr.engine.cross_validation import FOLDS, GRID, MARGIN, dealt
from wsr.engine.point_rows import PointRows
from wsr.engine.probe import PROBES, ProbeResult
from wsr.engine.scoring import key_of, score_points
from wsr.engine.settings import Precision, Settings, is_count, is_positive
from wsr.errors import WsrError
from wsr.region.exposure import Exposure, exposure
from wsr.region.region import Region
from wsr.types import AnyArray

EXACT = "exact"
KEPT = ("losses", "predictions")
"""Names under which losses and predictions of a point are saved."""


@dataclass(frozen=True)
class Protocol:
    """The classifier that measures the features of a point.

    Raises:
      WsrError: if a field has an invalid value; the message names the field.

    Example:
      >>> import wsr
      >>> wsr.Protocol().told
      'linear probe, C by 5-fold cross-validation on standardised features'
      >>> wsr.Protocol(inverse_l2=0.1).told
      'linear probe, C = 0.1'
    """

    probe: str = "linear"
    """Name of the classifier, one of ``wsr.engine.probe.PROBES``."""
    inverse_l2: float | None = None
    """Inverse of the linear probe's L2 penalty, ``C`` in scikit-learn, on the features as they are; None: chosen for
    each point by cross-validation inside the probe split, on standardised features."""
    draws: int = 1
    """Number of disjoint parts of the probe split; a classifier is fitted on each."""

    def __post_init__(self) -> None:
        """Checks every field."""
        if self.probe not in PROBES:
            raise WsrError(f"protocol: probe is one of {', '.join(PROBES)}, found {self.probe!r}")
        if self.inverse_l2 is not None and not is_positive(self.inverse_l2):
            raise WsrError(f"protocol: inverse_l2: expected a number above 0, found {self.inverse_l2!r}")
        if not is_count(self.draws):
            raise WsrError(f"protocol: draws: expected a whole number, at least 1, found {self.draws!r}")

    @property
    def told(self) -> str:
        """The classifier in words, as rows of results say it."""
        told = self.probe
        if self.probe == "linear":
            chosen = f"by {FOLDS}-fold cross-validation on standardised features"
            told = f"linear probe, C {chosen if self.inverse_l2 is None else f'= {self.inverse_l2:g}'}"
        return told if self.draws == 1 else f"{told}, mean of {self.draws} draws of probe texts"

    @property
    def identity(self) -> list[object]:
        """Everything that a result depends on, for its key."""
        penalty: list[object] = ["raw", self.inverse_l2]
        if self.inverse_l2 is None:
            penalty = ["standardised", FOLDS, MARGIN, *GRID]
        return [self.probe, *(penalty if self.probe == "linear" else []), self.draws]


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(PointRows):
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
    losses_by_draw: Float[np.ndarray, "draws points texts"]
    """Loss of each test text under the probe of each draw: cross-entropy in nats, or squared error for regression."""
    predictions_by_draw: Shaped[np.ndarray, "draws points texts"]
    """Predicted class of each test text, or predicted value for regression."""
    how: tuple[str, ...]
    """How each point was scored: ``exact``, or by a surrogate with its degree and error."""
    protocol: Protocol = Protocol()
    """The classifier."""
    inverse_l2: Float[np.ndarray, "draws points"] | None = None
    """Inverse of the L2 penalty of each probe, if all points are exact; NaN for a probe without one."""
    converged: Bool[np.ndarray, "draws points"] | None = None
    """Whether each probe reached its optimum, if all points are exact."""

    @property
    def losses(self) -> Float[np.ndarray, "points texts"]:
        """Loss of each test text, the mean over draws."""
        return self.losses_by_draw.mean(axis=0)

    @property
    def predictions(self) -> Shaped[np.ndarray, "points texts"]:
        """Predictions of the first draw's probe."""
        return self.predictions_by_draw[0]

    @property
    def generalised_loss(self) -> Float[np.ndarray, " points"]:
        """Mean test loss of each point."""
        return self.losses.mean(axis=1)

    @property
    def scores(self) -> Float[np.ndarray, " points"]:
        """Score of each point in the dataset's own metric, the mean over draws."""
        labels = self.dataset.splits["test"].labels
        return np.array(
            [[score(self.dataset.metric, labels, own) for own in draw] for draw in self.predictions_by_draw]
        ).mean(axis=0)

    @property
    def name(self) -> str:
        """Name of the dataset."""
        return self.dataset.name

    @property
    def by_text(self) -> Float[np.ndarray, "points texts"]:
        """Loss of each test text."""
        return self.losses

    @property
    def values(self) -> dict[str, Float[np.ndarray, " points"]]:
        """Loss and score of each point, by name."""
        return {"generalised_loss": self.generalised_loss, self.dataset.metric: self.scores}

    def __repr__(self) -> str:
        losses = self.generalised_loss
        best, exact = int(losses.argmin()), sum(how == EXACT for how in self.how)
        return (
            f"{type(self).__name__} of {len(losses)} points on {self.dataset.name}, {self.losses.shape[1]} texts: "
            f"generalised loss {losses.min():.4f} to {losses.max():.4f}\n"
            f"  best point {best}: {self.dataset.metric} {self.scores[best]:.4f}; {exact} points exact"
            + (f"; {self.penalties}" if self.penalties else "")
            + (f"\n  fine-tuned on scored texts: {self.exposure.leaks_told}" if self.exposure.leaks else "")
        )

    @cached_property
    def exposure(self) -> Exposure:
        """Which members of the region were fine-tuned on the scored texts: their losses, and those of points between
        them, are partly memory. The verbs of the command line leave such members out."""
        return exposure(self.region, self.dataset)

    @property
    def penalties(self) -> str:
        """The penalties that cross-validation chose, in words; empty if it chose none, or for points of a surrogate."""
        if self.inverse_l2 is None or self.protocol.inverse_l2 is not None or self.protocol.probe != "linear":
            return ""
        ends = np.isclose(self.inverse_l2[..., None], (GRID[0], GRID[-1])).any(axis=-1).sum()
        edge = f", {ends} at an end of the grid" if ends else ""
        least, most = (float(f"{end:.2g}") for end in (self.inverse_l2.min(), self.inverse_l2.max()))
        return f"C {least:g} to {most:g} in {self.inverse_l2.size} probes{edge}"

    def _repr_html_(self) -> str:
        return self.to_frame()._repr_html_()

    @property
    def told(self) -> dict[str, Any]:
        """What every row of results says: number of test texts, probe and draws."""
        return {"texts": self.losses.shape[1], "probe": self.protocol.told, "draws": len(self.losses_by_draw)}


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
        lambda features: _scores(fit_draws(features, dataset, protocol)),
        settings=settings,
        note=dataset.name,
    )
    by_draw = {name: np.moveaxis(values, 1, 0) for name, values in kept.items()}
    losses, predictions = (by_draw.pop(name) for name in KEPT)
    found = Evaluation(
        region, coefficients, dataset, losses, predictions, (EXACT,) * len(coefficients), protocol, **by_draw
    )
    if lost := int((~np.asarray(found.converged)).any(axis=0).sum()):
        print(
            f"{dataset.name}: the probes of {lost} of {len(coefficients)} points did not converge, so their losses are "
            "not exact" + ("; leave out inverse_l2, and features are standardised" if protocol.inverse_l2 else ""),
            flush=True,
        )
    return found


def score_features(
    features: Mapping[str, Float[AnyArray, "points _ hidden"]], dataset: Dataset, protocol: Protocol
) -> tuple[Float[np.ndarray, "points texts"], Shaped[np.ndarray, "points texts"]]:
    """Fits a probe to each point's features and returns its test losses and predictions.

    Args:
      features: features of the texts of the ``probe`` and the ``test`` split.
      dataset: the labels of both splits.
      protocol: the classifier.

    Returns:
      Losses (the mean over draws) and predictions (of the first draw), each of shape ``[points, texts]``.
    """
    kept = _scores(fit_draws(features, dataset, protocol))
    return kept["losses"].mean(axis=1), kept["predictions"][:, 0]


def fit_draws(
    features: Mapping[str, Float[AnyArray, "points _ hidden"]], dataset: Dataset, protocol: Protocol
) -> list[ProbeResult]:
    """Fits the protocol's probe to each point's features, once for each draw of probe texts.

    Args:
      features: features of the texts of the ``probe`` and the ``test`` split.
      dataset: the labels of both splits.
      protocol: the classifier.

    Returns:
      Test losses, predictions and fitted heads of each draw.
    """
    known, tested = (dataset.splits[split].labels for split in ("probe", "test"))
    options = {"inverse_l2": protocol.inverse_l2} if protocol.probe == "linear" else {}
    return [
        PROBES[protocol.probe](
            features["probe"][:, texts], known[texts], features["test"], tested, classes=dataset.classes, **options
        )
        for texts in probe_draws(known, protocol.draws)
    ]


def probe_draws(labels: Shaped[np.ndarray, " texts"], draws: int) -> Sequence[Shaped[np.ndarray, " _"] | slice]:
    """Returns the texts of each draw: disjoint parts of the probe split with the same mix of labels.

    The parts depend on the labels only, so all points have the same ones.

    Args:
      labels: labels of the probe split.
      draws: number of parts.

    Raises:
      WsrError: if there are fewer texts than parts.
    """
    if draws == 1:
        return [slice(None)]
    if len(labels) < draws:
        raise WsrError(f"probe: {len(labels)} texts cannot be cut into {draws} draws; give more probe texts")
    hand = dealt(labels, draws, "draws of probe texts")
    return [np.flatnonzero(hand == draw) for draw in range(draws)]


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
    what: dict[str, object] = {"dataset": dataset.content_hash, "probe": protocol.identity}
    return key_of(region, row, what, precision)


def _scores(results: Sequence[ProbeResult]) -> dict[str, Shaped[np.ndarray, "points draws ..."]]:
    """The arrays that are saved for each point."""
    names = (*KEPT, "inverse_l2", "converged")
    return {name: np.stack([np.asarray(getattr(result, name)) for result in results], axis=1) for name in names}
