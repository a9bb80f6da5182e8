"""What is known of a population before its members are merged: lengths, cosines, subspaces, and few validation losses.

No test text is read. The losses are those that choose the best member anyway, on the first ``TEXTS`` validation texts
of each dataset.
"""

import hashlib
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Float

from wsr.geometry.gram import cosine, norms
from wsr.geometry.trees import flatten
from wsr.merging.task_matrices import TABLES_AND_HEADS
from wsr.region.region import Region
from wsr.store.results import Results
from wsr.studies.merged_models import Model, Outcomes

TEXTS = 50
"""Number of validation texts of each dataset whose loss is read."""
DIRECTIONS = 4
"""Number of singular directions of a task matrix that are compared."""


def features_of(region: Region, models: Sequence[Model], outcomes: Outcomes, results: Results) -> dict[str, float]:
    """Returns the features of a population, by name.

    - ``members`` and ``datasets``: the logarithm (base 2) of their numbers.
    - ``length``: the logarithm of the mean length of the task vectors, relative to the base's.
    - ``unequal lengths``: the logarithm of the longest length divided by the shortest.
    - ``cosine``: the mean cosine of two task vectors.
    - ``overlap``: the mean overlap of two members' leading subspaces, see ``subspace_overlap``.
    - ``learned``: how much lower the loss of a dataset's own members is than the base's under their heads, in nats.
    - ``gap``: how much higher the loss of the best single member is than that of the datasets' own members, in nats.

    Args:
      region: the members.
      models: the base, then the members.
      outcomes: scores a model on a validation split.
      results: keeps the overlap.
    """
    names = list(dict.fromkeys(region.datasets))
    losses = np.array([[outcomes(model, name, "validation")["own_losses"][:TEXTS].mean() for name in names]
                       for model in models])  # fmt: skip
    base, members = losses[0], losses[1:]
    is_own = np.array([[member.dataset == name for name in names] for member in region.members])
    own = np.where(is_own, members, 0).sum(axis=0) / is_own.sum(axis=0)
    lengths = np.maximum(norms(region.gram), 1e-12)
    of_base = np.sqrt(
        sum(float(np.square(np.asarray(leaf, np.float64)).sum()) for leaf in flatten(region.base).values())
    )
    pairs = np.triu_indices(len(region), 1)
    return {
        "members": float(np.log2(len(region))),
        "datasets": float(np.log2(len(names))),
        "length": float(np.log(lengths.mean() / of_base)),
        "unequal lengths": float(np.log(lengths.max() / lengths.min())),
        "cosine": float(cosine(region.gram)[pairs].mean()),
        "overlap": _kept_overlap(region, results),
        "learned": float((base - own).mean()),
        "gap": float(members.mean(axis=1).min() - own.mean()),
    }


def subspace_overlap(region: Region) -> float:
    """Returns how much the leading subspaces of two members' task matrices overlap, as a mean over pairs and matrices.

    The overlap of two subspaces with orthonormal bases ``U`` and ``V`` of ``r`` columns is ``||U^T V||_F^2 / r``: 1 for
    the same subspace, and ``r / n`` on average for random ones of ``n`` dimensions. The subspaces are those of the
    first ``DIRECTIONS`` right singular vectors of ``[inputs, outputs]``, so of the outputs; a matrix of lower rank has
    fewer, and one that a member did not change has none. Token tables are left out.

    Args:
      region: the members.

    Returns:
      The mean overlap; 0 if no two members changed one matrix.
    """
    base = flatten(region.base)
    paths = [
        path
        for path, leaf in base.items()
        if np.ndim(leaf) == 2 and min(np.shape(leaf)) > DIRECTIONS and not TABLES_AND_HEADS.search(path)
    ]
    bases: list[dict[str, np.ndarray]] = []
    for member in region.members:
        leaves = flatten(member.load())
        bases.append({path: _leading(np.asarray(leaves[path], np.float64) - np.asarray(base[path])) for path in paths})
    overlaps = []
    for first, second in combinations(bases, 2):
        for path in paths:
            directions = min(first[path].shape[1], second[path].shape[1])
            if directions:
                overlaps.append(np.sum((first[path].T @ second[path]) ** 2) / directions)
    return float(np.mean(overlaps)) if overlaps else 0.0


def _leading(matrix: Float[np.ndarray, "inputs outputs"]) -> Float[np.ndarray, "outputs directions"]:
    """The first right singular vectors, from the eigenvectors of the smaller of the two matrices of products."""
    from scipy.linalg import eigh

    wide = matrix.shape[0] < matrix.shape[1]
    products = matrix @ matrix.T if wide else matrix.T @ matrix
    last = len(products)
    values, vectors = eigh(products, subset_by_index=(last - DIRECTIONS, last - 1))
    kept = (values > 0) & (values > 1e-10 * values.max())  # squares of singular values
    vectors, lengths = vectors[:, kept], np.sqrt(values[kept])
    return matrix.T @ vectors / lengths if wide else vectors


def _kept_overlap(region: Region, results: Results) -> float:
    about = ("overlap", DIRECTIONS, region.base_sha256, [member.content_sha256 for member in region.members])
    key = hashlib.sha256(repr(about).encode()).hexdigest()
    if key not in results:
        results.put(key, overlap=np.asarray(subspace_overlap(region)))
    return float(results.get(key)["overlap"])
