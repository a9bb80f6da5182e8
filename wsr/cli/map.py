"""maps a population: cosines of task vectors, clusters by two methods with their scores, a 2-D map. For a store, or for
a published matrix: --similarity=FILE.csv with --labels=FILE.csv or --labels_from=REGEX."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    import numpy as np

    from wsr.report.document import Section


def define(values: flags.FlagValues) -> None:
    """Defines the verb's flags."""
    text = flags.DEFINE_string
    text("store", None, "The store.", flag_values=values)
    text("similarity", None, "A square CSV of similarities with a header of model names.", flag_values=values)
    text("labels", None, "A CSV with the columns model,label.", flag_values=values)
    text("labels_from", None, "A regular expression on the names; its first group is the label.", flag_values=values)
    text("out", None, "Folder for similarity.csv, map.csv, scores.csv and map.html.", flag_values=values)
    flags.DEFINE_integer("seed", 0, "Of spectral clustering and the map.", flag_values=values)


def run(values: flags.FlagValues, positional: Sequence[str]) -> None:
    """Prints the scores and writes the map."""
    from wsr.cli.checks import refuse_positional
    from wsr.errors import WsrError
    from wsr.studies.clusters import similarity_section

    refuse_positional(positional)
    if bool(values.store) == bool(values.similarity):
        raise WsrError("give either --store or --similarity")
    if values.store:
        names, similarity, labels = _from_store(values)
        where = values.store
    else:
        names, similarity, labels = _from_file(values)
        where = values.similarity
    _, section = similarity_section(names, similarity, labels, seed=values.seed)
    out = Path(values.out) if values.out else Path("runs") / f"map-{Path(where).stem}"
    _show(section)
    _write(out, where, names, similarity, section)


def _from_store(values: flags.FlagValues) -> tuple[Sequence[str], "np.ndarray", dict[str, list[str]]]:
    from wsr.cli.population import open_region

    _, region = open_region(values.store)
    labels = {"dataset": list(region.datasets), "family": list(region.families)}
    return list(region.names), region.similarity(), labels


def _from_file(values: flags.FlagValues) -> tuple[Sequence[str], "np.ndarray", dict[str, list[str]]]:
    from wsr.errors import WsrError
    from wsr.similarity_file import labels_from_names, labels_in_order, read_labels, read_similarity

    if bool(values.labels) == bool(values.labels_from):
        raise WsrError("a matrix needs labels: give either --labels or --labels_from")
    names, similarity = read_similarity(values.similarity)
    known = read_labels(values.labels) if values.labels else labels_from_names(names, values.labels_from)
    return names, similarity, {"label": labels_in_order(names, known, values.labels or values.labels_from)}


def _show(section: "Section") -> None:
    from wsr.cli.tables import show_table

    for table in section.tables:
        show_table(table.columns, table.rows, title=table.title)
        print()
    for line in section.text:
        print(line)


def _write(out: Path, where: str, names: Sequence[str], similarity: "np.ndarray", section: "Section") -> None:
    from wsr.report.document import Document, Table
    from wsr.report.page import write_page
    from wsr.report.tables import write_csv

    out.mkdir(parents=True, exist_ok=True)
    matrix = Table("", tuple(names), tuple(tuple(map(float, row)) for row in similarity))
    write_csv(matrix, out / "similarity.csv")
    write_csv(section.tables[0], out / "scores.csv")
    positions = next(figure.data for figure in section.figures if figure.kind == "map")
    rows = zip(positions["names"], positions["groups"], positions["x"], positions["y"], strict=True)
    write_csv(Table("", ("model", "label", "x", "y"), tuple(rows)), out / "map.csv")
    write_page(Document(f"Map of {where}", section.text, {}, (section,)), out / "map.html")
    print(f"map: {out / 'map.html'}")
