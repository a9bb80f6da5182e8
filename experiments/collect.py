"""Copies the results of finished runs into the repository: compressed rows, documents and figures.

Command:  python -m experiments.collect --runs=runs/packaged --to=docs/results
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from wsr.cli.flags import Flag, Group, Page, Values
from wsr.cli.program import call
from wsr.errors import WsrError
from wsr.studies.harness.results import collect

PAGE = Page(
    "collect",
    "python -m experiments.collect [options]",
    "Copy the results of finished runs into the repository: compressed rows, documents and figures.",
    ("python -m experiments.collect --runs=runs/packaged --to=docs/results",),
    (
        Group(
            "What is copied",
            (
                Flag("runs", "Folder that holds the folders of finished runs.", "runs/packaged", value="FOLDER"),
                Flag("to", "Folder to which the results are copied.", "docs/results", value="FOLDER"),
                Flag("commit", "Commit of the code that made the runs.", otherwise="the commit that is checked out"),
            ),
        ),
    ),
)


def main(values: Values, positional: Sequence[str]) -> None:
    """Copies the results of every run of a folder."""
    runs = sorted(path.parent for path in Path(values.runs).glob("*/plan.json"))
    if not runs:
        raise WsrError(f"{values.runs} holds no run; name the folder of runs with --runs")
    commit = values.commit or _checked_out()
    for run in runs:
        files = collect(run, Path(values.to), commit=commit)
        print(f"{run.name}: {len(files)} files, {sum(file.stat().st_size for file in files) / 1024:.0f} KiB")


def _checked_out() -> str:
    """The commit that is checked out, marked as dirty if the code differs from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--match="]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    if done.returncode:
        raise WsrError("the code is not in a git repository; name its commit with --commit")
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(call(PAGE, main, sys.argv[1:]))
