"""Launchers: an experiment through the script that runs it on this machine."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCAL = ROOT / "launch" / "local.sh"


def test_an_experiment_runs_and_its_output_is_kept(tmp_path):
    done = subprocess.run(
        [LOCAL, "demo", "--preset=smoke", f"--out={tmp_path / 'run'}"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "run" / "report.html").is_file()
    assert f"report:  {tmp_path / 'run' / 'report.html'}" in (ROOT / "runs" / "demo.log").read_text(encoding="utf-8")


def test_an_unknown_experiment_is_refused():
    done = subprocess.run([LOCAL, "nothing"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "launch: no experiments/nothing.py\n"


def test_every_experiment_tells_its_flags():
    for file in (ROOT / "experiments").glob("*.py"):
        if file.name != "__init__.py":
            done = subprocess.run(
                [sys.executable, "-m", f"experiments.{file.stem}", "--help"], cwd=ROOT, capture_output=True, text=True
            )
            # absl's own help ends with status 1
            assert "--out" in done.stdout, done.stderr
