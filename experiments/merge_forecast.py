"""Fits the forecast of whether a merge helps on the kept rows of the study of merging, and keeps it with the code.

Command:  python -m experiments.merge_forecast
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from wsr.cli.flags import Flag, Group, Page, Values
from wsr.cli.program import call
from wsr.errors import WsrError
from wsr.runtime.atomic import write_atomically
from wsr.studies.harness.results import load_kept
from wsr.studies.merging_outlook import base_in, fitted

STUDY = "merging"

PAGE = Page(
    "merge_forecast",
    "python -m experiments.merge_forecast [options]",
    "Fit the forecast of whether a merge helps on the kept rows of the study of merging.",
    ("python -m experiments.merge_forecast",),
    (
        Group(
            "Files",
            (
                Flag("kept", "Folder written by experiments.collect.", "docs/results", value="FOLDER"),
                Flag("to", "File of the forecast.", "wsr/studies/merge_forecast.json", value="FILE"),
            ),
        ),
    ),
    ("wsr bench-merging prints the forecast of its members if the file is there.",),
)


def main(values: Values, positional: Sequence[str]) -> None:
    """Fits and writes the forecast."""
    kept = load_kept(Path(values.kept)).get(STUDY)
    if kept is None:
        raise WsrError(f"{values.kept} has no rows of the study {STUDY}; run it and experiments.collect first")
    forecast = fitted(kept.rows)
    content = {
        "command": f"{kept.command}; python -m experiments.merge_forecast",
        "commit": kept.commit,
        "base": base_in(kept.rows),
        "forecast": forecast.plain(),
    }
    write_atomically(Path(values.to), (json.dumps(content, indent=1) + "\n").encode())
    print(f"forecast of {len(forecast.intercepts)} methods from {forecast.populations} populations: {values.to}")


if __name__ == "__main__":
    sys.exit(call(PAGE, main, sys.argv[1:]))
