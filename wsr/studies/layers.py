"""Which layers, and which kinds of parameters, carry the clusters?"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from wsr.geometry.gram import cosine
from wsr.geometry.similarity import gram_matrix, megabytes
from wsr.region.region import Region
from wsr.report.document import Figure, Section, Table
from wsr.report.tables import interval_cell
from wsr.runtime import seeds
from wsr.runtime.progress import progress
from wsr.statistics.interval import Interval
from wsr.studies.harness.clustered import (
    Clustered,
    Related,
    cluster,
    cosine_difference,
    cosine_rows,
    member_draws,
    relate,
    row,
    same,
    score_rows,
)
from wsr.studies.harness.verdict import reached, verdict

HOLDS = 0.95
"""One-to-one accuracy from which a part of the encoder counts as clustered by itself."""

Gram = Float64[np.ndarray, "members members"]


@dataclass(frozen=True)
class Part:
    """The similarity of members in some leaves of the encoder."""

    name: str
    entries: int
    share: float
    """Share of the squared length of the task vectors, mean over members."""
    clustered: list[Clustered]
    related: list[Related]
    separation: Interval
    """Mean cosine of two members of one dataset minus that of two members of different datasets."""


def layers(region: Region, *, seed: int = 0, command: str = "") -> tuple[list[dict], Section]:
    """Clusters members by each layer alone and by each kind of parameter alone."""
    grams = grams_by_leaf_group(region)
    sizes = region.leaf_sizes
    by_layer = _summed(grams, {key: key[0] for key in grams})
    by_kind = _summed(grams, {key: key[1] for key in grams})
    draws = member_draws(region.datasets, seeds.generator(seed, "members drawn again"))
    whole = sum(grams.values(), np.zeros_like(region.gram))
    lengths = np.diag(whole)
    count = len(by_layer) + len(by_kind)
    entries = {name: sum(n for path, n in sizes.items() if name in group_of(path)) for name in (*by_layer, *by_kind)}

    def part(name: str, gram: Gram) -> Part:
        similarity = cosine(gram)
        within, across = same(region.datasets), ~same(region.datasets)
        pairs = {"same dataset": within, "other dataset": across}
        share = float(np.mean(np.diag(gram) / lengths))
        found = cluster(similarity, {"dataset": region.datasets})
        separation = cosine_difference(similarity, within, across, draws, comparisons=count)
        return Part(name, entries.get(name, sum(sizes.values())), share, found, relate(similarity, pairs), separation)

    all_of_it = part("whole encoder", whole)
    of_layers = [part(name, gram) for name, gram in by_layer.items()]
    of_kinds = [part(name, gram) for name, gram in by_kind.items()]
    section = Section(
        "Every layer carries the clusters",
        "Does every layer, and every kind of parameter, carry the clusters by itself?",
        "Not in the paper, which takes the flattened encoder.",
        f"{_clustering(of_layers)} of {len(of_layers)} layers and {_clustering(of_kinds)} of {len(of_kinds)} kinds of "
        f"parameters cluster by dataset with at least {100 * HOLDS:.0f} % (average linkage)",
        _verdict([*of_layers, *of_kinds]),
        text=_told(all_of_it, of_layers, of_kinds),
        figures=(_figure("layer", all_of_it, of_layers), _figure("kind of parameter", all_of_it, of_kinds)),
        tables=(_table("By layer", [all_of_it, *of_layers]), _table("By kind of parameter", [all_of_it, *of_kinds])),
        command=command,
        headline=(
            f"{_clustering(of_layers)} of {len(of_layers)} layers and {_clustering(of_kinds)} of {len(of_kinds)} kinds "
            "of parameters tell the datasets apart by themselves; "
            f"{max(of_layers, key=lambda part: part.separation.value).name} does so most."
        ),
        paper_short="not in the paper",
        measured_short=f"{_clustering(of_layers)} of {len(of_layers)} layers, "
        f"{_clustering(of_kinds)} of {len(of_kinds)} kinds",
    )
    rows = []
    for study, parts in (("layers", [all_of_it, *of_layers]), ("kinds", of_kinds)):
        for own in parts:
            of_part = [
                *score_rows(study, region.names, own.clustered),
                *cosine_rows(study, region.names, own.related),
                row(study, "same dataset minus other", region.names, "difference of mean cosines", own.separation),
            ]
            rows += [one | {"part": own.name} for one in of_part]
    return rows, section


def grams_by_leaf_group(region: Region) -> dict[tuple[str, str], Gram]:
    """Returns the Gram matrix of the members in each group of leaves, by layer and kind; each leaf is read once."""
    members, sizes = region.open_task_vectors(), region.leaf_sizes
    groups: dict[tuple[str, str], dict[str, int]] = {}
    for path, size in sizes.items():
        groups.setdefault(group_of(path), {})[path] = size
    grams, entries = {}, 0
    with progress("similarity by layer", megabytes(sum(sizes.values()), members), "MB") as counter:
        for group, of_group in groups.items():
            grams[group] = gram_matrix(of_group, members, counter=counter)
            entries += sum(of_group.values())
            counter.advance(megabytes(entries, members) - counter.done)  # what rounding left out
    return dict(sorted(grams.items(), key=lambda item: _order(item[0])))


def group_of(path: str) -> tuple[str, str]:
    """Returns the layer and the kind of a leaf: ("layer 0", "attention/query") for layers/0/attention/query/kernel."""
    numbered = re.match(r"layers/(\d+)/(.+)", path)
    layer, rest = (f"layer {int(numbered[1]) + 1}", numbered[2]) if numbered else tuple(path.split("/", 1))
    owner, _, leaf = rest.rpartition("/")
    if owner.rpartition("/")[2] == "norm":
        return layer, "layer norms"
    if leaf == "bias":
        return layer, "biases"
    return layer, owner if numbered else f"{layer}/{owner}"


def _order(group: tuple[str, str]) -> tuple[int, str]:
    numbered = re.match(r"layer (\d+)", group[0])
    return (int(numbered[1]) if numbered else 0), group[1]


def _summed(grams: Mapping[tuple[str, str], Gram], names: Mapping[tuple[str, str], str]) -> dict[str, Gram]:
    found: dict[str, Gram] = {}
    for key, gram in grams.items():
        found[names[key]] = found.get(names[key], 0.0) + gram
    return found


def _accuracy(part: Part, method: str) -> float:
    return next(own.scores.one_to_one_accuracy for own in part.clustered if own.method == method)


def _clustering(parts: Sequence[Part]) -> int:
    return sum(_accuracy(part, "average linkage") >= HOLDS for part in parts)


def _verdict(parts: Sequence[Part]) -> str:
    return verdict(reached(_accuracy(part, "average linkage") >= HOLDS) for part in parts)


def _told(whole: Part, of_layers: Sequence[Part], of_kinds: Sequence[Part]) -> tuple[str, ...]:
    text = [f"Over the whole encoder the separation is {whole.separation.value:.3f}."]
    for what, parts in (("layers", of_layers), ("kinds of parameters", of_kinds)):
        ordered = sorted(parts, key=lambda part: part.separation.value)
        text.append(
            f"Of the {what} {ordered[-1].name} separates datasets most ({ordered[-1].separation.value:.3f}), "
            f"{ordered[0].name} least ({ordered[0].separation.value:.3f})."
        )
        failing = [part.name for part in parts if _accuracy(part, "average linkage") < HOLDS]
        if failing:
            text.append(f"Not clustered by themselves: {', '.join(failing)}.")
    return tuple(text)


def _figure(what: str, whole: Part, parts: Sequence[Part]) -> Figure:
    rows = []
    for part in (whole, *parts):
        interval = part.separation
        separation = {"mean": interval.value, "low": interval.low, "high": interval.high}
        accuracy = {"name": "clustering accuracy (average linkage)", "mean": _accuracy(part, "average linkage")}
        rows.append({"name": part.name, "series": [{"name": "separation", **separation}, accuracy]})
    return Figure(
        "intervals",
        f"Separation of datasets by {what}",
        "Separation: mean cosine of two members of one dataset minus that of two members of different datasets. "
        f"{INTERVALS}",
        {"rows": rows, "x_label": "separation; share of members clustered rightly"},
    )


INTERVALS = (
    "Whiskers: bootstrap over the members of each dataset, 95 % for all layers and kinds of parameters together "
    "(Bonferroni)."
)


def _table(title: str, parts: Sequence[Part]) -> Table:
    columns = ("part", "entries", "share of squared length", *(own.relation for own in parts[0].related))
    return Table(
        title,
        (*columns, "separation", "interval", "accuracy (spectral)", "accuracy (average linkage)"),
        tuple(
            (
                part.name,
                part.entries,
                part.share,
                *(own.mean.value for own in part.related),
                part.separation.value,
                interval_cell(part.separation.low, part.separation.high),
                _accuracy(part, "spectral"),
                _accuracy(part, "average linkage"),
            )
            for part in parts
        ),
        f"Mean cosines of two members. {INTERVALS}",
    )
