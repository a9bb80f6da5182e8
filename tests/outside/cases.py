"""Runs a folder of cases, and prints what each says beside what is right, for a person to compare.

A case is a folder with ``expected.txt``, what is right, and ``make.py`` or ``run.sh``, which builds small inputs and
runs ``wsr`` on them. A case fails if a traceback shows or its script does not end.

Command:  make cases CASES=FOLDER
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

BIN = Path(__file__).parents[2] / ".venv" / "bin"
SECONDS = 900
"""Longest time of a case."""


def main(folder: Path) -> int:
    """Runs the cases under a folder, and returns 1 if one of them fails."""
    cases = sorted(path.parent for path in folder.rglob("expected.txt"))
    if not cases:
        print(f"{folder}: found no expected.txt; name a folder of cases with CASES=FOLDER")
        return 1
    failed = [case.name for case in cases if not _told(case)]
    print(f"{len(cases) - len(failed)} of {len(cases)} cases ran{f'; failed: {failed}' if failed else ''}")
    return int(bool(failed))


def _told(case: Path) -> bool:
    script = case / "run.sh"
    command = ["bash", str(script)] if script.exists() else [sys.executable, str(case / "make.py")]
    environment = {**os.environ, "WSR": str(BIN / "wsr"), "PYTHON": str(BIN / "python"), "JAX_PLATFORMS": "cpu"}
    with tempfile.TemporaryDirectory() as place:
        environment["WORK"] = f"{place}/inputs"
        os.mkdir(environment["WORK"])
        try:
            done = subprocess.run(
                command, cwd=place, env=environment, timeout=SECONDS, capture_output=True, text=True, check=False
            )
            said = done.stdout + done.stderr
        except subprocess.TimeoutExpired:
            said = f"Traceback: not at its end after {SECONDS} s"
    right = (case / "expected.txt").read_text(encoding="utf-8").strip()
    print(f"\n== {case.parent.name}/{case.name}\n-- right\n{right}\n-- found\n{said.strip()}", flush=True)
    return "Traceback" not in said


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])) if len(sys.argv) == 2 else "expected one folder: make cases CASES=FOLDER")
