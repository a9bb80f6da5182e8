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


def test_experiments_tell_their_flags():
    for name in ("demo", "same_dataset_clusters"):
        done = subprocess.run(
            [sys.executable, "-m", f"experiments.{name}", "--help"], cwd=ROOT, capture_output=True, text=True
        )
        # absl's own help ends with status 1
        assert "--out" in done.stdout, done.stderr
        assert f"python -m experiments.{name}" in done.stdout
    assert "98 % accuracy" in done.stdout  # absl takes a percent sign for a place to fill in
