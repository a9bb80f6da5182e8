"""Clusters models and compares the cosines of related pairs, with bootstrap intervals, for the studies of similarity.

The bootstrap draws members with replacement within each stratum (usually the seeds of one dataset), so an interval says
what other seeds would give. It says nothing about other datasets. Each draw takes one member fewer than a stratum has,
which makes the variance that of a mean and not a smaller one (Rao and Wu 1988); ``benchmarks/similarity_coverage.py``
measures the coverage. A member drawn twice is clustered once and counted twice. It forms no pair with itself, since its
cosine of 1 with its copy would make every cluster look tight.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from wsr.engine.evaluate import EXACT
from wsr.report.document import Cell, Table
from wsr.report.tables import INTERVAL, interval_cell
from wsr.statistics.clustering import (
    ClusterScores,
    average_linkage,
    lifted,
    normalised_cut,
    scores,
    spectral,
    spectral_clipped,
)
from wsr.statistics.interval import Interval
from wsr.store.row import result_row
from wsr.studies.harness.majority import repaired_majority

METHODS: Mapping[str, Callable] = {
    "spectral": spectral,
    "spectral, clipped": spectral_clipped,
    "average linkage": average_linkage,
}
RESAMPLES = 2000
CLUSTERED_RESAMPLES = 200
"""Number of draws that are clustered again; fewer than ``RESAMPLES``, because clustering is slow."""

Similarity = Float[np.ndarray, "models models"]
Pairs = Bool[np.ndarray, "models models"]
Draws = Int[np.ndarray, "resamples models"]
"""How often each resample draws each model."""


@dataclass(frozen=True)
class Clustered:
    """Scores of one clustering of the models, with as many clusters as a level has labels."""

    level: str
    """Name of the labels, for example "dataset"."""
    method: str
    """Clustering method, a name in ``METHODS``."""
    scores: ClusterScores
    repaired_accuracy: float
    """Majority accuracy after the repair of ``repaired_majority``."""
    intervals: Mapping[str, Interval]
    """95 % intervals of ``one_to_one_accuracy``, ``majority_accuracy``, ``adjusted_rand`` and ``F1 LABEL``; empty
    without a bootstrap."""
    clusters: tuple[int, ...]
    """The cluster of each model."""


@dataclass(frozen=True)
class Related:
    """Cosines of the pairs of models in one relation, for example pairs of one dataset."""

    relation: str
    cosines: Float[np.ndarray, " pairs"]
    mean: Interval
    """Mean cosine and its 95 % interval; without a bootstrap the ends are infinite."""


def member_draws(strata: Sequence[str], generator: np.random.Generator, resamples: int = RESAMPLES) -> Draws:
    """Returns how often each resample draws each model, with replacement among the models of its stratum.

    Each resample takes one model fewer than the stratum has. A stratum of one model is always drawn; one of two models
    forms no pair, so the mean cosine of its pairs has no interval.

    Args:
      strata: stratum of each model.
      generator: the random stream.
      resamples: number of resamples.
    """
    names = np.asarray(strata, dtype=str)
    draws = np.zeros((resamples, len(names)), np.int64)
    for stratum in np.unique(names):
        own = np.flatnonzero(names == stratum)
        draws[:, own] = generator.multinomial(max(1, len(own) - 1), np.full(len(own), 1 / len(own)), size=resamples)
    return draws


def cluster(similarity: Similarity, labels: Mapping[str, Sequence[str]], draws: Draws | None = None) -> list[Clustered]:
    """Clusters models with each method, for each level of labels, and returns the scores.

    Args:
      similarity: cosines of the models' task vectors.
      labels: label of each model, by level.
      draws: from ``member_draws``, for intervals; None: no intervals.
    """
    found = []
    for level, own in labels.items():
        for name, method in METHODS.items():
            clusters = method(similarity, len(set(own)))
            observed = scores(own, clusters)
            drawn = _drawn_again(similarity, own, method, draws)  # a draw may lack a label, and its F1
            intervals = {
                metric: _holding(value, _interval(value, [d.get(metric, np.nan) for d in drawn]))
                for metric, value in flat(observed).items()
            }
            repaired = repaired_majority(own, clusters)
            accuracy = float(np.mean([label == truth for label, truth in zip(repaired, own, strict=True)]))
            numbers = tuple(int(one) for one in clusters)
            found.append(Clustered(level, name, observed, accuracy, intervals if drawn else {}, numbers))
    return found


def together_told(found: Sequence[Clustered], datasets: Sequence[str], accuracy: float) -> list[str]:
    """Returns a line for each clustering that misses labels: which datasets lie together in its clusters.

    Args:
      found: the clusterings.
      datasets: dataset of each model; a dataset is told where most of its models are.
      accuracy: one-to-one accuracy from which a clustering counts as successful.
    """
    told = []
    for own in found:
        if own.scores.one_to_one_accuracy >= accuracy:
            continue
        homes: dict[int, list[str]] = {}
        for name in sorted(set(datasets)):
            clusters = [number for number, dataset in zip(own.clusters, datasets, strict=True) if dataset == name]
            homes.setdefault(max(set(clusters), key=clusters.count), []).append(name)
        told.append(f"Clusters by {own.level} ({own.method}): {'; '.join(', '.join(home) for home in homes.values())}.")
    return told


def lifting_told(
    similarity: Similarity, labels: Sequence[str], found: Sequence[Clustered], accuracy: float
) -> list[str]:
    """Returns a paragraph for the case that only the paper's affinities make spectral clustering fail; else nothing.

    Args:
      similarity: cosines of the models' task vectors.
      labels: the true label of each model.
      found: the clusterings by these labels.
      accuracy: one-to-one accuracy from which a clustering counts as successful.
    """
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
    """Returns the cosines of the pairs in each relation, without relations that have no pair.

    Args:
      similarity: cosines of the models' task vectors.
      relations: which pairs of models are in each relation, by its name.
      draws: from ``member_draws``, for intervals; None: no intervals.
    """
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
    """Returns the mean cosine in one relation minus the mean cosine in another, with its interval.

    Args:
      similarity: cosines of the models' task vectors.
      first: pairs in the first relation.
      second: pairs in the second relation.
      draws: from ``member_draws``; both means use the same draws.
      comparisons: number of comparisons for which the intervals hold together with 95 % confidence (Bonferroni).
    """
    observed = similarity[np.triu(first, 1)].mean() - similarity[np.triu(second, 1)].mean()
    drawn = _mean_cosines(similarity, first, draws) - _mean_cosines(similarity, second, draws)
    return _interval(float(observed), drawn, 1 - 0.05 / comparisons)


def same(labels: Sequence[object]) -> Pairs:
    """Returns which pairs of models have the same label."""
    texts = np.array([str(label) for label in labels])
    return texts[:, None] == texts[None, :]


def flat(found: ClusterScores) -> dict[str, float]:
    """Returns all scores by name, with the F1 score of each label as ``F1 LABEL``."""
    values = dataclasses.asdict(found)
    by_label = values.pop("f1")
    return values | {f"F1 {label}": value for label, value in sorted(by_label.items())}


def score_table(found: Sequence[Clustered], title: str = "Clustering", caption: str = "") -> Table:
    """Returns a report table of the clusterings' scores, with intervals if there are any."""
    with_intervals = any(own.intervals for own in found)
    columns = [
        *("by", "method", "one-to-one accuracy", "majority accuracy", "majority, repaired", "adjusted Rand"),
        "F1 of each label",
    ]
    rows: list[tuple[Cell, ...]] = []
    for own in found:
        of = own.scores
        numbers = (of.one_to_one_accuracy, of.majority_accuracy, own.repaired_accuracy, of.adjusted_rand)
        row: list[Cell] = [own.level, own.method, *numbers, _f1_cell(own.scores.f1)]
        if with_intervals:
            interval = own.intervals["one_to_one_accuracy"]
            row[3:3] = [interval_cell(interval.low, interval.high)]
        rows.append(tuple(row))
    if with_intervals:
        columns[3:3] = [INTERVAL]
        caption += f" Intervals: {INTERVALS}"
    return Table(
        title,
        tuple(columns),
        tuple(rows),
        "Spectral: the paper's recipe. One-to-one: each cluster stands for one label (Hungarian assignment). Majority: "
        "each cluster takes its most frequent label. Repaired: until each label has a cluster, as in the authors' "
        "released code. " + caption.strip(),
    )


INTERVALS = "bootstrap over the members of each dataset, clustered again in each draw; datasets are not drawn again."


def cosine_table(found: Sequence[Related], title: str = "Cosine similarity of task vectors") -> Table:
    """Returns a report table of the mean cosines, with intervals if there are any."""
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
            row[3:3] = [interval_cell(own.mean.low, own.mean.high)]
        rows.append(tuple(row))
    if with_intervals:
        columns[3:3] = [INTERVAL]
    return Table(title, tuple(columns), tuple(rows), "Bootstrap over the members of each dataset." * with_intervals)


def score_rows(study: str, names: Sequence[str], found: Sequence[Clustered]) -> list[dict]:
    """Returns one row of results for each score of each clustering."""
    return [
        row(study, f"by {own.level}", names, f"{metric}, {own.method}", own.intervals.get(metric, _alone(value)))
        for own in found
        for metric, value in (*flat(own.scores).items(), ("repaired_majority_accuracy", own.repaired_accuracy))
    ]


def cosine_rows(study: str, names: Sequence[str], found: Sequence[Related]) -> list[dict]:
    """Returns one row of results for each relation's mean cosine."""
    return [row(study, own.relation, names, "mean cosine", own.mean) for own in found]


def row(study: str, group: str, names: Sequence[str], metric: str, interval: Interval) -> dict:
    """Returns a row of results about all members together; a value without an interval has no ``low`` and ``high``."""
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
    """Returns the value and its interval as text, for example "0.213 (0.180 to 0.240)"."""
    ends = f" ({interval.low:.{decimals}f} to {interval.high:.{decimals}f})" if np.isfinite(interval.low) else ""
    return f"{interval.value:.{decimals}f}{ends}"


def nearest_to_own_group(similarity: Similarity, labels: Sequence[str]) -> tuple[int, int]:
    """Returns how many models lie nearest to the others of their group, by mean cosine, and of how many that is asked.

    A model that is alone in its group is not asked.
    """
    names = np.asarray(labels, dtype=str)
    groups = {label: np.flatnonzero(names == label) for label in np.unique(names)}
    right = asked = 0
    for model, label in enumerate(names):
        others = {name: group[group != model] for name, group in groups.items()}
        if not len(others[label]) or len(groups) < 2:
            continue
        means = {name: similarity[model, group].mean() for name, group in others.items() if len(group)}
        right += max(means, key=means.__getitem__) == label
        asked += 1
    return right, asked


def nearest_told(similarity: Similarity, labels: Sequence[str]) -> str:
    """Says how many models lie nearest to their own group, and how near: the mean cosines within and across groups."""
    right, asked = nearest_to_own_group(similarity, labels)
    if not asked:
        return "no two groups of models are there to compare"
    within = np.triu(same(labels), 1)
    across = np.triu(~same(labels), 1)
    who = f"every one of {asked} is nearest its" if right == asked else f"{right} of {asked} are nearest their"
    return f"{who} own group (cosine {similarity[within].mean():.2f} within, {similarity[across].mean():.2f} across)"


def percent_told(values: Sequence[float]) -> str:
    """Returns shares as one text of percents: "100 %", or "88 to 100 %" where they differ."""
    low, high = f"{100 * min(values):.0f}", f"{100 * max(values):.0f}"
    return f"{low} %" if low == high else f"{low} to {high} %"


def accuracies(found: Sequence[Clustered]) -> list[float]:
    """Returns the one-to-one accuracy of each method."""
    return [own.scores.one_to_one_accuracy for own in found]


def accuracy_told(found: Sequence[Clustered]) -> str:
    """Returns the one-to-one accuracy of each clustering as text."""
    return ", ".join(f"{100 * own.scores.one_to_one_accuracy:.0f} % ({own.method})" for own in found)


def _drawn_again(
    similarity: Similarity, labels: Sequence[str], method: Callable, draws: Draws | None
) -> list[dict[str, float]]:
    from threadpoolctl import threadpool_limits

    if draws is None:
        return []
    with threadpool_limits(1):  # on such small matrices threads only wait for each other
        return [_again(similarity, labels, method, drawn) for drawn in draws[:CLUSTERED_RESAMPLES]]


def _again(
    similarity: Similarity, labels: Sequence[str], method: Callable, drawn: Int[np.ndarray, " models"]
) -> dict[str, float]:
    kept = np.flatnonzero(drawn)
    own = [labels[int(k)] for k in kept]
    clusters = method(similarity[np.ix_(kept, kept)], len(set(own)))
    return flat(scores(np.repeat(own, drawn[kept]).tolist(), np.repeat(clusters, drawn[kept])))


def _mean_cosines(similarity: Similarity, pairs: Pairs, draws: Draws) -> Float[np.ndarray, " resamples"]:
    """Returns the mean cosine over the pairs of each draw; NaN for a draw without pairs."""
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


def _holding(value: float, interval: Interval) -> Interval:
    """Returns an interval widened to hold the value: every draw has fewer distinct members than the population, which
    may make all draws easier to cluster than the population, or harder."""
    return Interval(value, min(interval.low, value), max(interval.high, value))


def _alone(value: float) -> Interval:
    return Interval(float(value), -np.inf, np.inf)


def _f1_cell(f1: Mapping[str, float]) -> str:
    """The F1 of each label; told once where many labels have the same."""
    if len(f1) > 3 and len(set(f1.values())) == 1:
        return f"{next(iter(f1.values())):.2f} for each of {len(f1)}"
    return ", ".join(f"{label} {value:.2f}" for label, value in sorted(f1.items()))
