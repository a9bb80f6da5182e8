"""Writes the pages that `make check-report` looks at: a run, the kept results, each kind of figure and table.

Command:  python tests/browser/pages.py FOLDER
"""

import dataclasses
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from test_report_example import document as example  # noqa: E402

from wsr.report.document import Document  # noqa: E402
from wsr.report.join import join  # noqa: E402
from wsr.report.page import write_page  # noqa: E402
from wsr.studies.demo import PRESETS, run_demo  # noqa: E402


def main(folder: Path) -> None:
    """Makes the pages that are not there yet; the run takes a minute."""
    run_demo(PRESETS["smoke"], folder / "run", command="wsr demo --preset=smoke")
    kept = [Document.from_json(file.read_text("utf-8")) for file in sorted((ROOT / "docs/results").glob("*.json"))]
    write_page(example(), folder / "example" / "report.html")
    write_page(join(kept), folder / "kept" / "report.html")
    # Models of one's own: no claims, no verdicts.
    unclaimed = (dataclasses.replace(section, paper="", verdict="not tested") for section in example().sections)
    own = dataclasses.replace(example(), sections=tuple(unclaimed))
    write_page(own, folder / "own" / "report.html")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
