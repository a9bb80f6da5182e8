"""Compares the pages made from kept results with the rows they are made from, or (--write) makes them anew.

Command:  python -m experiments.results          (the same as `make results-tables`)
"""

import difflib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from wsr.cli.flags import Flag, Group, Page, Values
from wsr.cli.program import call
from wsr.errors import WsrError
from wsr.runtime.atomic import write_atomically
from wsr.studies.harness.claims import CLAIMS, load_claims, rendered_claims
from wsr.studies.harness.results import Kept, load_kept, rendered
from wsr.studies.harness.torture import TORTURE, read_torture, rendered_torture

PAGES = ("docs/results.md", "docs/merging.md", "docs/reliability.md")
"""Pages with blocks, besides the page of each study in the folder of kept results."""

PAGE = Page(
    "results",
    "python -m experiments.results [options]",
    "Compare the pages made from kept results with the rows they are made from, or write them again.",
    (
        "python -m experiments.results --page=docs/results.md",
        "python -m experiments.results --page=docs/results.md --write",
    ),
    (
        Group(
            "What is compared",
            (
                Flag("page", "Pages to compare.", (), value="FILE,...", otherwise="all pages made from results"),
                Flag("kept", "Folder written by experiments.collect.", "docs/results", value="FOLDER"),
                Flag("write", "Write the pages instead of comparing them.", False),
            ),
        ),
    ),
)


def main(values: Values, positional: Sequence[str]) -> int:
    """Returns 1, after printing the difference, if a page is not what the rows say."""
    folder = Path(values.kept)
    pages = [Path(page) for page in values.page or PAGES]
    if not values.page:
        pages += sorted(folder.glob("*.md"))
    kept = load_kept(folder)
    made = [(page, *_made(page, folder, kept)) for page in pages]
    if values.write:
        _write(made)
        return 0
    differ = [_difference(*one) for one in made if one[1] != one[2]]
    print("".join(differ) or "no difference\n", end="")
    return int(bool(differ))


def _made(page: Path, folder: Path, kept: dict[str, Kept]) -> tuple[str, str]:
    """A page as it is, and as the rows say."""
    if not page.is_file():
        raise WsrError(f"there is no page {page}; name it with --page")
    found = page.read_text(encoding="utf-8")
    results = Path(os.path.relpath(folder, page.parent)).as_posix()
    wanted = rendered(found, kept, results=results)
    if CLAIMS in wanted:
        wanted = rendered_claims(wanted, load_claims(folder / "claims.toml"), kept, results)
    if TORTURE in wanted:
        wanted = rendered_torture(wanted, read_torture(folder / "torture.jsonl"))
    return found, wanted


def _write(made: Sequence[tuple[Path, str, str]]) -> None:
    for page, _, wanted in made:
        write_atomically(page, wanted.encode())
        print(f"page: {page}")


def _difference(page: Path, found: str, wanted: str) -> str:
    names = (str(page), "as the rows say")
    return "".join(difflib.unified_diff(found.splitlines(True), wanted.splitlines(True), *names))


if __name__ == "__main__":
    sys.exit(call(PAGE, main, sys.argv[1:]))
