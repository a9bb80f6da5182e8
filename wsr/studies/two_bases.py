"""Do members fine-tuned from two checkpoints of one architecture cluster by checkpoint?"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64

from wsr.geometry.gram import cosine
from wsr.geometry.similarity import gram_matrix, in_memory
from wsr.region.region import Region
from wsr.report.document import Figure, Section, Table
from wsr.runtime import seeds
from wsr.studies.harness.clustered import (
    cluster,
    cosine_difference,
    cosine_rows,
    cosine_table,
    member_draws,
    percent_told,
    relate,
    row,
    same,
    score_rows,
    score_table,
    told,
)
from wsr.studies.harness.verdict import above, power_told, reached, verdict
from wsr.studies.same_dataset_clusters import population_figures

HOLDS = 0.95
"""One-to-one accuracy by checkpoint from which members count as clustered by it."""
ORIGINS = ("each from its own checkpoint", "all from the midpoint of the two checkpoints")


def two_bases(
    regions: Mapping[str, Region], what: Sequence[str], *, seed: int = 0, command: str = ""
) -> tuple[list[dict], Section]:
    """Clusters the members of two bases together.

    Args:
      regions: by what their base is called; two of one architecture.
      what: sentences that say what these bases are.
    """
    (first, second), bases = regions.values(), list(regions)
    members = [*first.members, *second.members]
    names = [f"{base}: {name}" for base, region in regions.items() for name in region.names]
    labels = {
        "dataset": [member.dataset for member in members],
        "checkpoint": [base for base, region in regions.items() for _ in region.members],
    }
    own, midpoint, apart = _grams(first, second)
    strata = [f"{base} {dataset}" for base, dataset in zip(labels["checkpoint"], labels["dataset"], strict=True)]
    draws = member_draws(strata, seeds.generator(seed, "members drawn again"))
    base, dataset = same(labels["checkpoint"]), same(labels["dataset"])
    relations = {
        "same checkpoint, same dataset": base & dataset,
        "same checkpoint, other dataset": base & ~dataset,
        "other checkpoint, same dataset": ~base & dataset,
        "other checkpoint, other dataset": ~base & ~dataset,
    }
    rows: list[dict] = []
    figures: list[Figure] = []
    tables, by_checkpoint, gaps = [], [], []
    for origin, gram in zip(ORIGINS, (own, midpoint), strict=True):
        similarity = cosine(gram)
        found, cosines = cluster(similarity, labels, draws), relate(similarity, relations, draws)
        within, across = (relations[f"{which} checkpoint, same dataset"] for which in ("same", "other"))
        gap = cosine_difference(similarity, within, across, draws)
        gaps.append(gap)
        by_checkpoint.append([one.scores.one_to_one_accuracy for one in found if one.level == "checkpoint"])
        tables += [score_table(found, f"Clustering, {origin}"), cosine_table(cosines, f"Cosines, {origin}")]
        figures += population_figures(names, similarity, labels, seed)
        of_origin = [*score_rows("two_bases", names, found), *cosine_rows("two_bases", names, cosines)]
        of_origin.append(row("two_bases", "same minus other checkpoint", names, "difference of mean cosines", gap))
        rows += [one | {"origin": origin} for one in of_origin]
    radii = [region.radius() for region in regions.values()]
    tables.append(
        Table(
            "Distances",
            ("what", "length"),
            (("between the two checkpoints", apart), *(zip((f"radius, {name}" for name in bases), radii, strict=True))),
            "Radius: mean distance of a checkpoint's members from their centroid.",
        )
    )
    parts = [*(reached(accuracy >= HOLDS) for accuracy in by_checkpoint[1]), above(gaps[0])]
    shares = [percent_told(own) for own in by_checkpoint]
    section = Section(
        "Models cluster by their checkpoint",
        "Do members of two checkpoints of one architecture cluster by checkpoint?",
        "Yes: models from two different RoBERTa-base pretrainings cluster by checkpoint.",
        f"by checkpoint {shares[1]} seen from a common origin, {shares[0]} seen each from its own checkpoint; "
        f"same dataset, own checkpoints: cosine higher within a checkpoint by {told(gaps[0])}",
        verdict(parts),
        text=(
            *what,
            f"The two checkpoints are {apart:.3g} apart, {apart / max(radii):.1f} times the larger radius of their "
            "members: the larger that is, the more a common origin sees only this distance. Seen each from its own "
            "checkpoint, the question is whether a dataset moves both in the same direction.",
        ),
        figures=tuple(figures),
        tables=tuple(tables),
        command=command,
        headline=(
            f"Models from two checkpoints of one architecture fall apart by checkpoint: clustering recovers it for "
            f"{percent_told([*by_checkpoint[0], *by_checkpoint[1]])} of them, and two models of one dataset have a "
            f"cosine that is {gaps[0].value:.2f} higher within a checkpoint than across."
        ),
        paper_short="two RoBERTa-base: by checkpoint",
        measured_short=f"{percent_told([*by_checkpoint[0], *by_checkpoint[1]])} by checkpoint",
        power=power_told({"": gaps[0]}, "of cosine"),
    )
    return rows, section


def _grams(
    first: Region, second: Region
) -> tuple[Float64[np.ndarray, "members members"], Float64[np.ndarray, "members members"], float]:
    """The Gram matrices from each base and from the midpoint, and the distance of the bases.

    The difference of the bases counts as one more task vector, so every member is read once.
    """
    difference = in_memory(second.base, first.base)
    whole = gram_matrix(first.leaf_sizes, [*first.open_task_vectors(), *second.open_task_vectors(), difference])
    count = len(first) + len(second)
    side = np.repeat([-0.5, 0.5], [len(first), len(second)])
    coefficients = np.concatenate([np.eye(count), side[:, None]], axis=1)
    return whole[:count, :count], coefficients @ whole @ coefficients.T, float(np.sqrt(whole[-1, -1]))
