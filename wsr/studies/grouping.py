"""Into which clusters does a population fall, when nobody says, or when so many are asked for?"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Int

from wsr.geometry.gram import cosine
from wsr.region.outliers import Flag
from wsr.region.region import Region
from wsr.report.document import Cell, Figure, Section, Table
from wsr.statistics.cluster_count import ClusterCount, silhouette
from wsr.statistics.clustering import Dendrogram, dendrogram, scores
from wsr.studies.harness.clustered import Similarity, relate, same
from wsr.studies.layers import grams_by_leaf_group

Clusters = Int[np.ndarray, " models"]


def grouping_section(
    names: Sequence[str],
    similarity: Similarity,
    labels: Mapping[str, Sequence[str]],
    flags: Sequence[tuple[Flag, ...]],
    count: ClusterCount,
    clusters: int,
    why: str,
) -> Section:
    """Cuts the tree of average linkage into clusters and says who is in which.

    Args:
      names: of the models.
      similarity: their cosines.
      labels: what is known of them, by level, for the table and the colours; may be empty.
      flags: what speaks against each of them.
      count: what the criteria say.
      clusters: how many are wanted.
      why: whose wish that is, in words.
    """
    tree = dendrogram(similarity)
    found = tree.cut(clusters)
    finest = list(next(iter(labels.values()))) if labels else cluster_names(found.tolist())
    flagged = [names[k] for k, own in enumerate(flags) if own]
    text = [f"Into {clusters}, {why}. {_criteria_told(count)}"]
    if flagged:
        text.insert(0, f"Flagged before any clustering: {'; '.join(_told(names, flags))}.")
    return Section(
        "Clusters",
        "Into which clusters does the population fall?",
        "",
        f"by silhouette {count.by_silhouette}, by eigengap {count.by_eigengap}; used: {clusters}, {why}",
        "not tested",
        text=tuple(text),
        figures=(tree_figure(names, finest, tree, clusters),),
        tables=(_member_table(names, similarity, labels, flags, tree, found), _criteria_table(count)),
        headline=f"The population falls into {clusters} cluster{'s' * (clusters > 1)}, {why}.",
        measured_short=f"{clusters} cluster{'s' * (clusters > 1)}",
    )


def tree_figure(names: Sequence[str], groups: Sequence[str], tree: Dendrogram, clusters: int) -> Figure:
    """Returns the dendrogram, cut into so many clusters."""
    cut = f" The dashed line cuts it into {clusters} clusters." if clusters > 1 else ""
    return Figure(
        "dendrogram",
        "Tree of the population",
        f"Average linkage of 1 - cosine; a branch of one colour holds one group only.{cut}",
        {
            "merges": [{"left": own.left, "right": own.right, "height": own.height} for own in tree.merges],
            "names": list(names),
            "groups": list(groups),
            "height_label": "1 - cosine, mean between two branches",
            "cut": tree.height_of(clusters) if clusters > 1 else None,
        },
    )


def cluster_names(clusters: Iterable[int]) -> list[str]:
    """Returns what the clusters are called."""
    return [f"cluster {number + 1}" for number in clusters]


def layer_section(region: Region, groups: Sequence[str]) -> Section:
    """Says how far each layer by itself tells groups apart, and which layers tell the same story."""
    by_layer: dict[str, np.ndarray] = {}
    for (layer, _), gram in grams_by_leaf_group(region).items():
        by_layer[layer] = by_layer.get(layer, 0.0) + gram
    whole = sum(by_layer.values(), np.zeros((len(region), len(region))))
    similarities = {"whole encoder": cosine(whole)} | {name: cosine(gram) for name, gram in by_layer.items()}
    _, own = np.unique(np.array(groups), return_inverse=True)
    relations = {"same group": same(groups), "other group": ~same(groups)}
    rows: list[tuple[Cell, ...]] = []
    silhouettes = {}
    for name, similarity in similarities.items():
        lengths = np.diag(by_layer.get(name, whole))
        means = {one.relation: one.mean.value for one in relate(similarity, relations)}
        again = scores(groups, dendrogram(similarity).cut(len(set(groups))))
        silhouettes[name] = float(silhouette(similarity, own).mean())
        rows.append(
            (
                name,
                float(np.mean(lengths / np.where(np.diag(whole) > 0, np.diag(whole), 1.0))),
                *(means.get(relation) for relation in relations),
                silhouettes[name],
                again.adjusted_rand,
            )
        )
    pairs = np.triu_indices(len(region), 1)
    values = np.stack([similarity[pairs] for similarity in similarities.values()])
    figures = () if values.shape[1] < 3 else (_agreement(list(similarities), values),)
    best = max(by_layer, key=lambda layer: silhouettes[layer])
    return Section(
        "By layer",
        "Which layers carry the groups?",
        "",
        f"{best} separates the groups most by itself: mean silhouette {silhouettes[best]:.3f}, whole encoder "
        f"{silhouettes['whole encoder']:.3f}",
        "not tested",
        figures=figures,
        tables=(
            Table(
                "By layer",
                (
                    "part",
                    "share of squared length",
                    "cosine, same group",
                    "cosine, other group",
                    "silhouette of the groups",
                    "adjusted Rand of its own clusters",
                ),
                tuple(rows),
                "Groups: the datasets, or the clusters above where datasets are not known.",
            ),
        ),
        headline=f"By itself, {best} tells the groups apart best.",
        measured_short=f"{best} most",
    )


def _agreement(names: list[str], values: np.ndarray) -> Figure:
    with np.errstate(invalid="ignore", divide="ignore"):
        matrix = np.corrcoef(values)
    return Figure(
        "heatmap",
        "Do layers tell the same story?",
        "Correlation, over pairs of models, of their cosines in two parts of the encoder.",
        {
            "matrix": matrix,
            "names": names,
            "groups": names,
            "value_label": "correlation of cosines",
            "vmin": min(0.0, float(np.nanmin(matrix, initial=0.0))),
            "vmax": 1.0,
        },
    )


def _member_table(
    names: Sequence[str],
    similarity: Similarity,
    labels: Mapping[str, Sequence[str]],
    flags: Sequence[tuple[Flag, ...]],
    tree: Dendrogram,
    clusters: Clusters,
) -> Table:
    own = silhouette(similarity, clusters)
    return Table(
        "Who is in which cluster",
        ("model", *labels, "cluster", "silhouette", "flagged"),
        tuple(
            (
                names[k],
                *(level[k] for level in labels.values()),
                int(clusters[k]) + 1,
                float(own[k]),
                ", ".join(flag.kind for flag in flags[k]),
            )
            for k in tree.order
        ),
        "In the order of the tree. Silhouette: 1 deep in its cluster, 0 between two, below 0 nearer to another.",
    )


def _criteria_table(count: ClusterCount) -> Table:
    tried = sorted({*count.silhouettes, *count.eigengaps})
    return Table(
        "How many clusters",
        ("clusters", "mean silhouette", "eigengap"),
        tuple((k, count.silhouettes.get(k), count.eigengaps.get(k)) for k in tried),
        "Silhouette: Rousseeuw 1987, on 1 - cosine, average linkage. Eigengap: of the normalised Laplacian of the "
        "positive cosines, von Luxburg 2007. The largest of each speaks for its number.",
    )


def _criteria_told(count: ClusterCount) -> str:
    told = f"The silhouette speaks for {count.by_silhouette}, the eigengap for {count.by_eigengap}."
    if count.p_value is None:
        return f"{told} So few models allow no test of whether there are clusters at all."
    if count.p_value > 0.05:
        return f"{told} Models along one continuum have as good a silhouette (p {count.p_value:.2f}): one cluster."
    return f"{told} Models along one continuum have a worse silhouette (p {count.p_value:.2f})."


def _told(names: Sequence[str], flags: Sequence[tuple[Flag, ...]]) -> list[str]:
    return [f"{name}: {', '.join(flag.told for flag in own)}" for name, own in zip(names, flags, strict=True) if own]
