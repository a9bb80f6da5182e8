"""The pages of results: made from the rows, complete, with links to existing files and figures that the study has."""

import functools
import re
from pathlib import Path

import pytest

from experiments.results import PAGES
from tests.test_results import kept, run  # noqa: F401, a fixture
from wsr.errors import WsrError
from wsr.studies.harness.claims import load_claims, rendered_claims
from wsr.studies.harness.results import load_kept

DOCS = Path(__file__).parent.parent / "docs"
STUDIES = DOCS / "results"
STUDY_PAGES = sorted(STUDIES.glob("*.md"))
CLAIMS = """
[[paper]]
study = "hull"
claim = "Points between beat the ends."
paper = "88 %"
here = "{both} of pairs, {one} ({one.interval}) on a"
shows = "Lower by {loss} nats."
values.both = {as = "percent", group = "In' > In", metric = "P_B"}
values.one = {as = "number", group = "In' > In", metric = "P_B", dataset = "a"}
values.loss = {as = "nats", group = "In", metric = "generalised_loss"}

[[beyond]]
study = "hull"
claim = "More."
here = "none"
shows = "Nothing."
page = "more.md"
"""


def claims_page(kept, text=CLAIMS, block="claims: paper"):  # noqa: F811
    """A block of claims, made from ``text``."""
    (kept / "claims.toml").write_text(text)
    page = f"<!-- {block} -->\n<!-- end -->\n"
    return rendered_claims(page, load_claims(kept / "claims.toml"), load_kept(kept), "results").splitlines()[1:-1]


def test_a_claim_is_a_line_with_the_values_of_its_rows(kept):  # noqa: F811
    link = "1. [Points between beat the ends](results/hull.md)"
    assert claims_page(kept) == [
        "| claim | the paper | here | verdict |",
        "| --- | --- | --- | --- |",
        f"| {link} | 88\u00a0% | 75\u00a0% of pairs, 1.000 (0.750 to 1.000) on a | **holds in part** |",
    ]


def test_claims_beyond_the_paper_have_no_column_for_it_and_are_numbered_on(kept):  # noqa: F811
    assert claims_page(kept, block="claims: beyond") == [
        "| claim | here | verdict |",
        "| --- | --- | --- |",
        "| 2. [More](more.md) | none | **holds in part** |",
    ]


def test_a_claim_has_a_figure(kept):  # noqa: F811
    assert claims_page(kept, block="pictures: paper") == [
        "**1. Points between beat the ends.** *Holds in part.* Lower by +0.375 nats.<br>"
        "![Line](results/figures/hull.0.svg)"
    ]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('study = "hull"', 'study = "plane"', "names the study plane, which has no rows"),
        ('metric = "P_B"}', 'metric = "nonsense"}', "hull: no row has .*metric=nonsense"),
        ("{both}", "{neither}", "names 'neither', which its values do not have"),
        ("{one.interval}", "{both.interval}", "an interval needs exactly one row"),
        ("[[paper]]", "[[other]]", "no group of claims 'paper'; expected one of other, beyond"),
        ("claim =", "says =", "cannot be read as claims"),
    ],
)
def test_claims_that_cannot_be_made_are_an_error(kept, old, new, told):  # noqa: F811
    with pytest.raises(WsrError, match=told):
        claims_page(kept, CLAIMS.replace(old, new, 1))


def test_the_pages_of_the_project_are_what_their_rows_say():
    done = run("results")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_study_has_a_page_and_a_claim():
    studies = {file.name.removesuffix(".jsonl.gz") for file in STUDIES.glob("*.jsonl.gz")}
    claims = [claim for group in load_claims(STUDIES / "claims.toml").values() for claim in group]
    assert {claim.study for claim in claims} == studies
    assert {page.stem for page in STUDY_PAGES} == studies - {"merging"}
    for page in STUDY_PAGES:
        text = page.read_text()
        blocks = set(re.findall(rf"<!-- (\w+): {page.stem}\b", text))
        assert blocks >= {"verdict", "figures", "table"}, page
        assert f"python -m experiments.{page.stem} --preset=packaged" in text


def test_the_page_of_claims_is_short():
    assert len((DOCS / "results.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize("page", [DOCS.parent / page for page in PAGES] + STUDY_PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.is_relative_to(DOCS), f"{link}: the site holds docs/ only"
        assert target.is_file(), link
        headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if anchor else []
        assert not anchor or anchor in [_slug(heading) for heading in headings], link


@pytest.mark.parametrize("page", STUDY_PAGES, ids=lambda page: page.stem)
def test_figures_in_sentences_stand_in_the_study(page):
    """Every number with a decimal point, and every percentage, is one of the study, or rounds one of its own."""
    study = _studies()[page.stem]
    blocks = re.compile(r"<!-- (?:table|figures|verdict): .*?<!-- end -->|```.*?```", re.DOTALL)
    prose = blocks.sub("", page.read_text())
    for text, link in re.findall(r"\[([^\]]*)\]\((\w+)\.md", prose):  # a figure of the study that it links to
        assert not _numbers(text) - _near(_numbers(text), _values(_studies()[link])), text
    prose = re.sub(r"\[[^\]]*\]\(\w+\.md[^)]*\)", "", prose)
    told = _numbers(prose)
    assert told, "a page without figures"
    own = _values(study) | {float(one) for one in OWN.get(page.stem, ())}
    assert not told - _near(told, own)


OWN = {
    # of other studies, of the paper or of the code, as the text says
    "same_dataset_clusters": ("0.5", "95", "90"),
    "task_clusters": ("0.5", "90"),
    "data_size": ("95", "1.6"),
    "layers": ("95",),
    "procedure": ("13", "60"),
    "shared_seed": ("0.022",),
    "two_bases": ("95",),
    "convex_hull": ("0.5", "0.05", "95", "48", "56", "86", "97", "89.8"),
    "interpolation": ("95", "0.02"),
    "landscape": ("0.02",),
    "random_directions": ("0.02", "1.5", "3.2", "22.6"),
    "extrapolation": ("95", "2.3", "3.2"),
    "centroid_start": ("95", "77"),
    "few_shot": ("95",),
    "plain_base": ("95", "0.001", "64.6", "66.8", "77.5"),
    "which_start": ("95",),
    "probe_split": ("0.470", "0.031", "80"),
}
"""Figures that a page quotes from elsewhere."""


@functools.cache
def _studies():
    """The project's own studies, read once."""
    return load_kept(STUDIES)


def _numbers(text):
    """Tokens such as 0.194, +3.7 and 88 %, without their signs."""
    return set(re.findall(r"(?<![\w.])[+-]?(\d+\.\d+|\d+(?= %))", text))


def _values(study):
    """Every value of the rows, as a percentage too if it describes more than one point, and what the report says."""
    ends = [(row["metric"], row[key]) for row in study.rows for key in ("value", "low", "high") if key in row]
    values = [(metric, abs(value)) for metric, value in ends if value is not None]
    percentages = {100 * value for metric, value in values if metric not in ("generalised_loss", "accuracy")}
    said = " ".join(" ".join((section.measured, section.paper, *section.text)) for section in study.document.sections)
    cells = {cell for s in study.document.sections for t in s.tables for row in t.rows for cell in row}
    return (
        {value for _, value in values}
        | percentages
        | {abs(cell) for cell in cells if isinstance(cell, float)}
        | {float(one) for one in re.findall(r"\d+(?:\.\d+)?", said)}
    )


def _near(told, values):
    """Returns the numbers in ``told`` that equal a value when it is rounded to as many digits."""
    digits = {one: len(one.partition(".")[2]) for one in told}
    return {one for one in told if any(abs(float(one) - value) <= 0.5001 * 10 ** -digits[one] for value in values)}


def _slug(heading):
    """The anchor of a heading, as GitHub and mkdocs make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
