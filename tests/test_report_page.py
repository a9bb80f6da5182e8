"""The page: one inert file, whatever the names are."""

import dataclasses
import functools
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from test_report_example import document, heatmap, lines

from wsr.errors import WsrError
from wsr.report.document import VERDICTS, Document, Figure, Section, Table
from wsr.report.page import page_html, write_page
from wsr.report.stylesheet import STYLESHEET
from wsr.report.tables import interval_cell

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><script>1</script>",
    "</title><b onclick=x>",
    "]]>--><!--",
    "\"&'",
)
VOID = {"meta", "link", "img", "br", "hr", "input"}


class _Reader(HTMLParser):
    """Collects every element with its attributes, the text outside of styles, and checks the nesting."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data


@functools.cache
def _whole() -> str:
    return page_html(document())


def _read(html: str) -> _Reader:
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert not reader.open
    return reader


def test_page_asks_for_nothing() -> None:
    html = _whole()
    reader = _read(html)
    assert not reader.tags.keys() & {
        "script",
        "img",
        "iframe",
        "object",
        "embed",
        "form",
        "base",
        "image",
        "foreignobject",
    }
    assert reader.tags["style"] == 1
    for tag, name, value in reader.attributes:
        assert not name.startswith("on")
        if name in ("href", "src", "xlink:href", "action"):
            assert value.startswith("#") or (tag, value) == ("link", "data:,")
        assert all(target.startswith("#") for target in re.findall(r"url\((.*?)\)", value))
        assert name == "xmlns" or "://" not in value
    assert "@import" not in html
    assert ("meta", "http-equiv", "Content-Security-Policy") in reader.attributes
    policy = next(value for _, name, value in reader.attributes if name == "content" and "default-src" in value)
    assert "default-src 'none'" in policy
    assert "script-src" not in policy


def test_page_says_everything_in_order() -> None:
    report = document()
    text = _read(_whole()).text.replace("\u00a0", " ")
    headlines = [section.headline for section in report.sections if section.headline]
    short = [section.measured_short for section in report.sections if section.measured_short]
    order = [report.title, *headlines, "Cosine of every two members", *short, *report.facts.values()]
    order += [section.question for section in report.sections]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    for section in report.sections:
        assert text.count(section.headline) == 2 or not section.headline  # among the findings and in its section
        assert text.count(section.verdict) >= 2
        for part in section.measured.split("; "):
            assert part in text
        for part in (section.paper, section.command, *section.text, *(figure.caption for figure in section.figures)):
            assert part in text


def test_identifiers_are_unique() -> None:
    lines_of, similarity = document().sections[2], document().sections[1]
    twice = dataclasses.replace(document(), sections=(lines_of, similarity, lines_of, similarity))
    reader = _read(page_html(twice))
    identifiers = [value for _, name, value in reader.attributes if name == "id"]
    assert len(identifiers) == len(set(identifiers))
    named = {value for _, name, value in reader.attributes if name == "aria-labelledby"}
    links = {value.removeprefix("#") for _, name, value in reader.attributes if name == "href" and value[0] == "#"}
    assert named | links <= set(identifiers)


def test_the_pictures_of_the_story_stand_once_and_at_the_top() -> None:
    html = _whole()
    story = html[: html.index('id="contents"')]
    assert re.findall(r"<h3>(.*?)</h3>", story) == ["Similarity of the task vectors", "Map of the members"]
    assert html.count("<h3>Similarity of the task vectors</h3>") == 1
    without = dataclasses.replace(document(), sections=(document().sections[2],))
    assert "story" not in page_html(without).partition("</style>")[2]


def test_figures_are_pictures_with_a_title() -> None:
    pictures = re.findall(r'<svg [^>]*role="img"[^>]*>', _whole())
    assert len(pictures) == sum(len(section.figures) for section in document().sections)
    for picture in pictures:
        labelled = re.search(r'aria-labelledby="(.*?)"', picture)
        assert labelled
        assert re.search(rf'<title id="{labelled[1]}">[^<]+</title>', _whole())


def test_a_document_of_an_earlier_version_shows_its_summary_and_its_long_answers() -> None:
    record = json.loads(document().to_json())
    for section in record["sections"]:
        for name in ("headline", "paper_short", "measured_short"):
            del section[name]
    old = Document.from_json(json.dumps(record))
    text = _read(page_html(old)).text.replace("\u00a0", " ")
    for line in old.summary:
        assert text.index(line) < text.index("What was run")
    for section in old.sections:
        assert text.count(section.paper) == 2  # in the index and in its section
        assert section.measured in text[: text.index("What was run")]
    assert not set(old.summary) & set(_read(_whole()).text.split("\n"))


def test_a_command_is_told_once_where_all_sections_share_it() -> None:
    shared = tuple(dataclasses.replace(section, command="wsr demo --out=x") for section in document().sections)
    report = dataclasses.replace(document(), facts={"command": "wsr demo --out=x"}, sections=shared)
    assert _read(page_html(report)).text.count("wsr demo --out=x") == 1


@pytest.mark.parametrize("name", HOSTILE)
def test_names_stay_inert(name: str) -> None:
    figure = Figure("heatmap", name, name, {"matrix": [[1, 0], [0, 1]], "names": [name] * 2, "groups": [name] * 2})
    table = Table(name, (name, "b"), ((name, 1),), name)
    section = Section(name, name, name, name, "holds in part", (name,), (figure,), (table,), name)
    hostile = _read(page_html(Document(name, (name,), {name: name, "command": name}, (section,))))
    plain = page_html(Document("x", ("x",), {"x": "x", "command": "x"}, (_renamed(section, "x"),)))
    # Not one element or attribute more than the same report with harmless names.
    words = name.count(" ")  # the command, told once, has its words wrapped one by one
    expected = _read(plain).tags + Counter({"span": words})
    assert hostile.tags == expected
    assert not any(attribute.startswith("on") for _, attribute, _ in hostile.attributes)
    assert name in hostile.text


def _renamed(section: Section, name: str) -> Section:
    figure = Figure("heatmap", name, name, {"matrix": [[1, 0], [0, 1]], "names": [name] * 2, "groups": [name] * 2})
    return Section(
        name, name, name, name, "refuted", (name,), (figure,), (Table(name, (name, "b"), ((name, 1),), name),), name
    )


def test_tables_fold_when_big_and_round_what_they_show() -> None:
    rows = tuple((f"member {k}", 0.123456789, 1234567) for k in range(13))
    big, small = Table("Big", ("name", "value", "tokens"), rows), Table("Small", ("name", "value", "tokens"), rows[:2])
    section = dataclasses.replace(document().sections[0], figures=(), tables=(big, small))
    reader = _read(page_html(Document("t", (), {}, (section,))))
    assert reader.tags["details"] == 1
    assert reader.tags["table"] == 3  # the index is one
    assert "0.123" in reader.text
    assert "0.1234" not in reader.text
    assert ("td", "title", "0.123456789") in reader.attributes
    assert "1\u202f234\u202f567" in reader.text


def test_missing_values_are_told_under_the_figure() -> None:
    figure = Figure(
        "heatmap", "t", "Caption.", {"matrix": [[1, None], [0.5, 1]], "names": ["a", "b"], "groups": ["a", "b"]}
    )
    section = dataclasses.replace(document().sections[0], figures=(figure,))
    text = _read(page_html(Document("t", (), {}, (section,)))).text
    assert "Caption. 1 value is missing or not finite, and not drawn." in text


def test_page_is_light_enough_to_send() -> None:
    section = dataclasses.replace(document().sections[1], figures=(heatmap(seeds=5), lines(count=14)))
    assert len(section.figures[0].data["names"]) == 35
    assert len(section.figures[1].data["series"]) == 42
    report = dataclasses.replace(document(), sections=(section,))
    assert len((page_html(report) + _whole()).encode()) < 1_500_000


def test_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "report.html"
    report = dataclasses.replace(document(), sections=document().sections[:1])
    write_page(report, path)
    first = path.read_bytes()
    write_page(report, path)
    assert path.read_bytes() == first == page_html(report).encode()
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
    (tmp_path / "taken").write_text("a file where a folder should be")
    with pytest.raises(WsrError, match="cannot write"):
        write_page(report, tmp_path / "taken" / "report.html")


def test_a_section_without_a_claim_has_no_verdict_and_no_paper():
    asked = Section("Mine", "Where is it?", "", "inside", "not tested", text=("It is inside.",))
    claimed = Section("Theirs", "Does it hold?", "98 %", "97 %", "holds")
    own, theirs = (_read(page_html(Document("d", (), {}, (section,)))).text for section in (asked, claimed))
    assert "The paper" not in own
    assert "not tested" not in own
    assert "inside" in own
    assert theirs.count("holds") == 2  # in the index and over the section
    assert theirs.count("The paper") == 2


@pytest.mark.parametrize("verdict", VERDICTS)
def test_every_verdict_has_a_mark_a_colour_and_its_power(verdict):
    section = Section("Theirs", "Does it hold?", "98 %", "97 %", verdict, power="It shows 0.1 nats.")
    html = page_html(Document("d", (), {}, (section,)))
    name = verdict.replace(" ", "-")
    assert f'class="verdict {name}"' in html
    assert f".{name}" in STYLESHEET
    assert "It shows 0.1 nats." in _read(html).text


def test_columns_break_the_lines_of_long_texts_alone() -> None:
    rows = (("short", "a text that is much longer than a name of a model", 0.5),)
    table = Table("T", ("a", "b", "c"), rows)
    section = dataclasses.replace(document().sections[0], figures=(), tables=(table,))
    html = page_html(Document("t", (), {}, (section,)))
    assert '<td>short</td><td class="prose">a text' in html
    assert '<td class="number" title="0.5">0.500</td>' in html


def test_an_interval_is_one_cell():
    assert interval_cell(0.1234, 0.9876) == "0.123 to 0.988"
    assert interval_cell(-0.5, float("inf")) is None
    assert interval_cell(None, 1.0) is None
