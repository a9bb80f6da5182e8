"""How much of the similarity between datasets does a shared seed make?"""

from collections.abc import Mapping

from wsr.region.region import Region
from wsr.report.document import Figure, Section
from wsr.runtime import seeds
from wsr.statistics.interval import Interval
from wsr.studies.harness.clustered import (
    Clustered,
    Related,
    accuracy_told,
    cluster,
    cosine_difference,
    cosine_rows,
    cosine_table,
    member_draws,
    relate,
    row,
    same,
    score_rows,
    score_table,
    told,
)
from wsr.studies.harness.verdict import above, power_told, verdict

POPULATIONS = ("independent seeds", "shared seeds")
SAME_SEED, OTHER_SEED = "other dataset, same seed", "other dataset, other seed"


def shared_seed(
    independent: Region,
    shared: Region,
    seed_of: Mapping[str, int],
    classes: Mapping[str, int],
    *,
    seed: int = 0,
    command: str = "",
) -> tuple[list[dict], Section]:
    """Compares two populations on the same datasets and seeds.

    Args:
      independent: members whose random streams are derived from dataset and seed.
      shared: members whose streams are derived from the seed alone.
      seed_of: the seed of each member.
      classes: of each dataset; initial heads are alike only where these agree.
    """
    rows: list[dict] = []
    tables, chart, gaps, clusterings = [], [], {}, {}
    for name, region in zip(POPULATIONS, (independent, shared), strict=True):
        found, cosines, gap = _population(region, seed_of, classes, seed)
        gaps[name], clusterings[name] = gap, found
        tables += [score_table(found, f"Clustering, {name}"), cosine_table(cosines, f"Cosines, {name}")]
        chart.append({"name": name, "series": [_series(own) for own in cosines if own.relation != "same dataset"]})
        of_population = [*score_rows("shared_seed", region.names, found)]
        of_population += cosine_rows("shared_seed", region.names, cosines)
        of_population.append(
            row("shared_seed", "same seed minus other seed", region.names, "difference of mean cosines", gap)
        )
        rows += [one | {"population": name} for one in of_population]
    effect = gaps["shared seeds"]
    by_dataset = {name: [own for own in found if own.level == "dataset"] for name, found in clusterings.items()}
    section = Section(
        "A shared seed makes models look alike",
        "Do members of different datasets look alike because they share a seed?",
        "Not in the paper. With shared initial heads, task vectors of different datasets may agree by that alone.",
        f"members of different datasets with equal classes: same seed minus other seed {told(effect)} with shared "
        f"streams, {told(gaps['independent seeds'])} with independent ones",
        verdict([above(effect)]),
        text=(
            "Shared: initial head, order of the examples and dropout are derived from the seed alone, in place of "
            "dataset and seed. An initial head is the same only for datasets with as many classes, so the difference "
            "is taken over these.",
            *(f"Clustered by dataset, {name}: {accuracy_told(found)}." for name, found in by_dataset.items()),
        ),
        figures=(
            Figure(
                "intervals",
                "Cosine of two members of different datasets with equal classes",
                "Mean over pairs; whiskers: 95 % intervals, bootstrap over the members of each dataset.",
                {"rows": chart, "x_label": "mean cosine"},
            ),
        ),
        tables=tuple(tables),
        command=command,
        headline=(
            "Two models of different datasets look more alike when they share a seed: the cosine is higher by "
            f"{effect.value:+.3f} where their random streams come from the seed alone, and by "
            f"{gaps['independent seeds'].value:+.3f} where they come from dataset and seed."
        ),
        paper_short="not in the paper",
        measured_short=f"{effect.value:+.3f} shared, {gaps['independent seeds'].value:+.3f} independent",
        power=power_told({"": effect}, "of cosine"),
    )
    return rows, section


def _population(
    region: Region, seed_of: Mapping[str, int], classes: Mapping[str, int], seed: int
) -> tuple[list[Clustered], list[Related], Interval]:
    similarity = region.similarity()
    numbers = [str(seed_of[name]) for name in region.names]
    draws = member_draws(region.datasets, seeds.generator(seed, "members drawn again"))
    found = cluster(similarity, {"dataset": region.datasets, "seed": numbers}, draws)
    dataset, number = same(region.datasets), same(numbers)
    alike = same([classes[name] for name in region.datasets])
    relations = {
        "same dataset": dataset,
        SAME_SEED: ~dataset & alike & number,
        OTHER_SEED: ~dataset & alike & ~number,
        "other dataset, other classes, same seed": ~dataset & ~alike & number,
        "other dataset, other classes, other seed": ~dataset & ~alike & ~number,
    }
    gap = cosine_difference(similarity, relations[SAME_SEED], relations[OTHER_SEED], draws)
    return found, relate(similarity, relations, draws), gap


def _series(own: Related) -> dict:
    return {"name": own.relation, "mean": own.mean.value, "low": own.mean.low, "high": own.mean.high}
