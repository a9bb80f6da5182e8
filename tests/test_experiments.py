"""Every experiment runs on its smallest preset, and takes what its dry run says."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from wsr.report.document import VERDICTS
from wsr.store.results import Results
from wsr.studies.harness.lab import Lab
from wsr.studies.harness.preset import PRESETS

FOLDER = Path(__file__).parent.parent / "experiments"
EXPERIMENTS = sorted(path.stem for path in FOLDER.glob("*.py") if "    launch(main, " in path.read_text())
QUICK = ("same_dataset_clusters",)
AT_MOST = ("extrapolation", "interpolation")
"""Experiments whose lines may share ends, so that they evaluate fewer points than they say."""


class CountingLab(Lab):
    """Counts the members that an experiment asks for, and keeps its points apart from those of others."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.asked = set()
        self.__dict__["results"] = Results.in_memory()

    def trained(self, jobs):
        """As the lab does."""
        self.asked |= {
            (self.preset, job.dataset.name, job.seed, job.size, job.shared_streams, job.recipe) for job in jobs
        }
        return super().trained(jobs)


@pytest.fixture(scope="session")
def shelf(tmp_path_factory):
    """Members that all experiments share."""
    return tmp_path_factory.mktemp("shelf")


def test_there_are_experiments():
    assert "same_dataset_clusters" in EXPERIMENTS


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in EXPERIMENTS]
)
@pytest.mark.usefixtures("few_resamples")
def test_an_experiment_finds_something_and_takes_what_it_said(name, shelf, tmp_path):
    module = importlib.import_module(f"experiments.{name}")
    preset, settings = PRESETS["smoke"], module.SETTINGS["smoke"]
    assert set(module.SETTINGS) == set(PRESETS)
    lab = CountingLab(preset, tmp_path, shelf, command=f"python -m experiments.{name} --preset=smoke")
    found = module.main(lab, settings)
    assert found
    for rows, section in found:
        assert section.verdict in VERDICTS
        assert section.command
        assert rows
        assert all({"metric", "value", "how"} <= row.keys() for row in rows)
    said = module.work(preset, settings)
    keys = lab.results.keys()
    kept = [lab.results.get(key) for key in keys]
    assert len(lab.asked) == said.members
    points = sum("losses" in point for point in kept)
    assert said.points / 2 < points <= said.points if name in AT_MOST else points == said.points
    assert sum("value" in point for point in kept) == said.few_shot_runs


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_says_its_question_command_and_cost(name):
    text = importlib.import_module(f"experiments.{name}").__doc__
    assert "?" in text.splitlines()[0]
    for word in (f"python -m experiments.{name}", "Cost:", "Expect:"):
        assert word in text


def run(*arguments):
    """An experiment in a process of its own."""
    command = [sys.executable, "-m", "experiments.same_dataset_clusters", *arguments]
    return subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True, check=False)


@pytest.mark.long
def test_a_launcher_runs_goes_on_and_refuses_another_plan(shelf, tmp_path):
    flags = ["--preset=smoke", f"--out={tmp_path / 'run'}", f"--shelf={shelf}"]
    done = run(*flags)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "plan.json",
        "results.jsonl",
        "document.json",
        "report.html",
    }
    assert "I1" not in done.stderr  # nothing of what the libraries log
    other = run(*flags, "--seeds=1")
    assert other.returncode == 1
    assert "holds a run of another plan (differing: settings.seeds)" in other.stderr
    assert "Traceback" not in other.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--preset=smok"], "did you mean 'smoke'"),
        pytest.param(["--preset=smoke", "--datasets=made_up_a"], "made_up_a1", marks=pytest.mark.long),
        pytest.param(["--preset=smoke", "extra"], "unexpected 'extra'", marks=pytest.mark.long),
    ],
)
def test_bad_input_gets_one_line(arguments, told, tmp_path):
    done = run(*arguments, f"--out={tmp_path / 'run'}", f"--shelf={tmp_path / 'shelf'}")
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.long
def test_a_dry_run_counts_and_leaves_nothing_behind(tmp_path):
    done = run("--preset=smoke", "--dry_run", "--seeds=7", f"--out={tmp_path / 'run'}")
    assert done.returncode == 0
    assert "members to fine-tune: 28 on 4 datasets" in done.stdout
    assert not (tmp_path / "run").exists()
