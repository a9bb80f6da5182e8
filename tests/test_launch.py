"""Launchers of this machine and of Slurm, from the first line to the last, against stand-ins for what they call."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from launch_place import ROOT, STUDY, Place, made_place, refused

LOCAL = ROOT / "launch" / "local.sh"
SCRIPTS = sorted(path.name for path in (ROOT / "launch").iterdir() if path.suffix in (".sh", ".sbatch"))
SHELLCHECK = Path(sys.executable).parent / "shellcheck"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return made_place(tmp_path)


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_has_nothing_to_say(script: str) -> None:
    done = subprocess.run([SHELLCHECK, ROOT / "launch" / script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert os.access(ROOT / "launch" / script, os.X_OK)


# On this machine.


@pytest.mark.long
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


@pytest.mark.long
def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    if not (ROOT / "wsr" / "cli" / "run_flags.py").is_file():
        pytest.skip("experiments have no --run=share yet")
    found = {}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        flags = ["--preset=smoke", "--datasets=made_up_a1,made_up_b1"]
        flags += [f"--out={folder / 'run'}", f"--shelf={folder / 'shelf'}"]
        done = subprocess.run(
            [LOCAL, "same_dataset_clusters", f"--processes={processes}", *flags],
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        members = folder.glob("shelf/stores/*/members/*/_CHECKPOINT_METADATA")
        found[processes] = {
            path.parent.name: json.loads(path.read_text())["custom_metadata"]["about"]["record"]["content_sha256"]
            for path in members
        }
    assert len(found[1]) > 2
    assert found[1] == found[2]


def test_one_process_is_one_call(place: Place) -> None:
    assert place.run("launch/local.sh", "task_clusters", "--preset=a b").returncode == 0
    assert place.calls("python") == [[*STUDY, "--preset=a b"]]


def test_each_process_has_its_share_and_one_more_finishes(place: Place) -> None:
    done = place.run(
        "launch/local.sh", "task_clusters", "--preset=smoke", "--processes=3", answers=[("0/3", "hello", 0)]
    )
    assert done.returncode == 0, done.stderr
    *shares, last = place.calls("python")
    assert sorted(shares) == [[*STUDY, "--preset=smoke", "--run=share", f"--share={share}/3"] for share in range(3)]
    assert last == [*STUDY, "--preset=smoke"]
    assert (place.path / "runs/task_clusters-share-0-of-3.log").read_text() == "hello\n"
    assert (place.path / "runs/task_clusters.log").is_file()


def test_a_share_that_fails_is_named_and_nothing_is_finished(place: Place) -> None:
    done = place.run("launch/local.sh", "task_clusters", "--processes=2", answers=[("--share=1/2", "no data", 3)])
    assert done.returncode == 3
    assert "share 1/2 failed with status 3, see runs/task_clusters-share-1-of-2.log: no data" in done.stderr
    assert "share 0/2 failed" not in done.stderr
    assert len(place.calls("python")) == 2


@pytest.mark.fault
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_all_shares_are_told_to_end(place: Place, sent: signal.Signals) -> None:
    process = place.start("launch/local.sh", "task_clusters", "--processes=2", SLEEPERS="2")
    process.send_signal(sent)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 143, output
    assert len(list(place.path.glob("stopped-*"))) == 2


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "usage: launch/local.sh EXPERIMENT"),
        (["../x"], "no experiments/../x.py"),
        (["task_clusters;ls"], "no experiments/task_clusters;ls.py"),
        (["task_clusters", "--processes=0"], "--processes=0: expected a number from 1 to 99"),
        (["task_clusters", "--processes=many"], "--processes=many: expected a number"),
    ],
)
def test_local_refuses_in_one_line(place: Place, words: list[str], line: str) -> None:
    refused(place, ["launch/local.sh", *words], line)


# On Slurm.

TASK = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_JOB_ID": "77"}


def test_a_task_of_slurm_runs_its_share(place: Place) -> None:
    done = place.run("launch/slurm.sbatch", "task_clusters", "--preset=smoke", **TASK)
    assert done.returncode == 0, done.stderr
    assert place.calls("python") == [[*STUDY, "--run=share", "--preset=smoke"]]
    assert place.calls("scontrol") == []


def test_what_slurm_reads_of_the_script(place: Place) -> None:
    lines = (ROOT / "launch/slurm.sbatch").read_text().splitlines()
    options = [line.split(maxsplit=1)[1] for line in lines if line.startswith("#SBATCH")]
    assert {"--array=0-7", "--requeue", "--signal=B:TERM@60", "--open-mode=append"} <= set(options)
    first_command = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    assert not any(line.startswith("#SBATCH") for line in lines[first_command:])  # Slurm would not read them


@pytest.mark.fault
@pytest.mark.parametrize(("restarts", "requeued"), [("0", [["requeue", "77_3"]]), ("20", [])])
def test_a_task_that_is_told_to_end_is_queued_again(place: Place, restarts: str, requeued: list[list[str]]) -> None:
    process = place.start("launch/slurm.sbatch", "task_clusters", **TASK, SLURM_RESTART_COUNT=restarts)
    process.send_signal(signal.SIGTERM)  # --signal=B: to the script and not to Python
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 143, output
    assert len(list(place.path.glob("stopped-*"))) == 1
    assert place.calls("scontrol") == requeued


def test_a_task_that_fails_is_not_queued_again(place: Place) -> None:
    done = place.run("launch/slurm.sbatch", "task_clusters", answers=[("experiments", "", 1)], **TASK)
    assert done.returncode == 1
    assert place.calls("scontrol") == []


def test_slurm_refuses_in_one_line(place: Place) -> None:
    refused(place, ["launch/slurm.sbatch", "task_clusters"], "not a task of an array")
    refused(place, ["launch/slurm.sbatch", "a b"], "no experiments/a b.py", **TASK)
    shutil.rmtree(place.path / ".venv")
    refused(place, ["launch/slurm.sbatch", "task_clusters"], "run make .venv/.installed there first", **TASK)
