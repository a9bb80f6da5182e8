"""docs/formats.md: every row of its tables of formats names a test that exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")


def rows(section):
    """The rows of a section's table, without its header."""
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


ROWS = [row for section in ("Read", "Written", "Refused") for row in rows(section)]


def test_every_section_has_rows():
    assert min(len(rows(section)) for section in ("Read", "Written", "Refused")) > 5


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_names_a_test_that_exists(row):
    named = re.fullmatch(r"`([\w/]+\.py)::(test_\w+)`", row[-1])
    assert len(row) == 3
    assert named, row[-1]
    tree = ast.parse((ROOT / "tests" / named[1]).read_text(encoding="utf-8"))
    assert named[2] in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
