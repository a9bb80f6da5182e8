"""Which point of a population is the best start for somebody's data, and which cannot be told from the best.

All labelled texts are used: the probe is fitted on all folds but one and the loss taken on that one, each fold in turn.
What is compared is the generalised loss of each start, that is how much a linear classifier finds in its features, and
not what fine-tuning from it would come to.
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
FEWEST_TEXTS = 20
MANY = 24
"""Starts from which a quarter of the texts first leaves out those that are clearly worse."""
FEWEST_OF_ROUND = 50
RESAMPLES = 2000

Losses = Float[np.ndarray, "starts texts"]


@dataclass(frozen=True, eq=False)
class Start:
    """A point to begin fine-tuning from."""

    name: str
    coefficients: Float[np.ndarray, " members"]


@dataclass(frozen=True)
class ScoredStart:
    """A start with its loss, and by how much it is worse than the best."""

    start: Start
    loss: float
    metric: float
    worse: float
    low: float
    high: float
    """Ends of the interval of ``worse``; those of all starts hold together."""

    @property
    def named(self) -> bool:
        """Whether it cannot be told from the best."""
        return self.low <= 0


@dataclass(frozen=True)
class Suggestion:
    """The starts, the best first."""

    scored: tuple[ScoredStart, ...]
    texts: int
    confidence: float
    dropped: tuple[str, ...]
    """Starts that a quarter of the texts showed to be worse."""

    def to_frame(self) -> "pandas.DataFrame":
        """One row a start, the best first: its loss, its score, how much worse it is than the best, with interval."""
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
        """The best and all that cannot be told from it: one of them is truly the best, to the confidence asked for."""
        return [own for own in self.scored if own.named]


def starts(region: Region) -> list[Start]:
    """Returns the base, each member, and the centroids of each dataset, each family and all members; none twice."""
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
    """Scores every start of a region on a dataset and says which cannot be told from the best.

    Args:
      region: members that never saw the dataset.
      dataset: all of its splits are used.
      texts: at most so many of its texts.
      confidence: that the truly best start is among those named.
      protocol: how points are scored.
      settings: how the engine works.
      seed: of the texts drawn, of the folds, and of the bootstrap.

    Raises:
      WsrError: there are too few texts for anything.
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
        # The error is shared out over the rounds (Bonferroni).
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
    """Returns by how much each start is worse than the one with the lowest loss, and the ends of its interval.

    A start is surely not the best where its low end is above zero. Which one seems best is chance too: so the interval
    is as wide as the largest of the start's differences to all others, in standard errors, becomes in a bootstrap over
    the texts, which all starts share. (Subset selection, Gupta 1965; the bootstrap of the largest studentised
    difference is that of Romano and Wolf 2005.)
    """
    means = losses.mean(axis=1)
    best, (count, texts) = int(means.argmin()), losses.shape
    errors = np.stack([(losses - own).std(axis=1, ddof=1) for own in losses]) / np.sqrt(texts)
    shares = generator.multinomial(texts, np.full(texts, 1 / texts), size=RESAMPLES) / texts
    moved = shares @ losses.T - means  # [resamples, starts]
    width = np.zeros(count)
    for own in range(count):
        others = np.flatnonzero(errors[own] > 0)
        if len(others):
            furthest = ((moved[:, [own]] - moved[:, others]) / errors[own, others]).max(axis=1)
            width[own] = np.quantile(furthest, confidence) * errors[own, best]
    worse = means - means[best]
    return worse, worse - width, worse + width


def labelled(dataset: Dataset, most: int, generator: np.random.Generator) -> AnySplit:
    """Returns at most so many of a dataset's texts, from all splits, in an order that deals labels evenly to folds.

    A text that occurs twice is taken once, and a class with a single text is left out: it could not be learned.
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
            f"{dataset.name}: {len(kept)} different texts of {len(distinct)} labels say nothing about starts; at least "
            f"{FEWEST_TEXTS} texts and two labels are needed, a few hundred texts are better"
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
    """Returns the loss and the prediction of each text by a probe that was fitted without its fold."""
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
    """Fits a probe without each fold in turn, and returns the losses and predictions on the folds."""
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
    """Orders texts so that text i belongs to fold i modulo FOLDS, and every fold has labels as the whole has."""
    by_label = numbers[np.argsort(labels, kind="stable")]
    runs = [by_label[first : first + FOLDS] for first in range(0, len(by_label), FOLDS)]
    # Shuffled, so that the first quarter is of all labels; the last run may be shorter than the others.
    order = np.random.default_rng(0).permutation(len(runs) - 1)
    return np.concatenate([*(runs[at] for at in order), runs[-1]])
