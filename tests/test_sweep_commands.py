"""Sweeps as people start them: experiments in shares, launchers that are told to end."""

import pytest
from sweep_worlds import EXPERIMENT, on_shelf, rows_of_an_experiment, stopped

from wsr.runtime.preemption import STATUS, TOLD
from wsr.training.sweep.run import HERE, Unfinished
from wsr.training.sweep.share import Share


@pytest.fixture(scope="module")
def alone(few_resamples, tmp_path_factory):
    """What one process finds, and where its members are."""
    folder = tmp_path_factory.mktemp("alone")
    return rows_of_an_experiment(folder, HERE), folder / "shelf"


@pytest.mark.long
def test_an_experiment_in_shares_finds_what_one_process_finds(alone, tmp_path):
    rows, shelf = alone
    with pytest.raises(Unfinished, match="share 0/2 is done"):
        rows_of_an_experiment(tmp_path, Share(0, 2))
    assert on_shelf(tmp_path / "shelf").items() < on_shelf(shelf).items()
    assert rows_of_an_experiment(tmp_path, Share(1, 2)) == rows
    assert on_shelf(tmp_path / "shelf") == on_shelf(shelf)


@pytest.mark.fault
@pytest.mark.long
def test_a_launcher_that_is_told_to_end_goes_on_when_it_is_started_again(alone, tmp_path, trials):
    rows, shelf = alone
    words = ["-m", f"experiments.{EXPERIMENT}", "--preset=smoke"]
    words += [f"--out={tmp_path / 'out'}", f"--shelf={tmp_path / 'shelf'}"]
    assert stopped(words, tmp_path, "shelf/stores/*/members/*") == (STATUS, f"{EXPERIMENT}: error: {TOLD}\n")
    assert not (tmp_path / "out" / "results.jsonl").exists()
    before = on_shelf(tmp_path / "shelf")
    assert 1 <= len(before) < len(on_shelf(shelf))
    assert before.items() < on_shelf(shelf).items()
    assert rows_of_an_experiment(tmp_path, HERE) == rows
    trials.note("SIGTERM to a launcher of experiments", signals=1, members_lost=0, rows_that_differ=0)
