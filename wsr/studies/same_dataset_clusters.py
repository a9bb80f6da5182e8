"""Do models fine-tuned on the same dataset, and on the same family, lie together?"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from wsr.region.region import Region
from wsr.report.document import Figure, Section
from wsr.runtime import seeds
from wsr.statistics.clustering import tsne
from wsr.studies.harness.at_chance import AT_CHANCE, chance_told, cluster_everyone
from wsr.studies.harness.clustered import (
    Clustered,
    Draws,
    Pairs,
    Related,
    Similarity,
    accuracy_told,
    cluster,
    cosine_rows,
    cosine_table,
    lifting_told,
    member_draws,
    nearest_to_own_group,
    nearest_told,
    relate,
    same,
    score_rows,
    score_table,
)
from wsr.studies.harness.verdict import reached, verdict

HOLDS = {"dataset": 0.95, "family": 0.9, "label": 0.9}
"""One-to-one accuracy from which a level counts as clustered; the paper reports 0.98 by dataset and 0.90 by task."""

Labels = Mapping[str, Sequence[str]]
"""Level ("dataset", "family") to the label of each model."""


def clusters(
    region: Region, everyone: Region | None = None, *, seed: int = 0, command: str = ""
) -> tuple[list[dict], Section]:
    """Returns the rows and the section of the similarity study of a region.

    Args:
      region: the members that learned.
      everyone: all members, which are clustered too if some are at chance; None: those of ``region``.
      seed: seed of the bootstrap and the map.
      command: command line that reproduces the study.
    """
    draws = member_draws(region.datasets, seeds.generator(seed, "members drawn again"))
    everyone = everyone or region
    rows, section = similarity_section(
        region.names,
        region.similarity(),
        _labels(region),
        seed=seed,
        command=command,
        draws=draws,
        with_chance=cluster_everyone(region, everyone, _labels, seed),
    )
    return rows, replace(section, text=(*chance_told(region, everyone), *section.text))


def _labels(region: Region) -> Labels:
    return {"dataset": region.datasets, "family": region.families}


def similarity_section(
    names: Sequence[str],
    similarity: Similarity,
    labels: Labels,
    *,
    seed: int = 0,
    command: str = "",
    draws: Draws | None = None,
    with_chance: Sequence[Clustered] = (),
) -> tuple[list[dict], Section]:
    """Clusters models by their similarity and compares the clusters with each level of labels.

    The levels come from fine to coarse: a model's label on the first determines its label on the next. Without
    ``draws`` of the members there are no intervals. ``with_chance`` are clusterings of all members.
    """
    found = cluster(similarity, labels, draws)
    both = [*found, *with_chance]
    cosines = relate(similarity, related(labels), draws)
    section = Section(
        f"Models of one {next(iter(labels))} lie together",
        "Do members of one dataset lie together in weight space, and members of one family more loosely?",
        "Spectral clustering of 280 RoBERTa-base models: 98 % accuracy by dataset; 90 % by task (F1 NLI 100, Topic 87, "
        "Sentiment 83)",
        "; ".join(
            f"by {level} {accuracy_told([own for own in both if own.level == level])}"
            for level in dict.fromkeys(own.level for own in both)
        ),
        _verdict(both),
        text=_reasons(similarity, labels, cosines, found),
        figures=population_figures(names, similarity, labels, seed),
        tables=(score_table(both), cosine_table(cosines)),
        command=command,
        headline=_headline(similarity, labels, found),
        paper_short="98 % by dataset, 90 % by task",
        measured_short=f"{', '.join(_recovered(found))} (spectral)",
    )
    return [*score_rows("similarity", names, both), *cosine_rows("similarity", names, cosines)], section


def related(labels: Labels) -> dict[str, Pairs]:
    """Returns the pairs of models by the finest level on which their labels agree."""
    relations = {}
    left = np.ones((len(next(iter(labels.values()))),) * 2, bool)
    for relation, own in zip(_finer(labels), labels.values(), strict=True):
        relations[relation] = left & same(own)
        left = left & ~same(own)
    return relations | {"nothing in common": left}


def _verdict(found: Sequence[Clustered]) -> str:
    return verdict(reached(own.scores.one_to_one_accuracy >= HOLDS[own.level.removesuffix(AT_CHANCE)]) for own in found)


def population_figures(names: Sequence[str], similarity: Similarity, labels: Labels, seed: int) -> tuple[Figure, ...]:
    """Returns a heat map of the similarity and a map of the population, grouped by the finest and coarsest level."""
    finest, coarsest = next(iter(labels.values())), list(labels.values())[-1]
    order = sorted(range(len(names)), key=lambda k: (coarsest[k], finest[k], names[k]))
    heatmap = Figure(
        "heatmap",
        "Cosine similarity of task vectors",
        "The diagonal is 1; the colours span the other values.",
        {
            "matrix": similarity[np.ix_(order, order)],
            "names": [names[k] for k in order],
            "groups": [finest[k] for k in order],
            "value_label": "cosine",
        },
    )
    positions = tsne(similarity, seed=seed)
    return heatmap, Figure(
        "map",
        "Map of the population",
        "t-SNE of 1 - cosine: who is near whom is meaningful, distances and axes are not.",
        {
            "x": positions[:, 0],
            "y": positions[:, 1],
            "names": list(names),
            "groups": list(finest),
            "families": list(coarsest),
        },
    )


def _headline(similarity: Similarity, labels: Labels, found: Sequence[Clustered]) -> str:
    finest = next(iter(labels))
    what = "trained on one dataset" if finest == "dataset" else f"of one {finest}"
    failing = [own for own in found if own.method == "spectral" and own.scores.one_to_one_accuracy < HOLDS[own.level]]
    shares = " and ".join(f"the {own.level} of {100 * own.scores.one_to_one_accuracy:.0f} %" for own in failing)
    more = f"; the paper's clustering recovers {shares}" if failing else ""
    right, asked = nearest_to_own_group(similarity, labels[finest])
    how = "sit" if right == asked else "mostly sit" if right > asked / 2 else "do not sit"
    return f"Models {what} {how} together: {nearest_told(similarity, labels[finest])}{more}."


def _recovered(found: Sequence[Clustered]) -> list[str]:
    """The share that the paper's method recovers at each level."""
    spectral = (own for own in found if own.method == "spectral")
    return [f"{100 * own.scores.one_to_one_accuracy:.0f} % by {own.level}" for own in spectral]


def _reasons(
    similarity: Similarity, labels: Labels, cosines: Sequence[Related], found: Sequence[Clustered]
) -> tuple[str, ...]:
    """Says, where a level is not clustered, which pairs lie too close and what the paper's affinities do to it."""
    means = ", ".join(f"{own.relation} {own.mean.value:.3f}" for own in cosines)
    by_relation = {own.relation: own.cosines for own in cosines}
    text = [f"Mean cosine of two models: {means}."]
    for level in labels:
        failing = [own.method for own in found if own.level == level and own.scores.one_to_one_accuracy < HOLDS[level]]
        if not failing:
            continue
        text.append(f"By {level}, the accuracy stays under {HOLDS[level]} with these methods: {'; '.join(failing)}.")
        within = by_relation.get(f"same {level}", np.array([]))
        others = np.concatenate(
            [[-1.0], *(own for relation, own in by_relation.items() if relation not in _finer(labels, level))]
        )
        if len(within) and others.max() > within.min():
            text.append(
                f"Two models that differ in {level} come as close as {others.max():.3f}, two of one {level} lie as "
                f"far apart as {within.min():.3f}."
            )
        text += lifting_told(similarity, labels[level], [own for own in found if own.level == level], HOLDS[level])
    return tuple(text)


def _finer(labels: Labels, level: str | None = None) -> list[str]:
    """The relations of pairs that agree on ``level`` (by default the coarsest): that level and those before it."""
    levels = list(labels)
    return [f"same {name}" for name in levels[: levels.index(level or levels[-1]) + 1]]
