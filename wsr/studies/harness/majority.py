"""Majority labels of clusters, repaired until each label has a cluster."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int


def repaired_majority(truth: Sequence[str], clusters: Int[np.ndarray, " models"]) -> list[str]:
    """Returns the label of each model under majority labels that are repaired until each label has a cluster.

    Each cluster takes the most frequent label of its models. While a label has no cluster, the first such label by name
    takes the cluster that holds most of its models, among those whose label another cluster has too. The released
    plotting code repairs majority labels as well; in which order is not known here.

    Args:
      truth: the label of each model.
      clusters: the cluster of each model.

    Example:
      >>> import numpy as np
      >>> from wsr.studies.harness.majority import repaired_majority
      >>> repaired_majority(["a", "a", "a", "b"], np.array([0, 0, 1, 1]))
      ['a', 'a', 'b', 'b']
    """
    names, true_ids = np.unique(np.asarray(truth, dtype=str), return_inverse=True)
    _, cluster_ids = np.unique(clusters, return_inverse=True)
    counts = np.zeros((cluster_ids.max() + 1, len(names)), np.int64)
    np.add.at(counts, (cluster_ids, true_ids), 1)
    labels = counts.argmax(axis=1)
    for lacking in sorted(set(range(len(names))) - set(labels.tolist())):
        shared = np.flatnonzero(np.bincount(labels, minlength=len(names))[labels] > 1)
        if len(shared):
            labels[shared[counts[shared, lacking].argmax()]] = lacking
    return [str(names[label]) for label in labels[cluster_ids]]
