"""Does the direction of a task vector come from the kind of data, or from its amount?"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from wsr.geometry.gram import cosine, norms
from wsr.region.region import Region
from wsr.report.document import Figure, Section, Table
from wsr.runtime import seeds
from wsr.studies.harness.clustered import (
    Clustered,
    Draws,
    Similarity,
    accuracies,
    accuracy_told,
    cluster,
    cosine_difference,
    cosine_rows,
    cosine_table,
    lifting_told,
    member_draws,
    nearest_told,
    percent_told,
    relate,
    row,
    same,
    score_rows,
    score_table,
    told,
)
from wsr.studies.harness.verdict import reached, verdict
from wsr.studies.same_dataset_clusters import population_figures

HOLDS = 0.95
"""One-to-one accuracy by dataset from which subsets of all sizes count as clustered by dataset."""


def data_sizes(region: Region, sizes: Sequence[int], *, seed: int = 0, command: str = "") -> tuple[list[dict], Section]:
    """Clusters members by dataset and by the number of examples they saw.

    Args:
      region: members fine-tuned on subsets.
      sizes: how many examples each of them saw.
    """
    names = region.names
    similarity = cosine(region.gram)
    by_size = [str(size) for size in sizes]
    strata = [f"{dataset} {size}" for dataset, size in zip(region.datasets, by_size, strict=True)]
    draws = member_draws(strata, seeds.generator(seed, "members drawn again"))
    found = cluster(similarity, {"dataset": region.datasets, "size": by_size}, draws)
    dataset, size = same(region.datasets), same(by_size)
    relations = {
        "same dataset, same size": dataset & size,
        "same dataset, other size": dataset & ~size,
        "other dataset, same size": ~dataset & size,
        "other dataset, other size": ~dataset & ~size,
    }
    ordered = sorted(set(sizes))
    # The fewer the examples, the more of a task vector is chance: the size sets how well its direction can be seen.
    relations |= {f"same dataset, both {own} examples": dataset & size & (np.array(sizes) == own) for own in ordered}
    cosines = relate(similarity, relations, draws)
    text, rows = [], []
    if len(ordered) > 1 and len(set(region.datasets)) > 1:
        gap = cosine_difference(similarity, dataset & ~size, ~dataset & size, draws)
        rows.append(row("data_size", "dataset minus size", names, "difference of mean cosines", gap))
        text.append(
            f"Sharing the dataset and not the size, rather than the size and not the dataset, makes the cosine higher "
            f"by {told(gap)} (95 % interval, bootstrap over the members of each dataset and size)."
        )
    lengths = norms(region.gram)
    text.append(
        "What the amount does change is the length of the task vector: "
        + ", ".join(f"{lengths[np.array(sizes) == own].mean():.3g} at {own} examples" for own in ordered)
        + " (mean over members; more examples are also more steps)."
    )
    text += lifting_told(similarity, region.datasets, [own for own in found if own.level == "dataset"], HOLDS)
    alone = {own: _of_one_size(region, similarity, np.array(sizes) == own, own, draws) for own in ordered}
    by_dataset, own_size = ([own for own in found if own.level == level] for level in ("dataset", "size"))
    section = Section(
        "Models group by kind of data, not amount",
        "Do members fine-tuned on subsets of different sizes cluster by dataset, and not by size?",
        "Subsets of 200, 400, 800, 1.6K and 3K examples of 9 datasets cluster by dataset, not by size.",
        f"by dataset {accuracy_told(by_dataset)}; adjusted Rand with the size "
        f"{', '.join(f'{own.scores.adjusted_rand:.2f} ({own.method})' for own in own_size)}",
        verdict(reached(own.scores.one_to_one_accuracy >= HOLDS) for own in by_dataset),
        text=tuple(text),
        figures=(
            *population_figures(names, similarity, {"dataset": region.datasets}, seed),
            _lengths(region, sizes, lengths),
        ),
        tables=(
            score_table(
                [*found, *(one for own in alone.values() for one in own)],
                caption="By size: clustered into as many groups as there are sizes; adjusted Rand 0 is chance. "
                "Dataset, so many examples: only the models of one size are clustered.",
            ),
            cosine_table(cosines),
            Table(
                "Members that learned their dataset",
                ("examples", "members"),
                tuple((own, list(sizes).count(own)) for own in ordered),
            ),
        ),
        command=command,
        headline=f"Models group by what they were trained on, not by how much: "
        f"{nearest_told(similarity, region.datasets)} across all amounts of data.",
        paper_short="by dataset, not by size",
        measured_short=f"by dataset {percent_told(accuracies(by_dataset))}, by size "
        f"{percent_told(accuracies(own_size))}",
    )
    rows += score_rows("data_size", names, found)
    for own, clustered in alone.items():
        rows += score_rows("data_size", [names[k] for k in np.flatnonzero(np.array(sizes) == own)], clustered)
    return [*rows, *cosine_rows("data_size", names, cosines)], section


def _of_one_size(
    region: Region, similarity: Similarity, own: Bool[np.ndarray, " members"], size: int, draws: Draws
) -> list[Clustered]:
    """Returns the clusterings by dataset of the members that saw so many examples; none if they are of one dataset."""
    datasets = [region.datasets[k] for k in np.flatnonzero(own)]
    if len(set(datasets)) < 2:
        return []
    return cluster(similarity[np.ix_(own, own)], {f"dataset, {size} examples": datasets}, draws[:, own])


def _lengths(region: Region, sizes: Sequence[int], lengths: np.ndarray) -> Figure:
    series = []
    for dataset in dict.fromkeys(region.datasets):
        own = np.array([name == dataset for name in region.datasets])
        there = sorted({size for size, mine in zip(sizes, own, strict=True) if mine})
        means = [float(lengths[own & (np.array(sizes) == size)].mean()) for size in there]
        series.append({"name": dataset, "x": there, "y": means})
    return Figure(
        "curves",
        "Length of the task vectors",
        "Mean over the members of a dataset and size.",
        {"series": series, "x_label": "examples", "y_label": "length of the task vector", "x_scale": "log"},
    )
