"""Copies the results of finished runs into the repository: compressed rows, documents and figures.

Command:  python -m experiments.collect --runs=runs/packaged --to=docs/results
"""

import subprocess
import sys
from pathlib import Path

from absl import app, flags

from wsr.errors import WsrError
from wsr.studies.harness.results import collect

_RUNS = flags.DEFINE_string("runs", "runs/packaged", "The folder that holds the folders of finished runs.")
_TO = flags.DEFINE_string("to", "docs/results", "The folder to copy the results to.")
_COMMIT = flags.DEFINE_string(
    "commit", None, "The commit of the code that made the runs. Default: the one checked out."
)


def main(argv: list[str]) -> None:
    """Copies the results of every run of a folder."""
    try:
        runs = sorted(path.parent for path in Path(_RUNS.value).glob("*/plan.json"))
        if not runs:
            raise WsrError(f"{_RUNS.value} holds no run; name the folder of runs with --runs")
        commit = _COMMIT.value or _checked_out()
        for run in runs:
            files = collect(run, Path(_TO.value), commit=commit)
            print(f"{run.name}: {len(files)} files, {sum(file.stat().st_size for file in files) / 1024:.0f} KiB")
    except WsrError as error:
        sys.exit(f"collect: error: {error}")


def _checked_out() -> str:
    """The commit checked out, marked if the code differs from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--match="]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    if done.returncode:
        raise WsrError("the code is in no git repository; name its commit with --commit")
    return done.stdout.strip()


if __name__ == "__main__":
    app.run(main)
