"""Do members cluster by task, and does a domain cluster as a task does?"""

from collections.abc import Mapping, Sequence

import numpy as np

from wsr.region.region import Region
from wsr.report.document import Section
from wsr.runtime import seeds
from wsr.studies.family_places import family_places, outside_told, places_table
from wsr.studies.harness.at_chance import chance_told, cluster_everyone
from wsr.studies.harness.clustered import (
    Clustered,
    Related,
    accuracies,
    accuracy_told,
    cluster,
    cosine_difference,
    cosine_rows,
    cosine_table,
    flat,
    lifting_told,
    member_draws,
    percent_told,
    relate,
    row,
    same,
    score_rows,
    score_table,
    together_told,
    told,
)
from wsr.studies.harness.verdict import reached, verdict
from wsr.studies.same_dataset_clusters import population_figures

HOLDS = 0.9
"""One-to-one accuracy from which tasks count as clustered: the paper's figure."""


def task_clusters(
    region: Region, everyone: Region | None = None, *, seed: int = 0, command: str = ""
) -> tuple[list[dict], Section]:
    """Clusters members by family: all of them, and those of families of more than one dataset.

    Args:
      region: the members that learned.
      everyone: all members, which are clustered too if some are at chance; None: those of ``region``.
      seed: seed of the bootstrap and the map.
      command: command line that reproduces the study.
    """
    everyone = everyone or region
    draws = member_draws(region.datasets, seeds.generator(seed, "members drawn again"))
    similarity, families = region.similarity(), region.families
    found = cluster(similarity, {"family": families}, draws)
    of_family = _datasets_by_label(families, region.datasets)
    keep = np.array([len(of_family[family]) > 1 for family in families])
    lone = sorted(family for family, datasets in of_family.items() if len(datasets) == 1)
    fewer = []
    if lone and len(set(np.array(families)[keep])) > 1:
        kept = np.flatnonzero(keep)
        labels = {"family of several datasets": [families[k] for k in kept]}
        fewer = cluster(similarity[np.ix_(kept, kept)], labels, draws[:, kept])
    with_chance = cluster_everyone(region, everyone, lambda own: {"family": own.families}, seed)
    other_dataset = ~same(region.datasets)
    relations = {
        "same family, other dataset": same(families) & other_dataset,
        "other family": ~same(families),
    }
    cosines = relate(similarity, relations, draws)
    text = chance_told(region, everyone)
    if len(cosines) == 2:
        gap = cosine_difference(similarity, relations["same family, other dataset"], relations["other family"], draws)
        text.append(
            f"Two members of one family and different datasets have a cosine higher by {told(gap)} than two members of "
            "different families (95 % interval, bootstrap over the members of each dataset)."
        )
    if lone:
        text.append(
            f"{', '.join(lone)} has a single dataset: it says nothing on whether datasets of one family lie together."
        )
    text += together_told(found, region.datasets, HOLDS)
    text += lifting_told(similarity, families, found, HOLDS)
    places = family_places(everyone, seed)
    text += outside_told(places)
    section = Section(
        "Datasets of one family lie together",
        "Do members of different datasets of one family cluster together?",
        "Tasks cluster with 90 % accuracy; F1 NLI 100, Topic 87, Sentiment 83. WNLI's models lie outside the region of "
        "NLI.",
        "; ".join(
            f"by {own[0].level} {accuracy_told(own)}; F1 (spectral) {_f1_told(own, 'spectral')}"
            for own in (found, fewer, with_chance)
            if own
        ),
        verdict(reached(own.scores.one_to_one_accuracy >= HOLDS) for own in [*found, *fewer, *with_chance]),
        text=tuple(text),
        figures=population_figures(region.names, similarity, {"dataset": region.datasets, "family": families}, seed),
        tables=(score_table([*found, *fewer, *with_chance]), cosine_table(cosines), places_table(places)),
        command=command,
        headline=_family_headline(cosines, found),
        paper_short="90 %; F1 NLI 100, Topic 87, Sentiment 83",
        measured_short=f"{percent_told(accuracies(found))} by family",
    )
    rows = score_rows("task_clusters", region.names, [*found, *fewer, *with_chance])
    rows += [
        row(
            "task_clusters",
            f"{place.dataset}, family {place.family}",
            region.names,
            "own family minus others",
            place.gap,
        )
        for place in places
    ]
    return [*rows, *cosine_rows("task_clusters", region.names, cosines)], section


def domain_clusters(
    region: Region,
    domain: str,
    tasks: Mapping[str, str],
    everyone: Region | None = None,
    *,
    seed: int = 0,
    command: str = "",
) -> tuple[list[dict], Section]:
    """Adds the datasets of one domain as a group beside the tasks, as the paper did with Twitter.

    Args:
      region: members of the domain's datasets and of others that learned.
      domain: what the group is called.
      tasks: the task of each dataset of the domain; the task of any other dataset is its family.
      everyone: all members, which are clustered too if some are at chance; None: those of ``region``.
      seed: seed of the bootstrap and the map.
      command: command line that reproduces the study.
    """
    everyone = everyone or region
    draws = member_draws(region.datasets, seeds.generator(seed, "members drawn again"))
    similarity = region.similarity()
    inside = np.array([name in tasks for name in region.datasets])
    by_task = [tasks.get(name, family) for name, family in zip(region.datasets, region.families, strict=True)]

    def groups(own: Region) -> dict[str, list[str]]:
        pairs = zip(own.datasets, own.families, strict=True)
        return {"task, the domain apart": [domain if name in tasks else family for name, family in pairs]}

    (with_domain,) = groups(region).values()

    of_task = _datasets_by_label(by_task, region.datasets)
    kept = np.flatnonzero([len(of_task[task]) > 1 for task in by_task])
    labels = {"task": [by_task[k] for k in kept]}
    tasks_alone = cluster(similarity[np.ix_(kept, kept)], labels, draws[:, kept])
    added = cluster(similarity, groups(region), draws)
    with_chance = cluster_everyone(region, everyone, groups, seed)

    across = inside[:, None] != inside[None, :]
    relations = {
        "same task, one of the domain": same(by_task) & across,
        "both of the domain, other task": inside[:, None] & inside[None, :] & ~same(by_task),
        "other task, one of the domain": ~same(by_task) & across,
    }
    cosines = relate(similarity, relations, draws)
    there = {own.relation for own in cosines}
    others = sorted(set(with_domain) - {domain})
    text, rows, nearer = chance_told(region, everyone), [], False
    if {"same task, one of the domain", "both of the domain, other task"} <= there:
        first, second = (relations[name] for name in list(relations)[:2])
        gap = cosine_difference(similarity, first, second, draws)
        nearer = gap.low > 0
        rows.append(row("domain_clusters", "task minus domain", region.names, "difference of mean cosines", gap))
        text.append(
            f"Sharing the task rather than the domain makes the cosine of two members of different datasets higher by "
            f"{told(gap)} (95 % interval, bootstrap over the members of each dataset)."
        )
    section = Section(
        f"The domain {domain} is no task",
        "Does a domain cluster as a task does?",
        "No: with a Twitter group added, F1 NLI 100, Topic 61, Sentiment 71, Twitter 30.",
        f"with {domain} apart, F1 (spectral) {_f1_told(added, 'spectral')}; (average linkage) "
        f"{_f1_told(added, 'average linkage')}; by task alone F1 (spectral) {_f1_told(tasks_alone, 'spectral')}",
        _domain_verdict([*added, *with_chance], domain, nearer),
        text=(f"{domain}: {', '.join(f'{name} (task {task})' for name, task in tasks.items())}.", *text),
        figures=population_figures(region.names, similarity, {"dataset": region.datasets, "group": with_domain}, seed),
        tables=(score_table([*tasks_alone, *added, *with_chance]), cosine_table(cosines)),
        command=command,
        headline=(
            f"Clustered as a group of its own, {domain} is found with an F1 of {_f1_range(added, [domain])}, the tasks "
            f"beside it with {_f1_range(added, others)}."
        ),
        paper_short="F1 Twitter 30, tasks 61 to 100",
        measured_short=f"F1 {domain} {_f1_range(added, [domain])}, tasks {_f1_range(added, others)}",
    )
    rows += score_rows("domain_clusters", region.names, [*tasks_alone, *added, *with_chance])
    return [*rows, *cosine_rows("domain_clusters", region.names, cosines)], section


def _datasets_by_label(labels: Sequence[str], datasets: Sequence[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for label, dataset in zip(labels, datasets, strict=True):
        found.setdefault(label, set()).add(dataset)
    return found


def _f1_told(found: Sequence[Clustered], method: str) -> str:
    (own,) = (one for one in found if one.method == method)
    return ", ".join(f"{label} {100 * value:.0f}" for label, value in sorted(own.scores.f1.items()))


def _f1_range(found: Sequence[Clustered], labels: Sequence[str]) -> str:
    """The F1 of some labels over all methods."""
    return percent_told([own.scores.f1[label] for own in found for label in labels])


def _family_headline(cosines: Sequence[Related], found: Sequence[Clustered]) -> str:
    means = {own.relation: own.mean.value for own in cosines}
    recovered = (
        f"clustering recovers the family of {percent_told(accuracies(found))} of models, depending on the method"
    )
    if len(means) < 2:
        return f"{recovered.capitalize()}."
    near, far = means["same family, other dataset"], means["other family"]
    return (
        f"Two models of one family, but of different datasets, have a cosine of {near:.2f}, two of different families "
        f"{far:.2f}; {recovered}."
    )


def _domain_verdict(added: Sequence[Clustered], domain: str, nearer: bool) -> str:
    """Holds where the domain's F1 is under every task's by each method, and a shared task counts more than it."""
    worse = [
        flat(own.scores)[f"F1 {domain}"] < min(value for label, value in own.scores.f1.items() if label != domain)
        for own in added
    ]
    return verdict(map(reached, [*worse, nearer]))
