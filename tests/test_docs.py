"""The pages: links that lead somewhere, a line for each room, the face of the package in full, one Python example."""

import re
from pathlib import Path

import pytest
from test_rooms import ROOMS

import wsr

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "launch/README.md", "experiments/README.md"]


def table(text: str, section: str) -> list[list[str]]:
    """The rows of the first table of a section, without its header."""
    lines = re.search(rf"^## {section}\n.*?(^\|.*?)\n\n", text, re.MULTILINE | re.DOTALL)
    assert lines, section
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1].splitlines()[2:]]


def test_where_things_are_names_every_room_once_in_order_and_nothing_else():
    rows = [row[0].strip("`/") for row in table(README, "Where things are")]
    assert rows == [*(f"wsr/{room}" for room in ROOMS), "experiments", "launch", "benchmarks", "tests"]


@pytest.mark.parametrize("page", PAGES)
def test_links_between_files_lead_somewhere(page):
    """Those inside docs/ are followed when the site is built (make docs)."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\((?!\w+:)([^)#]*)(?:#([^)]*))?\)", text):
        file = (ROOT / page).parent / target if target else ROOT / page
        assert file.is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_the_reference_lists_the_face_of_the_package():
    page = (ROOT / "docs" / "api" / "index.md").read_text(encoding="utf-8").split("## Where things are")[0]
    first_cells = re.findall(r"^\| (.*?) \|", page, re.MULTILINE)
    named = re.findall(r"`wsr\.(\w+)", " ".join(first_cells))
    assert sorted(named) == sorted(wsr.__all__)


def test_the_start_page_shows_the_example_of_the_readme():
    def example(text: str) -> str:
        return re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]

    assert example((ROOT / "docs" / "index.md").read_text(encoding="utf-8")) == example(README)


def test_the_site_shows_every_page_and_room():
    """make docs misses a page of docs/ in the navigation; it cannot miss those that site_hooks.py makes."""
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for room in ROOMS:
        assert f"- api/{room}.md\n" in navigation
    for path in (ROOT / "docs" / "tutorials").glob("*.py"):
        assert f"- tutorials/{path.stem}.md\n" in navigation
