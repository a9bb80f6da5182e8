"""``wsr map``: who is where in a population."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wsr.cli.flags import Flag, Group, Page, Values

if TYPE_CHECKING:
    from wsr.region.region import Region
    from wsr.region.standing import Population
    from wsr.report.document import Section
    from wsr.statistics.cluster_count import ClusterCount
    from wsr.store import Store

AUTO = "auto"


PAGE = Page(
    "wsr map",
    "wsr map --store=STORE [options]",
    "Show the similarities, clusters, outliers, dendrogram and 2-D map of a store, or of a published matrix of "
    "similarities.",
    (
        "wsr map --store=runs/mine --out=runs/mine-map",
        r"wsr map --similarity=runs/mine-map/similarity.csv --labels_from='^(\w+)-' --out=runs/matrix-map",
    ),
    (
        Group(
            "What is mapped",
            (
                Flag("store", "Folder or URL of the store; give this or --similarity."),
                Flag(
                    "similarity",
                    "CSV file with a square matrix of similarities and a header of model names.",
                    value="FILE",
                ),
                Flag("labels", "CSV file with the columns model and label, for --similarity.", value="FILE"),
                Flag(
                    "labels_from",
                    "Regular expression for the names of the models, for --similarity; its first group is the label.",
                    value="REGEX",
                ),
            ),
        ),
        Group(
            "How it is mapped",
            (
                Flag(
                    "clusters",
                    "Number of clusters; auto chooses it by the silhouette.",
                    value="N",
                    accepts="whole number or auto",
                    otherwise="the number of labels; auto without labels",
                ),
                Flag("by_layer", "Map each layer of a store too.", False),
                Flag(
                    "sketch",
                    "Compute similarities from sketches of this many numbers per member, for stores of thousands of "
                    "members. The store keeps the sketches.",
                    0,
                    accepts="power of two, for example 4096; 0 for exact similarities",
                    at_least=0,
                ),
                Flag("seed", "Seed of the spectral clustering and of the 2-D map.", 0),
            ),
        ),
        Group(
            "Output",
            (
                Flag(
                    "out",
                    "Folder of map.html and of the tables as CSV files.",
                    value="FOLDER",
                    otherwise="runs/map-NAME",
                ),
            ),
        ),
    ),
)


@dataclass(frozen=True, eq=False)
class _Mapped:
    """A population, its labels by level, and its region if it comes from a store."""

    population: "Population"
    labels: Mapping[str, Sequence[str]]
    region: "Region | None" = None


def run(values: Values, positional: Sequence[str]) -> None:
    """Prints similarities and clusters, and writes the map."""
    from wsr.errors import WsrError
    from wsr.geometry.gram import cosine
    from wsr.region.outliers import flags as flags_of
    from wsr.statistics.cluster_count import count_clusters
    from wsr.studies.grouping import cluster_names, grouping_section, layer_section
    from wsr.studies.same_dataset_clusters import population_figures, similarity_section

    if bool(values.store) == bool(values.similarity):
        raise WsrError("give either --store or --similarity: the population to map")
    if values.by_layer and not values.store:
        raise WsrError("--by_layer reads the weights of the members, so it needs --store")
    if values.sketch and not values.store:
        raise WsrError("--sketch reads the weights of the members, so it needs --store")
    mapped = _from_store(values) if values.store else _from_file(values)
    names, similarity = mapped.population.names, cosine(mapped.population.gram)
    count = count_clusters(similarity, seed=values.seed)
    clusters, why = _how_many(values.clusters, mapped, count)
    grouping = grouping_section(names, similarity, mapped.labels, flags_of(mapped.population), count, clusters, why)
    sections = [grouping]
    places = grouping.tables[0]
    found = {row[0]: int(str(row[places.columns.index("cluster")])) - 1 for row in places.rows}
    groups = next(iter(mapped.labels.values()), None) or cluster_names([found[name] for name in names])
    figures = population_figures(names, similarity, mapped.labels or {"cluster": groups}, values.seed)
    scored = _scored(mapped)
    if scored:
        part, labels = scored
        _, section = similarity_section([names[k] for k in part], similarity[part][:, part], labels, seed=values.seed)
        sections.insert(0, section)
    if not scored or len(scored[0]) < len(names):
        sections[-1] = _with_figures(grouping, figures)
    if mapped.region is not None and values.by_layer:
        sections.append(layer_section(mapped.region, groups))
    where = values.store or values.similarity
    out = Path(values.out) if values.out else Path("runs") / f"map-{Path(where).stem}"
    for section in sections:
        _show(section)
    _write(out, where, mapped, figures[1].data, bool(scored), sections)


def _how_many(asked: str | None, mapped: _Mapped, count: "ClusterCount") -> tuple[int, str]:
    from wsr.errors import WsrError

    models = len(mapped.population)
    if asked and asked != AUTO:
        if not asked.isdigit() or not 1 <= int(asked) <= models:
            raise WsrError(f"--clusters={asked}: expected auto or a number from 1 to {models}, the number of models")
        return int(asked), "as asked"
    if mapped.labels and asked != AUTO:
        level, own = next(iter(mapped.labels.items()))
        return len(set(own)), f"as many as there are labels of the {level}"
    return count.used, "as the silhouette says" if count.used > 1 else "as no number does better than chance"


def _from_store(values: Values) -> _Mapped:
    from wsr.region.learned import learned_region
    from wsr.region.standing import UNKNOWN, Population
    from wsr.store import Store

    store = Store.open(values.store)
    region = learned_region(store)
    _refuse_nobody(values.store, len(region))
    population = _sketched(store, region, values.sketch) if values.sketch else Population.of(region)
    labels = {"dataset": list(population.datasets), "family": list(population.families)}
    return _Mapped(population, labels if set(population.datasets) - set(UNKNOWN) else {}, region)


def _sketched(store: "Store", region: "Region", size: int) -> "Population":
    from wsr.region.sketch import products, sketches
    from wsr.region.standing import Population

    rows = sketches(region, store.sketch_file(size))
    print(f"similarity from sketches of {size} numbers: cosines are off by about {size**-0.5:.3f}")
    return Population.of(region, products(rows))


def _from_file(values: Values) -> _Mapped:
    from wsr.errors import WsrError
    from wsr.region.standing import Population
    from wsr.statistics.similarity_file import labels_from_names, labels_in_order, read_labels, read_similarity

    if values.labels and values.labels_from:
        raise WsrError("give either --labels or --labels_from, not both")
    names, similarity = read_similarity(values.similarity)
    labels: dict[str, list[str]] = {}
    if values.labels or values.labels_from:
        known = read_labels(values.labels) if values.labels else labels_from_names(names, values.labels_from)
        labels = {"label": labels_in_order(names, known, values.labels or values.labels_from)}
    own = tuple(labels.get("label", ("",) * len(names)))
    return _Mapped(Population(tuple(names), own, own, similarity, 0), labels)


def _refuse_nobody(where: str, members: int) -> None:
    from wsr.errors import WsrError

    if not members:
        raise WsrError(f"{where} has no members yet, so there is nothing to map; add some by wsr train or wsr import")


def _scored(mapped: _Mapped) -> tuple[list[int], dict[str, list[str]]] | None:
    """The models with known labels and these labels; None if there are none."""
    from wsr.region.standing import UNKNOWN

    finest = next(iter(mapped.labels.values()), [])
    part = [k for k, label in enumerate(finest) if label not in UNKNOWN]
    if not part:
        return None
    return part, {level: [own[k] for k in part] for level, own in mapped.labels.items()}


def _with_figures(section: "Section", figures: Sequence) -> "Section":
    from dataclasses import replace

    return replace(section, figures=(*section.figures, *figures))


def _show(section: "Section") -> None:
    from wsr.cli.tables import show_table

    for line in section.text:
        print(line)
    for table in section.tables:
        print()
        show_table(table.columns, table.rows, title=table.title)
    print()


def _write(
    out: Path, where: str, mapped: _Mapped, positions: Mapping, scored: bool, sections: Sequence["Section"]
) -> None:
    from dataclasses import replace

    from wsr.geometry.gram import cosine
    from wsr.report.document import Document, Table
    from wsr.report.page import write_page
    from wsr.report.tables import write_csv

    out.mkdir(parents=True, exist_ok=True)
    names, tables = mapped.population.names, {section.title: section.tables for section in sections}
    rows = cosine(mapped.population.gram)
    write_csv(Table("", names, tuple(tuple(map(float, row)) for row in rows)), out / "similarity.csv")
    write_csv(tables["Clusters"][0], out / "clusters.csv")
    if scored:
        write_csv(sections[0].tables[0], out / "scores.csv")
    if "By layer" in tables:
        write_csv(tables["By layer"][0], out / "layers.csv")
    places = zip(positions["names"], positions["groups"], positions["x"], positions["y"], strict=True)
    write_csv(Table("", ("model", "label", "x", "y"), tuple(places)), out / "map.csv")
    # The paper's claims are about other models: nothing here has a verdict on them.
    own = tuple(replace(section, paper="", verdict="not tested") for section in sections)
    write_page(Document(f"Map of {Path(where).name}", (), {"From": where}, own), out / "map.html")
    print(f"map: {out / 'map.html'}")
