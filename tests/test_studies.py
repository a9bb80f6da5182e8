"""The demo from end to end on the tiny encoder: what it says, what it keeps, and that it goes on after a kill."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from forked_cli import wsr

from wsr.errors import WsrError
from wsr.store.results import read_rows

DEMO = [sys.executable, "-m", "wsr.cli", "demo", "--preset=smoke"]


def run(folder):
    return wsr("demo", "--preset=smoke", f"--out={folder}", timeout=300)


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """A finished run of the smoke preset."""
    folder = tmp_path_factory.mktemp("demo") / "run"
    done = run(folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def values(folder):
    return [{key: row[key] for key in row if key != "how"} for row in read_rows(folder / "results.jsonl")]


@pytest.mark.long
def test_says_each_finding_in_one_line_and_where_they_are(demo):
    folder, output = demo
    lines = [line for line in output.splitlines() if line.startswith("- ")]
    assert len(lines) == len(json.loads((folder / "document.json").read_text())["sections"])
    assert f"report:  {folder}/report.html" in output
    assert f"results: {folder}/results.jsonl" in output


@pytest.mark.long
def test_rows_have_what_a_reader_needs(demo):
    rows = read_rows(demo[0] / "results.jsonl")
    for row in rows:
        assert {"study", "group", "coefficients", "members", "dataset", "metric", "value", "n", "how"} <= row.keys()
    assert {row["study"] for row in rows} == {
        "members",
        "similarity",
        "lines",
        "groups",
        "extrapolation",
        "directions",
        "centroid start",
    }
    assert {"member", "interior", "exterior"} <= {row["group"] for row in rows}


@pytest.mark.long
def test_no_start_was_trained_on_its_target(demo):
    starts = [row for row in read_rows(demo[0] / "results.jsonl") if row["study"] == "centroid start"]
    assert starts
    for row in starts:
        assert not [name for name in row["members"] if name.startswith(f"{row['dataset']}-")], row
    for row in read_rows(demo[0] / "results.jsonl"):
        if row.get("level") in ("family", "general") and row["group"] in ("member", "interior"):
            assert not [name for name in row["members"] if name.startswith(f"{row['dataset']}-")], row


@pytest.mark.long
def test_run_again_trains_and_evaluates_nothing(demo):
    folder, _ = demo
    before = values(folder)
    files = {path: path.stat().st_mtime_ns for path in (folder / "points").glob("*.npz")}
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert "10 of 10 members are in the store already" in done.stdout
    assert "fine-tuning" not in done.stdout
    assert {path: path.stat().st_mtime_ns for path in (folder / "points").glob("*.npz")} == files
    assert values(folder) == before


@pytest.mark.long
def test_killed_and_run_again_it_ends_with_the_same_numbers(demo, tmp_path):
    folder = tmp_path / "killed"
    for wanted in ("store/members/*", "points/*.npz"):
        process = subprocess.Popen([*DEMO, f"--out={folder}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while len(list(folder.glob(wanted))) < 3 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert process.poll() is None, "the demo ended before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not (folder / "results.jsonl").exists()
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert values(folder) == values(demo[0])


@pytest.mark.long
def test_a_folder_of_another_plan_is_refused_and_left_alone(demo, tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    plan = json.loads((demo[0] / "plan.json").read_text())
    (folder / "plan.json").write_text(json.dumps(plan | {"seeds": 99}))
    done = run(folder)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "holds a run of another plan (differing: seeds)" in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["plan.json"]


@pytest.mark.long
def test_the_report_renders_again_from_the_run(demo, tmp_path):
    folder, _ = demo
    page = tmp_path / "page.html"
    done = wsr("report", folder, f"--out={page}")
    assert done.returncode == 0, done.stderr
    assert page.read_text() == (folder / "report.html").read_text()


def test_members_that_did_not_learn_are_flagged():
    from wsr.region.learned import learned
    from wsr.store import MemberRecord

    def record(score, chance, texts):
        return MemberRecord(
            name="m",
            dataset="d",
            family="f",
            seed=0,
            mode="full",
            size=1,
            hyperparameters={},
            metrics={"test_score": score, "chance": chance, "test_texts": texts},
            jaxlib="",
            device_kind="",
            threads=1,
            group_size=1,
        )

    # Two standard errors of 200 coin tosses are 7 points.
    assert not learned(record(0.56, 0.5, 200.0))
    assert learned(record(0.58, 0.5, 200.0))
    assert not learned(record(0.58, 0.5, 50.0))
    # A correlation of 100 pairs of noise has a standard error of 0.1.
    assert not learned(record(0.19, 0.0, 100.0))
    assert learned(record(0.21, 0.0, 100.0))


@pytest.mark.long
def test_a_population_that_learned_nothing_is_an_error(tmp_path):
    from dataclasses import replace

    from wsr.studies.demo import PRESETS, run_demo

    smoke = PRESETS["smoke"]
    plan = replace(smoke, seeds=1, recipe=replace(smoke.recipe, learning_rate=1e-9, head_learning_rate=1e-9, epochs=1))
    with pytest.raises(WsrError, match=r"none of 5 members did better than chance"):
        run_demo(plan, tmp_path / "run", command="")
