"""The best starting point for new data among a population's base, members and centroids.

All labelled texts are used: for each fold in turn, the probe is fitted on the other folds and its loss is measured on
this one. Starts are compared by their generalised loss, which measures how well a linear classifier does on their
features, and not by the loss after fine-tuning from them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int, Shaped

from wsr.data.dataset import AnySplit, Dataset, joined
from wsr.data.metrics import score
from wsr.engine.evaluate import KEPT, Protocol, point_key, score_features
from wsr.engine.scoring import score_points
from wsr.engine.settings import Settings
from wsr.errors import WsrError
from wsr.geometry.sampling import centroid, corners
from wsr.region.region import Region
from wsr.runtime import seeds
from wsr.runtime.progress import progress
from wsr.types import AnyArray

if TYPE_CHECKING:
    import pandas

FOLDS = 5
"""Folds of the cross-fitting."""
FEWEST_TEXTS = 20
"""Fewest texts for a suggestion."""
MANY = 24
"""With more starts than this, a first round on a quarter of the texts drops those that are clearly worse."""
FEWEST_OF_ROUND = 50
"""Fewest texts for that first round."""
RESAMPLES = 1000
"""Bootstrap resamples."""
ROUNDING = 1e-4
"""Two starts whose losses differ by less are the same up to rounding, however often one is ahead."""

Losses = Float[np.ndarray, "starts texts"]


@dataclass(frozen=True, eq=False)
class Start:
    """A point to start fine-tuning from."""

    name: str
    """Name, such as ``base`` or ``centroid of all members``."""
    coefficients: Float[np.ndarray, " members"]
    """One coefficient per member."""


@dataclass(frozen=True)
class ScoredStart:
    """A start with its loss and an interval of how far it lies above the truly best start."""

    start: Start
    """The start."""
    loss: float
    """Generalised loss: cross-entropy in nats, or squared error for regression."""
    metric: float
    """Score in the dataset's own metric."""
    worse: float
    """Loss minus the lowest loss."""
    low: float
    """Lower end of the confidence interval of the true loss above that of the truly best start; 0 if it may be the best
    itself."""
    high: float
    """Upper end of the interval; the intervals of all starts hold together. That of the start with the lowest loss is 0
    only if it is surely the best."""

    @property
    def named(self) -> bool:
        """Whether the start may be the truly best."""
        return self.low <= 0 or self.worse < ROUNDING


@dataclass(frozen=True)
class Suggestion:
    """All starts with their losses, the best first."""

    scored: tuple[ScoredStart, ...]
    """The starts, by rising loss."""
    texts: int
    """Number of texts used."""
    confidence: float
    """Confidence that all intervals hold; then the truly best start is among those named."""
    dropped: tuple[str, ...]
    """Names of the starts that the first round dropped as clearly worse."""

    def to_frame(self) -> "pandas.DataFrame":
        """Returns a table with one row per start, the best first."""
        import pandas

        names = ("start", "probe_loss", "metric", "worse", "low", "high", "named")
        rows = [(own.start.name, own.loss, own.metric, own.worse, own.low, own.high, own.named) for own in self.scored]
        return pandas.DataFrame(rows, columns=list(names))

    @property
    def best(self) -> ScoredStart:
        """The start with the lowest loss."""
        return self.scored[0]

    @property
    def named(self) -> list[ScoredStart]:
        """The starts that may be the best; the truly best is one of them with the given confidence."""
        return [own for own in self.scored if own.named]


def starts(region: Region) -> list[Start]:
    """Returns the base, the members, and the centroids of all members, of each dataset and of each family.

    Args:
      region: the population.

    Example:
      >>> import wsr
      >>> from wsr.engine.suggest import starts
      >>> [start.name for start in starts(wsr.made_up_region(2))]
      ['base', 'm0', 'm1', 'centroid of all members']
    """
    found = [Start("base", np.zeros(len(region)))]
    found += [Start(name, row) for name, row in zip(region.names, corners(len(region)), strict=True)]
    groups = [("all members", [*range(len(region))])]
    for level, labels in (("dataset", region.datasets), ("family", region.families)):
        for label in dict.fromkeys(labels):
            groups.append((f"{level} {label}", [k for k, own in enumerate(labels) if own == label]))
    seen: set[tuple[int, ...]] = set()
    for name, members in groups:
        if len(members) > 1 and tuple(members) not in seen:
            seen.add(tuple(members))
            found.append(Start(f"centroid of {name}", centroid(len(region), members)[0]))
    return found


def suggest(
    region: Region,
    dataset: Dataset,
    *,
    texts: int = 400,
    confidence: float = 0.95,
    protocol: Protocol = Protocol(),
    settings: Settings = Settings(),
    seed: int = 0,
) -> Suggestion:
    """Scores every start of a region on a dataset and names those that may be the best.

    Args:
      region: the population; no member may have been trained on the dataset.
      dataset: the target dataset; all of its splits are used.
      texts: largest number of texts to use.
      confidence: probability that all intervals hold, and so that the truly best start is among those named.
      protocol: the classifier that is fitted to each start's features.
      settings: chunk size, memory, devices, precision and cache of results.
      seed: seed of the choice of texts, the folds and the bootstrap.

    Returns:
      All starts, the best first.

    Raises:
      WsrError: if the dataset has too few texts or only one label.

    Example:
      >>> import wsr
      >>> data = wsr.load_dataset("made_up_a1", wsr.load("tiny").processor, max_length=48)
      >>> suggestion = wsr.suggest(wsr.made_up_region(2), data, texts=60)
      scoring starts on made_up_a1: ...
      >>> len(suggestion.scored), suggestion.texts, suggestion.best.named
      (4, 60, True)
    """
    draw = seeds.generator(seed, "suggest", dataset.name)
    chosen = labelled(dataset, texts, draw)
    left, dropped = starts(region), []
    sizes = [len(chosen)]
    if len(left) > MANY and len(chosen) // 4 >= FEWEST_OF_ROUND:
        sizes.insert(0, len(chosen) // 4)
    for size in sizes:
        part = chosen.take(np.arange(size))
        rows = np.stack([start.coefficients for start in left])
        losses, predictions = cross_fitted(region, rows, dataset, part, protocol, settings)
        # The error probability is divided among the rounds (Bonferroni).
        worse, low, high = against_the_best(losses, 1 - (1 - confidence) / len(sizes), draw)
        if size < len(chosen):
            dropped = [start.name for start, end in zip(left, low, strict=True) if end > 0]
            left = [start for start, end in zip(left, low, strict=True) if end <= 0]
    scored = [
        ScoredStart(
            left[k],
            float(losses[k].mean()),
            score(dataset.metric, chosen.labels, predictions[k]),
            float(worse[k]),
            float(low[k]),
            float(high[k]),
        )
        for k in np.argsort(losses.mean(axis=1), kind="stable")
    ]
    return Suggestion(tuple(scored), len(chosen), confidence, tuple(dropped))


def against_the_best(
    losses: Losses, confidence: float, generator: np.random.Generator
) -> tuple[Float[np.ndarray, " starts"], Float[np.ndarray, " starts"], Float[np.ndarray, " starts"]]:
    """Compares all starts with the best.

    Returns each start's mean loss above the lowest mean, and intervals of its true loss above that of the truly best
    start, which need not be the one with the lowest mean. With the given confidence all intervals hold together.

    Every start is a candidate for the truly best. For each candidate, the differences of all others from it get
    intervals that hold together (bootstrap of the largest difference in standard errors, drawing texts). A candidate
    that some start surely beats is dropped; an interval here spans those from the candidates that are left (multiple
    comparisons with the best, Edwards and Hsu 1983). benchmarks/coverage.py simulates how often they hold. So the lower
    end is 0 for every start that may be the best, and the upper end of the start with the lowest mean says how much its
    luck may have hidden.

    Args:
      losses: loss of each text under each start.
      confidence: confidence of all intervals together.
      generator: draws the resamples.

    Returns:
      The differences, and the lower and upper ends of their intervals, each of shape ``[starts]``.
    """
    from threadpoolctl import threadpool_limits

    losses = np.asarray(losses, np.float64)
    means, texts = losses.mean(axis=1), losses.shape[1]
    # Ten times as fast as a multinomial draw.
    drawn = generator.integers(texts, size=(RESAMPLES, texts))
    shares = np.stack([np.bincount(own, minlength=texts) for own in drawn]) / texts
    candidates, from_candidate, widths = [], [], []
    with threadpool_limits(1, user_api="blas"):  # on matrices this small, threads wait for each other
        for number, own in enumerate(losses):
            differences = losses - own
            above, error = means - means[number], differences.std(axis=1) / np.sqrt(texts)
            others = np.flatnonzero(error > 0)
            width = np.zeros(len(losses))
            if len(others):
                moved = shares @ np.ascontiguousarray(differences[others].T)  # [resamples, others]
                furthest = (np.abs(moved - above[others]) / error[others]).max(axis=1)
                width[others] = np.quantile(furthest, confidence) * error[others]
            if (above + width >= 0).all():
                candidates.append(number)
                from_candidate.append(above)
                widths.append(width)
    above, width = np.stack(from_candidate), np.stack(widths)
    low = np.maximum((above - width).min(axis=0), 0)
    low[candidates] = 0
    return means - means.min(), low, (above + width).max(axis=0)


def labelled(dataset: Dataset, most: int, generator: np.random.Generator) -> AnySplit:
    """Returns texts from all splits of a dataset, ordered so that every fold has the same mix of labels.

    A text that occurs twice is taken once. A class with a single text is left out, because no fold could both learn it
    and test it.

    Args:
      dataset: the dataset.
      most: largest number of texts.
      generator: draws the texts.

    Raises:
      WsrError: if there are fewer than ``FEWEST_TEXTS`` texts or only one label.
    """
    whole = joined([dataset.splits[name] for name in dataset.splits])
    order = generator.permutation(len(whole))
    seen: dict[bytes, int] = {}
    for text in order.tolist():
        seen.setdefault(whole.content(text), text)
    kept = np.array(list(seen.values()))[:most]
    if not dataset.regression:
        kept = kept[np.bincount(whole.labels[kept], minlength=dataset.classes)[whole.labels[kept]] > 1]
    distinct = np.unique(whole.labels[kept])
    if len(kept) < FEWEST_TEXTS or len(distinct) < 2:
        raise WsrError(
            f"{dataset.name}: {len(kept)} different texts with {len(distinct)} labels are too few to compare starts; "
            f"give at least {FEWEST_TEXTS} texts and two labels, better a few hundred texts"
        )
    return whole.take(_dealt(whole.labels[kept], kept))


def cross_fitted(
    region: Region,
    coefficients: Float[np.ndarray, "points members"],
    dataset: Dataset,
    texts: AnySplit,
    protocol: Protocol,
    settings: Settings = Settings(),
) -> tuple[Float[np.ndarray, "points texts"], Shaped[np.ndarray, "points texts"]]:
    """Returns the loss and the prediction of each text by a probe that was fitted without the text's fold.

    Args:
      region: the population.
      coefficients: one row per point, one column per member.
      dataset: number of classes and metric.
      texts: the texts; text i belongs to fold ``i % FOLDS``.
      protocol: the classifier.
      settings: chunk size, memory, devices, precision and cache of results.

    Returns:
      Losses and predictions, each of shape ``[points, texts]``.
    """
    held = dataset.with_split("test", texts)
    names = [point_key(region, row, held, protocol, settings.precision) for row in coefficients]

    def score_all(features: Mapping[str, Float[AnyArray, "chunk _ _"]]) -> dict[str, Shaped[np.ndarray, "chunk texts"]]:
        return dict(zip(KEPT, fitted_across(np.asarray(features["all"]), texts, dataset, protocol), strict=True))

    with progress(f"scoring starts on {dataset.name}", len(names), "starts") as counter:
        kept = score_points(
            region,
            coefficients,
            [f"{name}-fitted-across-{FOLDS}" for name in names],
            {"all": texts},
            score_all,
            settings=replace(settings, counter=settings.counter or counter),
            note=dataset.name,
        )
    return kept["losses"], kept["predictions"]


def fitted_across(
    features: Float[np.ndarray, "points texts hidden"], texts: AnySplit, dataset: Dataset, protocol: Protocol
) -> tuple[Float[np.ndarray, "points texts"], Shaped[np.ndarray, "points texts"]]:
    """Fits a probe without each fold in turn and returns the losses and predictions on the left-out folds.

    Args:
      features: features of the texts under each point.
      texts: the texts; text i belongs to fold ``i % FOLDS``.
      dataset: number of classes.
      protocol: the classifier.

    Returns:
      Losses and predictions, each of shape ``[points, texts]``.
    """
    fold = np.arange(len(texts)) % FOLDS
    losses = np.empty(features.shape[:2], np.float32)
    predictions = np.empty(features.shape[:2], texts.labels.dtype)
    for number in range(FOLDS):
        inside, outside = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        split = dataset.with_split("probe", texts.take(outside)).with_split("test", texts.take(inside))
        own = {"probe": features[:, outside], "test": features[:, inside]}
        losses[:, inside], predictions[:, inside] = score_features(own, split, protocol)
    return losses, predictions


def _dealt(labels: Shaped[np.ndarray, " texts"], numbers: Int[np.ndarray, " texts"]) -> Int[np.ndarray, " texts"]:
    """Orders texts so that text i belongs to fold ``i % FOLDS`` and every fold has the same mix of labels."""
    by_label = numbers[np.argsort(labels, kind="stable")]
    runs = [by_label[first : first + FOLDS] for first in range(0, len(by_label), FOLDS)]
    # Shuffled, so that the first quarter has all labels; the last run may be shorter than the others.
    order = np.random.default_rng(0).permutation(len(runs) - 1)
    return np.concatenate([*(runs[at] for at in order), runs[-1]])
