"""Work of the host beside a device: what is queued before what is fetched, and that no finished point is lost.

A CPU stands in for an accelerator: it is told to work ahead.
"""

import threading
import time

import numpy as np
import pytest
from worlds import three_near

from wsr.engine import early, region_features
from wsr.engine.early import Group, compare
from wsr.engine.evaluate import evaluate
from wsr.engine.region_features import plan_features
from wsr.engine.scoring import score_points
from wsr.engine.settings import Settings
from wsr.engine.surrogate import evaluate_hull, fixed_head
from wsr.errors import WsrError
from wsr.geometry import sampling
from wsr.runtime import devices
from wsr.runtime.devices import lay_out, mesh_of
from wsr.runtime.one_behind import one_behind
from wsr.runtime.progress import Counter
from wsr.store.results import Results

POINTS = 4
WAIT_SECONDS = 20


@pytest.fixture(scope="module")
def region(tiny):
    return three_near(tiny)


@pytest.fixture(scope="module")
def rows():
    return sampling.convex_hull(np.random.default_rng(0), POINTS, 3)


@pytest.fixture
def ahead(monkeypatch):
    """The CPU counts as a device that works while the host does."""
    for module in (devices, region_features):
        monkeypatch.setattr(module, "overlaps", lambda _: True)


@pytest.fixture
def encoded(monkeypatch):
    """One event for each chunk, set when its encoding is asked for."""
    events = [threading.Event() for _ in range(POINTS)]
    encode, left = region_features.point_features, iter(events)

    def spied(*arguments):
        next(left).set()
        return encode(*arguments)

    monkeypatch.setattr(region_features, "point_features", spied)
    return events


def scored(region, rows, dataset, score, results, counter=None):
    """The means of the features of each point, by a score that a test chooses."""
    keys = [f"point {number}" for number in range(len(rows))]
    settings = Settings(chunk=1, results=results, counter=counter)
    splits = {"test": dataset.splits["test"]}
    return score_points(region, rows, keys, splits, score, settings=settings, note="")["mean"]


def mean_of(features):
    return {"mean": np.asarray(features["test"]).mean(axis=2)}


def test_a_chunk_is_encoded_before_the_scores_of_the_one_before_are_fetched(ahead, encoded, region, rows, dataset):
    numbers = iter(range(POINTS))

    def score(features):
        number = next(numbers)
        if number + 1 < POINTS:
            assert encoded[number + 1].wait(WAIT_SECONDS), f"chunk {number + 1} waits for the scores of the one before"
        return mean_of(features)

    assert scored(region, rows, dataset, score, Results.in_memory()).shape == (POINTS, 40)


def test_a_comparison_encodes_a_chunk_before_it_scores_the_one_before(
    ahead, encoded, monkeypatch, region, rows, dataset
):
    groups, fit, chunks = (Group(region, rows[:2]), Group(region, rows[2:])), early.fit_draws, iter(range(POINTS))

    def waiting(*arguments):
        chunk = next(chunks)
        if chunk % 2 == 0:  # a group has two chunks
            assert encoded[chunk + 1].wait(WAIT_SECONDS), f"chunk {chunk + 1} waits for the probe of the one before"
        return fit(*arguments)

    monkeypatch.setattr(early, "fit_draws", waiting)
    found = compare(*groups, dataset, settings=Settings(chunk=1)).looks[-1]
    monkeypatch.undo()
    assert found == compare(*groups, dataset, settings=Settings(chunk=1)).looks[-1]


def test_scores_by_a_fixed_head_are_fetched_while_the_next_chunk_is_encoded(ahead, encoded, region, rows, dataset):
    head_of, chunks = fixed_head(made_up_head(region, dataset)), iter(range(POINTS))

    def score(features):
        chunk = next(chunks)
        if chunk + 1 < POINTS:
            assert encoded[chunk + 1].wait(WAIT_SECONDS), f"chunk {chunk + 1} waits for the scores of the one before"
        return head_of(features)

    found = evaluate_hull(region, rows, dataset, score=score, settings=Settings(chunk=1))
    assert found.how == ("exact",) * POINTS


def made_up_head(region, dataset):
    width = region.model.config["hidden_size"]
    return {"kernel": np.ones((width, dataset.classes), np.float32), "bias": np.zeros(dataset.classes, np.float32)}


def test_at_most_one_chunk_is_ahead(ahead, encoded, region, rows, dataset):
    begun = []

    def score(features):
        time.sleep(0.2)  # longer than the main thread needs to run on
        begun.append(sum(event.is_set() for event in encoded))
        return mean_of(features)

    scored(region, rows, dataset, score, Results.in_memory())
    assert begun == [2, 3, 4, 4]


def test_a_cpu_does_one_after_the_other(encoded, region, rows, dataset):
    begun = []

    def score(features):
        begun.append(sum(event.is_set() for event in encoded))
        assert threading.current_thread() is threading.main_thread()
        return mean_of(features)

    scored(region, rows, dataset, score, Results.in_memory())
    assert begun == [1, 2, 3, 4]
    layout = plan_features(region, rows, {"test": dataset.splits["test"]})
    assert (layout.ahead, layout.block) == (False, 1)


@pytest.mark.parametrize("chunk", [1, 3])
def test_results_are_the_same_bits(ahead, monkeypatch, region, rows, dataset, chunk):
    monkeypatch.setattr(devices, "_LARGEST_BLOCK", 1)  # more may change the rounding of sums
    assert plan_features(region, rows, {"test": dataset.splits["test"]}, settings=Settings(chunk=chunk)).ahead
    found = evaluate(region, rows, dataset, settings=Settings(chunk=chunk))
    monkeypatch.undo()
    expected = evaluate(region, rows, dataset, settings=Settings(chunk=chunk))
    np.testing.assert_array_equal(found.losses, expected.losses)
    np.testing.assert_array_equal(found.predictions, expected.predictions)


@pytest.mark.parametrize("gib", [None, 1])
def test_blocks_and_streamed_members_give_the_same_losses(ahead, monkeypatch, region, rows, dataset, gib):
    """With less memory members are streamed, several chunks in a pass."""
    splits, budget = {split: dataset.splits[split] for split in ("probe", "test")}, None
    if gib:
        monkeypatch.setattr(devices, "_LARGEST_BLOCK", 2)
        tight = plan_features(region, rows, splits, settings=Settings(chunk=1, memory_budget_gib=1.0))
        resident = tight.needed_bytes
        while tight.resident:
            resident -= 1000
            settings = Settings(chunk=1, memory_budget_gib=resident / 2**30)
            tight = plan_features(region, rows, splits, settings=settings)
        budget = settings.memory_budget_gib
    found = evaluate(region, rows, dataset, settings=Settings(chunk=1, memory_budget_gib=budget))
    monkeypatch.undo()
    np.testing.assert_allclose(found.losses, evaluate(region, rows, dataset).losses, atol=1e-5)


def test_an_interrupt_loses_no_point_that_was_encoded(ahead, monkeypatch, region, rows, dataset, tmp_path):
    features_of = region_features.region_features

    def interrupted(*arguments, **more):
        yielded = features_of(*arguments, **more)
        yield next(yielded)
        yield next(yielded)
        raise KeyboardInterrupt

    monkeypatch.setattr(region_features, "region_features", interrupted)

    def slow(features):
        time.sleep(0.2)  # the main thread is interrupted first
        return mean_of(features)

    with pytest.raises(KeyboardInterrupt):
        scored(region, rows, dataset, slow, Results.on_disk(tmp_path / "points"))
    assert {file.stem for file in (tmp_path / "points").glob("*.npz")} == {"point 0", "point 1"}
    monkeypatch.undo()
    counter = Counter("", POINTS, "points", None)
    kept = scored(region, rows, dataset, mean_of, Results.on_disk(tmp_path / "points"), counter)
    np.testing.assert_array_equal(kept, scored(region, rows, dataset, mean_of, Results.in_memory()))
    assert counter.done == POINTS


@pytest.mark.parametrize("failing", range(POINTS))
def test_an_error_of_the_thread_reaches_the_caller(ahead, encoded, region, rows, dataset, failing):
    numbers = iter(range(POINTS))

    def score(features):
        if next(numbers) == failing:
            raise WsrError("the disk is full")
        return mean_of(features)

    results = Results.in_memory()
    with pytest.raises(WsrError, match="the disk is full"):
        scored(region, rows, dataset, score, results)
    assert len(results.keys()) == failing
    assert sum(event.is_set() for event in encoded) <= failing + 2


@pytest.mark.parametrize("threaded", [False, True])
def test_jobs_run_in_their_order_and_all_of_them(threaded):
    ran = []
    with one_behind(threaded=threaded) as later:
        for number in range(5):
            later(lambda number=number: ran.append(number))
            assert len(ran) >= number + (not threaded)
    assert ran == list(range(5))


@pytest.mark.parametrize(
    ("budget", "resident", "is_ahead", "block"),
    [
        (1468, True, True, 8),
        (1467, True, False, 8),
        (1068, True, False, 8),
        (1067, False, False, 4),
        (668, False, False, 1),
    ],
)
def test_a_device_works_ahead_where_two_chunks_fit(ahead, budget, resident, is_ahead, block):
    """A model takes 100 bytes, five members, 4 points at a time: the base, 4 or 8 points, the members, 4 times 10 for
    features and 4 times 7 for encoding."""

    def member_bytes(together, resident, loose):
        return 100 * (5 if resident else min(5, loose))

    found = lay_out(
        16,
        params_bytes=100,
        member_bytes=member_bytes,
        point_bytes=10,
        encoding_bytes=lambda chunk: 7 * chunk,
        mesh=mesh_of(1),
        chunk=4,
        memory_budget_gib=(budget + 0.5) / 2**30,
    )
    assert (found.chunk, found.resident, found.ahead, found.block) == (4, resident, is_ahead, block)
    assert found.needed_bytes <= budget
    with pytest.raises(WsrError, match="4 points at a time need"):
        lay_out(
            16,
            params_bytes=100,
            member_bytes=member_bytes,
            point_bytes=10,
            encoding_bytes=lambda chunk: 7 * chunk,
            mesh=mesh_of(1),
            chunk=4,
            memory_budget_gib=667.5 / 2**30,
        )
