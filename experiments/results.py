"""Compares a page of results, or of faults, with the rows that are kept, or (--write) makes its tables from them.

Command:  python -m experiments.results          (the same as `make results-tables`)
"""

import difflib
import sys
from pathlib import Path

from absl import app, flags

from wsr.errors import WsrError
from wsr.runtime.atomic import write_atomically
from wsr.studies.harness.results import load_kept, rendered
from wsr.studies.harness.torture import TORTURE, read_torture, rendered_torture

_PAGE = flags.DEFINE_string("page", "docs/results.md", "The page.")
_KEPT = flags.DEFINE_string("kept", "docs/results", "Folder that experiments.collect wrote.")
_WRITE = flags.DEFINE_bool("write", False, "Write the page instead of comparing.")


def main(argv: list[str]) -> None:
    """Exits with 1, and shows the difference, where the page is not what the rows say."""
    page = Path(_PAGE.value)
    try:
        if not page.is_file():
            raise WsrError(f"there is no page {page}; name it with --page")
        found = page.read_text(encoding="utf-8")
        kept = Path(_KEPT.value)
        wanted = rendered(found, load_kept(kept), results=kept.name)
        if TORTURE in wanted:
            wanted = rendered_torture(wanted, read_torture(kept / "torture.jsonl"))
        if _WRITE.value:
            write_atomically(page, wanted.encode())
            print(f"page: {page}")
            return
    except WsrError as error:
        sys.exit(f"results: error: {error}")
    if found == wanted:
        print("no difference")
        return
    names = (str(page), "as the rows say")
    print("".join(difflib.unified_diff(found.splitlines(True), wanted.splitlines(True), *names)), end="")
    sys.exit(1)


if __name__ == "__main__":
    app.run(main)
