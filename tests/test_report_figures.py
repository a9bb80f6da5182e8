"""Figures: well-formed, a hover title on every mark, no way to the outside, the same text each time."""

import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from test_report_example import extrapolation, heatmap, lines, map_of_models, plane, starts, strips, tree, triangle

from wsr.errors import WsrError
from wsr.report.document import Document, Figure, Section
from wsr.report.figures import draw, missing, save, save_all

SVG = "{http://www.w3.org/2000/svg}"
EXAMPLES = {
    "heatmap": heatmap(),
    "map": map_of_models(),
    "curves": lines(),
    "curves past the ends": extrapolation(),
    "groups": strips(),
    "intervals": starts(),
    "dendrogram": tree(),
    "contours": plane(),
    "triangle": triangle(),
}
KINDS = ["heatmap", "map", "curves", "groups", "intervals", "dendrogram", "contours", "triangle"]
HOSTILE = ("<script>alert(1)</script>", "\"&'", "]]>", "$\\frac{1}{2}$", "_hidden", "\x00\x1b\u202e", "名前", "a" * 300)


def _titles(svg: str) -> list[str]:
    """The titles of the marks; the first is that of the whole figure."""
    return [title.text or "" for title in ElementTree.fromstring(svg).iter(f"{SVG}title")][1:]


def _marks(figure: Figure) -> int:
    """Counts what a reader can point at, from the data alone."""
    data = figure.data
    if figure.kind == "heatmap":
        return len(data["names"]) ** 2
    if figure.kind == "map":
        return len(data["names"]) + len(data["marks"])
    if figure.kind == "curves":  # each line, its points, and the mean of each group
        named = {line.get("group") for line in data["series"]} - {None}
        return len(named) + sum(1 + len(line["x"]) for line in data["series"])
    if figure.kind in ("contours", "triangle"):  # each evaluated point, and the marks
        return np.size(data["values"]) + len(data["marks"])
    if figure.kind == "dendrogram":  # each model and each merge
        return len(data["names"]) + len(data["merges"])
    if figure.kind == "groups":
        return sum(len(group["values"]) + 1 for panel in data["panels"] for group in panel["groups"])
    return sum(len(entry["values"]) + 2 for row in data["rows"] for entry in row["series"])


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_mark_has_a_title(name: str) -> None:
    svg = draw(EXAMPLES[name])
    root = ElementTree.fromstring(svg)
    assert len(_titles(svg)) == _marks(EXAMPLES[name])
    assert sum(element.get("class") == "mark" for element in root.iter()) == _marks(EXAMPLES[name])
    label = root.find(f"{SVG}title")  # what a screen reader reads
    assert label is not None
    assert label.text == EXAMPLES[name].title
    assert (root.get("role"), root.get("aria-labelledby")) == ("img", label.get("id"))


@pytest.mark.parametrize("name", EXAMPLES)
def test_refers_to_nothing_outside_and_rules_nothing_else(name: str) -> None:
    root = ElementTree.fromstring(draw(EXAMPLES[name], prefix="here-"))
    identifiers = {element.get("id") for element in root.iter()} - {None}
    assert all(identifier.startswith("here-") for identifier in identifiers)
    for element in root.iter():
        assert element.tag.removeprefix(SVG) in {"svg", "g", "defs", "path", "use", "text", "title", "clipPath", "rect"}
        for key, value in element.attrib.items():
            assert not key.startswith("on")
            assert "http" not in value
            assert "import" not in value
            for target in re.findall(r"url\((.*?)\)", value) + ([value] if key == "href" else []):
                assert target[0] == "#"
                assert target[1:] in identifiers


@pytest.mark.parametrize("name", EXAMPLES)
def test_drawn_twice_is_the_same(name: str) -> None:
    assert draw(EXAMPLES[name]) == draw(EXAMPLES[name])


def test_drawing_leaves_matplotlib_as_it_was() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    draw(EXAMPLES["groups"])
    assert dict(matplotlib.rcParams) == before


def test_two_figures_share_no_identifier() -> None:
    found = [set(re.findall(r' id="(.*?)"', draw(EXAMPLES[name]))) for name in ("map", "curves past the ends")]
    assert all(found)
    assert len(set.union(*found)) == sum(map(len, found))


def test_colours_follow_the_theme() -> None:
    svg = draw(EXAMPLES["groups"])
    assert "fill: currentColor" in svg
    assert "var(--wsr-1, #0072b2)" in svg
    assert "#ffffff" not in svg  # no ground of its own
    drawn = set(re.findall(r"#[0-9a-f]{6}(?!\))", svg))
    assert not drawn, "a colour without a variable"


def _hostile(name: str) -> Mapping[str, Figure]:
    point = {"x": [0.0, 1.0], "y": [0.5, 0.6]}
    group = {"name": name, "values": [1.0, 2.0], "names": [name, name]}
    entry = {"name": name, "mean": 0.5, "low": 0.4, "high": 0.6, "values": [0.5]}
    mark = {"x": 0.5, "y": 0.5, "label": name}
    data: Mapping[str, Mapping[str, Any]] = {
        "heatmap": {"matrix": np.eye(2), "names": [name] * 2, "groups": [name] * 2, "value_label": name},
        "map": {**point, "names": [name] * 2, "groups": [name] * 2, "families": [name] * 2, "marks": [mark]},
        "curves": {
            "series": [{**point, "name": name, "group": name}, {**point, "name": "other"}],
            "x_label": name,
            "y_label": name,
            "marks": [{"x": 0.5, "label": name}],
        },
        "groups": {"panels": [{"title": name, "groups": [group]}], "y_label": name},
        "intervals": {"rows": [{"name": name, "series": [entry]}], "x_label": name},
        "dendrogram": {
            "merges": [{"left": 0, "right": 1, "height": 0.5}],
            "names": [name] * 2,
            "groups": [name] * 2,
            "height_label": name,
        },
        "contours": {
            **point,
            "values": np.eye(2),
            "x_label": name,
            "y_label": name,
            "value_label": name,
            "marks": [mark | {"group": name}],
        },
        "triangle": {
            "corners": [name] * 3,
            "coefficients": np.eye(3),
            "values": [0.1, 0.2, 0.3],
            "value_label": name,
            "marks": [{"coefficients": [0.2, 0.3, 0.5], "label": name}],
        },
    }
    return {kind: Figure(kind, name, name, values) for kind, values in data.items()}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", KINDS)
def test_names_are_only_text(kind: str, name: str) -> None:
    svg = draw(_hostile(name)[kind])
    root = ElementTree.fromstring(svg)
    assert not list(root.iter("script"))
    assert not list(root.iter(f"{SVG}script"))
    shown = "".join(letter if letter.isprintable() else "\ufffd" for letter in name)
    assert any(shown in title for title in _titles(svg))
    if len(name) < 20:
        assert any(shown in (text.text or "") for text in root.iter(f"{SVG}text"))


def _empty(kind: str, value: float | None) -> Figure:
    many = [] if value is None else [value, value]
    data: Mapping[str, Mapping[str, Any]] = {
        "heatmap": {
            "matrix": [[v] * len(many) for v in many],
            "names": ["a", "b"][: len(many)],
            "groups": ["a"] * len(many),
        },
        "map": {"x": many, "y": many, "names": ["a", "b"][: len(many)], "groups": ["a"] * len(many)},
        "curves": {"series": [{"name": "a", "x": many, "y": many}] if many else [], "x_label": "x", "y_label": "y"},
        "groups": {"panels": [{"title": "t", "groups": [{"name": "In", "values": many}]}], "y_label": "y"},
        "intervals": {
            "rows": [{"name": "a", "series": [{"name": "s", "mean": value}]}] if many else [],
            "x_label": "x",
        },
        "dendrogram": {
            "merges": [{"left": 0, "right": 1, "height": value}] if many else [],
            "names": ["a", "b"][: len(many)],
            "groups": ["a", "b"][: len(many)],
            "height_label": "h",
        },
        "contours": {
            "x": many,
            "y": many,
            "values": [many for _ in many],
            "x_label": "x",
            "y_label": "y",
            "value_label": "z",
        },
        "triangle": {
            "corners": ["a", "b", "c"],
            "coefficients": [[0.2, 0.3, 0.5] for _ in many],
            "values": many,
            "value_label": "z",
        },
    }
    return Figure(kind, "t", "c", data[kind])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("value", "told"), [(None, "there are no values"), (float("nan"), "every value is missing")])
def test_nothing_to_draw_is_said(kind: str, value: float | None, told: str) -> None:
    svg = draw(_empty(kind, value))
    assert told in " ".join(text.text or "" for text in ElementTree.fromstring(svg).iter(f"{SVG}text"))
    assert not _titles(svg)


def test_missing_values_are_left_out_and_counted() -> None:
    figure = heatmap()
    matrix = np.array(figure.data["matrix"])
    matrix[0, 1] = matrix[1, 0] = np.nan
    holed = Figure("heatmap", "t", "c", {**figure.data, "matrix": matrix})
    assert missing(figure) == ""
    assert missing(holed) == "2 values are missing or not finite, and not drawn."
    assert "vader_movie/0 and vader_movie/1: –" in _titles(draw(holed))

    panel = {"title": "t", "groups": [{"name": "In", "values": [1.0, np.inf, 3.0], "names": ["a", "b", "c"]}]}
    titles = _titles(draw(Figure("groups", "t", "c", {"panels": [panel], "y_label": "y"})))
    assert titles == ["a: 1.000", "c: 3.000", "mean of In: 2.000 (n = 2)"]


def test_heat_is_opacity_between_the_extremes_off_the_diagonal() -> None:
    matrix = [[1.0, 0.1, 0.3], [0.1, 1.0, 0.2], [0.3, 0.2, 1.0]]
    names = ["a", "b", "c"]
    root = ElementTree.fromstring(
        draw(Figure("heatmap", "t", "c", {"matrix": matrix, "names": names, "groups": names}))
    )
    cells = {mark[0].text: mark for mark in root.iter() if mark.get("class") == "mark"}

    def opacity(title: str) -> float:
        found = re.search(r"fill-opacity: ([\d.]+)", cells[title].get("style", ""))
        return float(found[1]) if found else 1.0

    assert 0 < opacity("a and b: 0.100") <= 0.001  # clear, yet there for the pointer
    assert opacity("b and c: 0.200") == pytest.approx(0.5, abs=1e-3)
    assert opacity("a and c: 0.300") == opacity("a and a: 1.000") == 1.0


def test_a_matrix_of_hundreds_is_one_small_picture() -> None:
    count = 280
    matrix = np.random.default_rng(0).uniform(0, 1, (count, count))
    names = [f"model {k}" for k in range(count)]
    svg = draw(Figure("heatmap", "t", "c", {"matrix": matrix, "names": names, "groups": ["a"] * 140 + ["b"] * 140}))
    matrix_image, scale_image = ElementTree.fromstring(svg).iter(f"{SVG}image")
    assert all(image.get("href", "").startswith("data:image/png;base64,") for image in (matrix_image, scale_image))
    assert _titles(svg) == [matrix_image[0].text]
    assert len(svg) < 1_000_000


@pytest.mark.parametrize("suffix", ["svg", "pdf", "png"])
def test_saved_files(tmp_path, suffix: str) -> None:
    first, second = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    save(EXAMPLES["intervals"], first)
    save(EXAMPLES["intervals"], second)
    content = first.read_bytes()
    assert content == second.read_bytes()
    assert content.startswith({"svg": b"<?xml", "pdf": b"%PDF", "png": b"\x89PNG"}[suffix])
    if suffix == "svg":  # other programs know no CSS variables
        ElementTree.fromstring(content)
        assert b"var(" not in content
    assert len(list(tmp_path.iterdir())) == 2


def test_save_refuses_what_it_cannot_write(tmp_path) -> None:
    with pytest.raises(WsrError, match=r"written as \.svg, \.pdf or \.png"):
        save(EXAMPLES["map"], tmp_path / "figure.gif")
    (tmp_path / "file").write_text("")
    with pytest.raises(WsrError, match="cannot write"):
        save(EXAMPLES["intervals"], tmp_path / "file" / "figure.svg")


@pytest.mark.parametrize("kind", ["contours", "triangle"])
def test_a_surface_of_one_value_or_with_a_hole_is_drawn(kind: str) -> None:
    data = dict(EXAMPLES[kind].data)
    values = np.array(data["values"], float)
    flat = Figure(kind, "t", "c", data | {"values": np.full_like(values, 0.5)})
    assert "0.500" in " ".join(_titles(draw(flat)))
    values.flat[4] = np.nan
    holed = Figure(kind, "t", "c", data | {"values": values})
    assert len(_titles(draw(holed))) == _marks(EXAMPLES[kind]) - 1
    assert missing(holed) == "1 value is missing or not finite, and not drawn."


def test_a_triangle_of_points_on_one_line_has_no_surface_but_its_points() -> None:
    coefficients = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]
    data = {"corners": ["a", "b", "c"], "coefficients": coefficients, "values": [1.0, 2.0, 3.0], "value_label": "z"}
    assert len(_titles(draw(Figure("triangle", "t", "c", data)))) == 3


def test_every_figure_of_a_document_is_saved_twice(tmp_path) -> None:
    first = Section("s", "q", "p", "m", "holds", figures=(EXAMPLES["map"], EXAMPLES["triangle"]))
    second = Section("s", "q", "p", "m", "holds", figures=(EXAMPLES["map"],))
    written = save_all(Document("d", (), {}, (first, second)), tmp_path / "figures")
    assert sorted(tmp_path.glob("figures/*")) == sorted(written)
    assert [path.name for path in written] == [
        f"{place}-{title}.{suffix}"
        for place, title in (
            ("01-1", "map-of-the-members"),
            ("01-2", "between-three-members"),
            ("02-1", "map-of-the-members"),
        )
        for suffix in ("svg", "pdf")
    ]
    assert all(path.read_bytes()[:5] in (b"<?xml", b"%PDF-") for path in written)


def test_a_branch_of_one_group_has_its_colour_and_a_mixed_one_has_none() -> None:
    root = ElementTree.fromstring(draw(tree()))
    colours = {}
    for mark in root.iter():
        if mark.get("class") == "mark" and len(mark):
            found = re.search(r"stroke: (var\(--wsr-[\w]+)", mark.get("style", ""))
            colours[mark[0].text] = found[1] if found else None
    elbows = {text: colour for text, colour in colours.items() if text.startswith("0.")}
    assert elbows == {
        "0.710: vader_movie/0, vader_movie/1": "var(--wsr-1",
        "0.740: vader_amazon/0, vader_amazon/1": "var(--wsr-2",
        "0.930: vader_movie/0, vader_movie/1, vader_amazon/0, vader_amazon/1": "var(--wsr-muted",
    }


def test_a_tree_of_hundreds_stays_small_and_names_nobody() -> None:
    count = 300
    merges = [
        {"left": 0 if k == 0 else count + k - 1, "right": k + 1, "height": 0.1 + k / count} for k in range(count - 1)
    ]
    names = [f"model {k}" for k in range(count)]
    figure = Figure(
        "dendrogram", "t", "c", {"merges": merges, "names": names, "groups": ["a"] * count, "height_label": "h"}
    )
    svg = draw(figure)
    assert len(_titles(svg)) == 2 * count - 1
    assert float(ElementTree.fromstring(svg).get("height", "0")) < 800
    assert not any("model" in (text.text or "") for text in ElementTree.fromstring(svg).iter(f"{SVG}text"))
