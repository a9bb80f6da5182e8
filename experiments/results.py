"""Compares a page of results, or of faults, with the rows that are kept, or (--write) makes its tables from them.

Command:  python -m experiments.results          (the same as `make results-tables`)
"""

import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

from wsr.cli.flags import Flag, Group, Page, Values
from wsr.cli.program import call
from wsr.errors import WsrError
from wsr.runtime.atomic import write_atomically
from wsr.studies.harness.results import load_kept, rendered
from wsr.studies.harness.torture import TORTURE, read_torture, rendered_torture

PAGE = Page(
    "results",
    "python -m experiments.results [options]",
    "Compare the tables of a page with the rows that are kept, or write them from these rows.",
    (
        "python -m experiments.results --page=docs/results.md",
        "python -m experiments.results --page=docs/results.md --write",
    ),
    (
        Group(
            "What is compared",
            (
                Flag("page", "Page whose tables are compared.", "docs/results.md", value="FILE"),
                Flag("kept", "Folder written by experiments.collect.", "docs/results", value="FOLDER"),
                Flag("write", "Write the page instead of comparing it.", False),
            ),
        ),
    ),
)


def main(values: Values, positional: Sequence[str]) -> int:
    """Returns 1, after printing the difference, if the page differs from the rows."""
    page = Path(values.page)
    if not page.is_file():
        raise WsrError(f"there is no page {page}; name it with --page")
    found = page.read_text(encoding="utf-8")
    kept = Path(values.kept)
    wanted = rendered(found, load_kept(kept), results=kept.name)
    if TORTURE in wanted:
        wanted = rendered_torture(wanted, read_torture(kept / "torture.jsonl"))
    if values.write:
        write_atomically(page, wanted.encode())
        print(f"page: {page}")
        return 0
    if found == wanted:
        print("no difference")
        return 0
    names = (str(page), "as the rows say")
    print("".join(difflib.unified_diff(found.splitlines(True), wanted.splitlines(True), *names)), end="")
    return 1


if __name__ == "__main__":
    sys.exit(call(PAGE, main, sys.argv[1:]))
