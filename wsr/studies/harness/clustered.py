"""What the studies of similarity share: models clustered, cosines of related pairs, intervals over the members.

An interval draws members again, with replacement, within each stratum (usually: the seeds of each dataset): what would
other seeds have given? It says nothing about other datasets. A member that is drawn twice is clustered once and counted
twice, and is no pair with itself: its cosine of 1 with its copy would make every cluster tight.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from wsr.engine.evaluate import EXACT
from wsr.report.document import Cell, Table
from wsr.statistics.clustering import (
    ClusterScores,
    average_linkage,
    lifted,
    normalised_cut,
    scores,
    spectral,
    spectral_clipped,
)
from wsr.statistics.compare import Interval
from wsr.store.row import result_row

METHODS: Mapping[str, Callable] = {
    "spectral": spectral,
    "spectral, clipped": spectral_clipped,
    "average linkage": average_linkage,
}
RESAMPLES = 2000
CLUSTERED_RESAMPLES = 200
"""Of the draws, so many are clustered again, which takes its time."""

Similarity = Float[np.ndarray, "models models"]
Pairs = Bool[np.ndarray, "models models"]
Draws = Int[np.ndarray, "resamples models"]
"""How often each model is drawn."""


@dataclass(frozen=True)
class Clustered:
    """Models clustered into as many groups as a level has labels."""

    level: str
    method: str
    scores: ClusterScores
    intervals: Mapping[str, Interval]
    """95 % intervals of ``one_to_one_accuracy``, ``majority_accuracy``, ``adjusted_rand`` and ``F1 LABEL``; empty
    where members were not drawn again."""


@dataclass(frozen=True)
class Related:
    """Cosines of the pairs of models in one relation."""

    relation: str
    cosines: Float[np.ndarray, " pairs"]
    mean: Interval
    """With infinite ends where members were not drawn again."""


def member_draws(strata: Sequence[str], generator: np.random.Generator, resamples: int = RESAMPLES) -> Draws:
    """Returns how often each model is drawn, with replacement among those of its stratum, in each resample."""
    names = np.asarray(strata, dtype=str)
    draws = np.zeros((resamples, len(names)), np.int64)
    for stratum in np.unique(names):
        own = np.flatnonzero(names == stratum)
        draws[:, own] = generator.multinomial(len(own), np.full(len(own), 1 / len(own)), size=resamples)
    return draws


def cluster(similarity: Similarity, labels: Mapping[str, Sequence[str]], draws: Draws | None = None) -> list[Clustered]:
    """Clusters models by each method into the groups of each level of labels, and scores the groups."""
    found = []
    for level, own in labels.items():
        for name, method in METHODS.items():
            observed = scores(own, method(similarity, len(set(own))))
            drawn = _drawn_again(similarity, own, method, draws)
            intervals = {
                metric: _interval(value, [d[metric] for d in drawn]) for metric, value in flat(observed).items()
            }
            found.append(Clustered(level, name, observed, intervals if drawn else {}))
    return found


def lifting_told(
    similarity: Similarity, labels: Sequence[str], found: Sequence[Clustered], accuracy: float
) -> list[str]:
    """Says, where spectral clustering fails by the paper's affinities alone, what its clusters are and why."""
    reached = {own.method: own.scores.one_to_one_accuracy >= accuracy for own in found}
    if reached["spectral"] or not reached["spectral, clipped"]:
        return []
    affinity = lifted(similarity)
    _, wanted = np.unique(np.array(labels), return_inverse=True)
    own = normalised_cut(affinity, spectral(similarity, len(set(labels))))
    return [
        f"The paper's recipe lifts each cosine s to (s + 1) / 2 when any is negative, so pairs with nothing in common "
        f"have 0.5 and not 0. With these the clusters that it finds have a normalised cut of "
        f"{own:.4f}, and the labels {normalised_cut(affinity, wanted):.4f}: nearly the same, so sizes decide. Spectral "
        "clustering with negative cosines taken as 0 (clipped) recovers the labels."
    ]


def relate(similarity: Similarity, relations: Mapping[str, Pairs], draws: Draws | None = None) -> list[Related]:
    """Returns the cosines of the pairs of each relation; relations without a pair are left out."""
    found = []
    for relation, pairs in relations.items():
        chosen = np.triu(pairs, 1)
        if chosen.any():
            own = similarity[chosen]
            drawn: Sequence[float] | np.ndarray = [] if draws is None else _mean_cosines(similarity, pairs, draws)
            found.append(Related(relation, own, _interval(float(own.mean()), drawn)))
    return found


def cosine_difference(
    similarity: Similarity, first: Pairs, second: Pairs, draws: Draws, *, comparisons: int = 1
) -> Interval:
    """Returns the mean cosine of the pairs of one relation minus that of another, from the same draws of members.

    The interval holds for all of so many ``comparisons`` together, with 95 % confidence (Bonferroni).
    """
    observed = similarity[np.triu(first, 1)].mean() - similarity[np.triu(second, 1)].mean()
    drawn = _mean_cosines(similarity, first, draws) - _mean_cosines(similarity, second, draws)
    return _interval(float(observed), drawn, 1 - 0.05 / comparisons)


def same(labels: Sequence[object]) -> Pairs:
    """Returns which pairs of models have the same label."""
    texts = np.array([str(label) for label in labels])
    return texts[:, None] == texts[None, :]


def flat(found: ClusterScores) -> dict[str, float]:
    """Returns all scores by name."""
    values = dataclasses.asdict(found)
    by_label = values.pop("f1")
    return values | {f"F1 {label}": value for label, value in sorted(by_label.items())}


def score_table(found: Sequence[Clustered], title: str = "Clustering", caption: str = "") -> Table:
    """Returns the table of accuracies, with their intervals where there are any."""
    with_intervals = any(own.intervals for own in found)
    columns = ["by", "method", "one-to-one accuracy", "majority accuracy", "adjusted Rand", "F1 of each label"]
    rows: list[tuple[Cell, ...]] = []
    for own in found:
        told = [f"{label} {value:.2f}{_ends(own, label)}" for label, value in sorted(own.scores.f1.items())]
        numbers = (own.scores.one_to_one_accuracy, own.scores.majority_accuracy, own.scores.adjusted_rand)
        row: list[Cell] = [own.level, own.method, *numbers, ", ".join(told)]
        if with_intervals:
            interval = own.intervals["one_to_one_accuracy"]
            row[3:3] = [interval.low, interval.high]
        rows.append(tuple(row))
    if with_intervals:
        columns[3:3] = ["95 % low", "95 % high"]
        caption += f" Intervals: {INTERVALS}"
    return Table(
        title,
        tuple(columns),
        tuple(rows),
        "Spectral: the paper's recipe. One-to-one: each cluster stands for one label (Hungarian assignment). Majority: "
        "each cluster takes its most frequent label, as in the authors' released code. " + caption.strip(),
    )


INTERVALS = (
    "bootstrap over the members of each dataset, clustered again in each draw; datasets are not drawn again. With few "
    "members of a dataset it is too narrow."
)


def cosine_table(found: Sequence[Related], title: str = "Cosine similarity of task vectors") -> Table:
    """Returns the table of mean cosines, with their intervals where there are any."""
    with_intervals = any(np.isfinite(own.mean.low) for own in found)
    columns = ["pairs of models", "pairs", "mean", "smallest", "largest"]
    rows: list[tuple[Cell, ...]] = []
    for own in found:
        row: list[Cell] = [
            own.relation,
            len(own.cosines),
            own.mean.value,
            float(own.cosines.min()),
            float(own.cosines.max()),
        ]
        if with_intervals:
            row[3:3] = [own.mean.low, own.mean.high]
        rows.append(tuple(row))
    if with_intervals:
        columns[3:3] = ["95 % low", "95 % high"]
    return Table(title, tuple(columns), tuple(rows), "Bootstrap over the members of each dataset." * with_intervals)


def score_rows(study: str, names: Sequence[str], found: Sequence[Clustered]) -> list[dict]:
    """Returns a row for each score."""
    return [
        row(study, f"by {own.level}", names, f"{metric}, {own.method}", own.intervals.get(metric, _alone(value)))
        for own in found
        for metric, value in flat(own.scores).items()
    ]


def cosine_rows(study: str, names: Sequence[str], found: Sequence[Related]) -> list[dict]:
    """Returns a row for each relation."""
    return [row(study, own.relation, names, "mean cosine", own.mean) for own in found]


def row(study: str, group: str, names: Sequence[str], metric: str, interval: Interval) -> dict:
    """Returns a row on the members as a whole; a value that has no interval has no ends."""
    return result_row(
        group,
        "",
        metric,
        interval.value,
        texts=len(names),
        how=EXACT,
        members=names,
        interval=(interval.low, interval.high),
        study=study,
    )


def told(interval: Interval, decimals: int = 3) -> str:
    """Returns the value and its interval as a text."""
    ends = f" ({interval.low:.{decimals}f} to {interval.high:.{decimals}f})" if np.isfinite(interval.low) else ""
    return f"{interval.value:.{decimals}f}{ends}"


def accuracy_told(found: Sequence[Clustered]) -> str:
    """Returns the one-to-one accuracy of each method at one level."""
    return ", ".join(f"{100 * own.scores.one_to_one_accuracy:.0f} % ({own.method})" for own in found)


def _drawn_again(
    similarity: Similarity, labels: Sequence[str], method: Callable, draws: Draws | None
) -> list[dict[str, float]]:
    from threadpoolctl import threadpool_limits

    if draws is None:
        return []
    with threadpool_limits(1):  # on matrices this small threads wait for each other
        return [_again(similarity, labels, method, drawn) for drawn in draws[:CLUSTERED_RESAMPLES]]


def _again(
    similarity: Similarity, labels: Sequence[str], method: Callable, drawn: Int[np.ndarray, " models"]
) -> dict[str, float]:
    kept = np.flatnonzero(drawn)
    own = [labels[int(k)] for k in kept]
    clusters = method(similarity[np.ix_(kept, kept)], len(set(own)))
    return flat(scores(np.repeat(own, drawn[kept]).tolist(), np.repeat(clusters, drawn[kept])))


def _mean_cosines(similarity: Similarity, pairs: Pairs, draws: Draws) -> Float[np.ndarray, " resamples"]:
    """The mean over the pairs of each draw; NaN where a draw has none."""
    chosen = np.triu(pairs, 1).astype(np.float64)
    weights = draws.astype(np.float64)
    with np.errstate(invalid="ignore"):
        total = ((weights @ (chosen * similarity)) * weights).sum(axis=1)
        return total / ((weights @ chosen) * weights).sum(axis=1)


def _interval(value: float, drawn: Sequence[float] | np.ndarray, confidence: float = 0.95) -> Interval:
    kept = np.asarray(drawn, np.float64)
    kept = kept[np.isfinite(kept)]
    if not kept.size:
        return _alone(value)
    low, high = np.quantile(kept, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(value), float(low), float(high))


def _alone(value: float) -> Interval:
    return Interval(float(value), -np.inf, np.inf)


def _ends(found: Clustered, label: str) -> str:
    interval = found.intervals.get(f"F1 {label}")
    return f" ({interval.low:.2f} to {interval.high:.2f})" if interval else ""
