"""Do models of one dataset lie together by the Euclidean distance of their task vectors?

The distance mixes the directions of task vectors with their lengths, which depend on how long and on how much data a
member was trained. The paper found no clear clusters by it; how it clustered distances is not known here.
"""

import numpy as np
from jaxtyping import Float64

from wsr.region.region import Region
from wsr.report.document import Section, Table
from wsr.runtime import seeds
from wsr.studies.harness.clustered import (
    accuracies,
    accuracy_told,
    cluster,
    cosine_rows,
    member_draws,
    percent_told,
    relate,
    same,
    score_rows,
    score_table,
)
from wsr.studies.harness.verdict import reached, verdict

CLUSTERED = 0.95
"""One-to-one accuracy by dataset below which distances count as showing no clear clusters; cosines must reach it."""


def euclidean(region: Region, *, seed: int = 0, command: str = "") -> tuple[list[dict], Section]:
    """Clusters members by distance: the methods for cosines, on 1 minus the distance over the largest distance.

    Args:
      region: the members.
      seed: seed of the bootstrap.
      command: command line that reproduces the study.
    """
    distances = pairwise(region.gram)
    similarity = 1 - distances / max(float(distances.max()), np.finfo(np.float64).tiny)
    draws = member_draws(region.datasets, seeds.generator(seed, "members drawn again"))
    found = cluster(similarity, {"dataset": region.datasets, "family": region.families}, draws)
    by_dataset = [own for own in found if own.level == "dataset"]
    dataset = same(region.datasets)
    means = relate(distances, {"same dataset": dataset, "other dataset": ~dataset}, draws)
    lengths = np.sqrt(np.diagonal(region.gram))
    section = Section(
        "Euclidean distances show no clusters",
        "Do members of one dataset cluster by the Euclidean distance of their task vectors?",
        "No: Euclidean distances show no clear clusters, cosines do.",
        f"by dataset {accuracy_told(by_dataset)}",
        verdict(reached(own.scores.one_to_one_accuracy < CLUSTERED) for own in by_dataset),
        text=(
            f"The claim counts as holding for a method when the distances recover the dataset of fewer than "
            f"{100 * CLUSTERED:.0f} % of members. Lengths of task vectors run from {lengths.min():.3g} to "
            f"{lengths.max():.3g}; a cosine does not see them, a distance does.",
        ),
        tables=(
            score_table(found, "Clustering by distance", "Affinity: 1 minus the distance over the largest distance."),
            Table(
                "Euclidean distance of task vectors",
                ("pairs of models", "pairs", "mean", "smallest", "largest"),
                tuple(
                    (own.relation, len(own.cosines), own.mean.value, float(own.cosines.min()), float(own.cosines.max()))
                    for own in means
                ),
            ),
        ),
        command=command,
        headline=f"By Euclidean distance, clustering recovers the dataset of {percent_told(accuracies(by_dataset))} of "
        "models, depending on the method.",
        paper_short="no clear clusters",
        measured_short=f"{percent_told(accuracies(by_dataset))} by dataset",
    )
    rows = cosine_rows("euclidean", region.names, means)
    rows = [row | {"metric": "mean distance"} for row in rows]
    return [*score_rows("euclidean", region.names, found), *rows], section


def pairwise(gram: Float64[np.ndarray, "members members"]) -> Float64[np.ndarray, "members members"]:
    """Returns the distances of all pairs of task vectors from their inner products.

    Args:
      gram: inner products.

    Example:
      >>> import numpy as np
      >>> from wsr.studies.euclidean import pairwise
      >>> vectors = np.array([[3.0, 0.0], [0.0, 4.0]])
      >>> float(pairwise(vectors @ vectors.T)[0, 1])
      5.0
    """
    squares = np.diagonal(gram)
    distances = np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2 * gram, 0.0))
    np.fill_diagonal(distances, 0.0)
    return distances
