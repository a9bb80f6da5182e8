"""The surrogate against exact evaluation, in requests of every kind."""

import dataclasses
import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.surrogate_coverage import KINDS, Simulated, table_line, trial
from wsr.data.packing import evaluation_batches
from wsr.engine.evaluate import EXACT, Protocol, evaluate
from wsr.engine.fewer_probes import Scores
from wsr.engine.hull_answers import LEVEL, answer_hull
from wsr.engine.probe import fixed_head_loss
from wsr.engine.settings import Settings
from wsr.engine.surrogate import evaluate_hull, fixed_head
from wsr.errors import WsrError
from wsr.geometry import sampling
from wsr.models.features import split_features
from wsr.models.model import Model
from wsr.region.region import from_params
from wsr.store.results import Results


def polynomial_model(power):
    """Features are polynomials of a known degree in the parameters: powers of the first word's embedding."""

    def encode(params, batch, dropout_key=None):
        first = params["token"][batch["token_ids"].reshape(-1)[batch["starts"] + 1]]
        return first + first**power

    return Model(f"power {power}", {"power": power}, 6, 64, lambda key: {}, encode)


def polynomial_region(power, members=3, seed=0):
    generator = np.random.default_rng(seed)

    def draw():
        return {"token": generator.normal(size=(300, 6)).astype(np.float32)}

    return from_params(polynomial_model(power), draw(), {f"m{k}": draw() for k in range(members)})


@pytest.fixture(scope="module")
def region(tiny):
    """Four members around the tiny checkpoint."""

    def moved(seed):
        generator = np.random.default_rng(seed)
        return jax.tree.map(
            lambda leaf: (leaf + 0.03 * generator.normal(size=leaf.shape)).astype(np.float32), tiny.params
        )

    return from_params(tiny.model, tiny.params, {f"m{seed}": moved(seed) for seed in range(4)})


def hull(points, members, seed=0):
    return sampling.convex_hull(np.random.default_rng(seed), points, members)


def surrogate_rows(found):
    return np.array([how != EXACT for how in found.how])


@pytest.mark.parametrize("power", [2, pytest.param(3, marks=pytest.mark.long)])
def test_a_polynomial_encoder_is_met_exactly_and_its_degree_is_found(dataset, power):
    region, rows = polynomial_region(power), hull(40, 3)
    found = evaluate_hull(region, rows, dataset, tolerance=1e-5)
    assert [check.degree for check in found.checks] == list(range(1, power + 1))
    assert found.checks[-1].nodes == {2: 6, 3: 10}[power]
    assert surrogate_rows(found).sum() == 40 - found.checks[-1].held_out
    exact = evaluate(region, rows, dataset)
    np.testing.assert_allclose(found.losses, exact.losses, atol=1e-4)
    np.testing.assert_array_equal(found.predictions, exact.predictions)


@pytest.mark.long
@pytest.mark.parametrize("probe", ["linear", "roberta_head"])
def test_the_reported_error_holds_for_the_points_that_were_not_held_out(dataset, region, probe):
    protocol, rows = Protocol(probe=probe), hull(60, 4)
    found = evaluate_hull(region, rows, dataset, protocol=protocol, tolerance=0.02)
    own = surrogate_rows(found)
    assert own.sum() > 40
    exact = evaluate(region, rows, dataset, protocol=protocol).generalised_loss
    errors = np.abs(found.generalised_loss - exact)
    assert errors.mean() < found.mean_error_bound < 0.02
    assert (errors[own] > found.error_bounds[own]).mean() <= 0.05
    assert (found.error_bounds[own] <= 0.02).all()
    np.testing.assert_allclose(errors[~own], 0, atol=1e-7)
    assert (found.error_bounds[~own] == 0).all()
    assert np.ptp(exact) > 5 * errors[own].mean()


def test_rows_say_how_they_were_obtained(dataset, region):
    found = evaluate_hull(region, hull(60, 4), dataset, tolerance=0.02)
    own = int(surrogate_rows(found).argmax())
    wanted = f"surrogate(degree={found.checks[-1].degree}, bound={found.error_bounds[own]:.2g})"
    assert found.rows("interior")[2 * own]["how"] == wanted
    frame = found.to_frame()
    assert frame["how"][own] == wanted
    np.testing.assert_array_equal(frame["error_bound"], found.error_bounds)


def test_a_tolerance_that_no_degree_meets_gets_exact_points(dataset, region):
    rows = hull(30, 4)
    found = evaluate_hull(region, rows, dataset, tolerance=1e-9)
    assert set(found.how) == {EXACT}
    assert found.checks
    assert all(check.answered == 0 for check in found.checks)
    np.testing.assert_allclose(found.losses, evaluate(region, rows, dataset).losses, atol=1e-7)


def test_few_points_are_evaluated_exactly_without_a_node(dataset, region):
    found = evaluate_hull(region, hull(16, 4), dataset, tolerance=1.0)  # 12 held out, and 4 nodes for the other 4
    assert set(found.how) == {EXACT}
    assert found.checks == ()


def test_points_outside_the_hull_are_exact(dataset, region):
    outside = np.array([[0.0] * 4, [1.5, -0.5, 0, 0], [0.5, 0.4, 0, 0], [1.0, 1.0, 0, 0]])
    rows = np.concatenate([outside[:2], hull(40, 4), outside[2:]])
    found = evaluate_hull(region, rows, dataset, tolerance=0.1)
    own = surrogate_rows(found)
    assert own.sum() == 40 - found.checks[-1].held_out
    assert not own[[0, 1, -2, -1]].any()
    np.testing.assert_allclose(found.losses[[0, 1, -2, -1]], evaluate(region, outside, dataset).losses, atol=1e-6)
    assert set(evaluate_hull(region, outside, dataset).how) == {EXACT}


def test_a_line_takes_few_nodes_and_members_that_are_not_used_none(dataset, region):
    rows = sampling.line(np.linspace(0, 1, 40)) @ np.eye(4)[[1, 3]]
    found = evaluate_hull(region, rows, dataset, tolerance=0.02)
    assert found.checks[0].nodes == 2
    assert surrogate_rows(found).sum() == 40 - found.checks[-1].held_out


def test_the_same_seed_gives_the_same_answer_and_another_holds_others_out(dataset, region):
    rows = hull(40, 4)
    first, again, other = (evaluate_hull(region, rows, dataset, tolerance=0.1, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.losses, again.losses)
    assert first.checks == again.checks
    assert first.how != other.how


def test_exact_points_are_kept_and_those_of_the_surrogate_are_not(dataset, region, tmp_path):
    points = Results.on_disk(tmp_path)
    first = evaluate_hull(region, hull(40, 4), dataset, tolerance=0.1, settings=Settings(results=points))
    assert len(list(tmp_path.glob("*.npz"))) == first.how.count(EXACT) < 20
    again = evaluate_hull(
        region, hull(40, 4), dataset, tolerance=0.1, settings=Settings(results=Results.on_disk(tmp_path))
    )
    np.testing.assert_array_equal(first.losses, again.losses)


@pytest.mark.parametrize("tolerance", [0.1, 1e-9])
def test_a_head_that_is_fixed_takes_the_place_of_a_probe(tiny, dataset, region, tolerance):
    generator = np.random.default_rng(0)
    hidden = tiny.model.hidden
    head = {"kernel": generator.normal(size=(hidden, 2)).astype(np.float32) / 8, "bias": np.array([0.1, 0], np.float32)}
    rows = hull(30, 4)
    found = evaluate_hull(region, rows, dataset, tolerance=tolerance, score=fixed_head(head))
    assert surrogate_rows(found).any() == (tolerance > 1e-6)
    split = dataset.splits["test"]
    features = np.stack(
        [split_features(tiny.model, region.params(row), evaluation_batches(split, rows=16), len(split)) for row in rows]
    )
    stacked = {name: jnp.broadcast_to(leaf, (len(rows), *leaf.shape)) for name, leaf in head.items()}
    losses = np.asarray(fixed_head_loss(jnp.asarray(features), jnp.asarray(split.labels), stacked))
    own = surrogate_rows(found)
    np.testing.assert_allclose(found.losses[~own], losses[~own], atol=1e-4)
    assert np.abs(found.losses.mean(axis=1) - losses.mean(axis=1)).mean() < max(found.mean_error_bound, 1e-5)


@pytest.mark.long
def test_the_surrogate_keeps_the_losses_of_each_draw_of_probe_texts(dataset, region):
    protocol, rows = Protocol(draws=2), hull(20, 4)
    found = evaluate_hull(region, rows, dataset, protocol=protocol, tolerance=0.2)
    own = surrogate_rows(found)
    assert own.any()
    exact = evaluate(region, rows, dataset, protocol=protocol)
    assert found.losses_by_draw.shape == exact.losses_by_draw.shape == (2, 20, 40)
    np.testing.assert_allclose(found.losses_by_draw[:, ~own], exact.losses_by_draw[:, ~own], atol=1e-4)
    assert np.abs(found.losses_by_draw[:, own].mean(axis=2) - exact.losses_by_draw[:, own].mean(axis=2)).mean() < 0.2
    assert np.abs(exact.losses_by_draw[0] - exact.losses_by_draw[1]).mean() > 0.01  # the draws differ


@pytest.mark.long
def test_polynomials_take_the_place_of_most_probes(dataset, region, monkeypatch):
    from wsr.engine import surrogate

    scored = []
    protocol = Protocol(inverse_l2=1.0)  # a chosen C jumps from point to point, and polynomials do not
    score = surrogate.probe_score(dataset, protocol)

    def counted(features):
        scored.append(len(features["test"]))
        return score(features)

    monkeypatch.setattr(surrogate, "probe_score", lambda dataset, protocol: counted)
    rows = hull(600, 4)
    found = evaluate_hull(region, rows, dataset, tolerance=0.02, protocol=protocol)
    assert sum(scored) < 200
    some = np.flatnonzero(surrogate_rows(found))[::20]
    exact = evaluate(region, rows[some], dataset, protocol=protocol)
    assert (np.abs(found.generalised_loss[some] - exact.generalised_loss) <= found.error_bounds[some]).mean() > 0.9
    assert (found.predictions[some] == exact.predictions).mean() > 0.95


def test_regression_has_one_value_a_text(dataset):
    def graded(split):
        return dataclasses.replace(split, labels=split.lengths.astype(np.float32) / 10)

    splits = {name: graded(split) for name, split in dataset.splits.items()}
    data = dataclasses.replace(dataset, classes=1, metric="pearson", label_names=(), splits=splits)
    region, rows = polynomial_region(2), hull(40, 3)
    found = evaluate_hull(region, rows, data, tolerance=1e-4)
    assert surrogate_rows(found).sum() == 40 - found.checks[-1].held_out
    exact = evaluate(region, rows, data)
    np.testing.assert_allclose(found.losses, exact.losses, atol=1e-4)
    np.testing.assert_allclose(found.predictions, exact.predictions, atol=1e-4)


def smooth_region(seed):
    """Two members of an encoder whose features no polynomial equals."""

    def encode(params, batch, dropout_key=None):
        return jnp.tanh(params["token"][batch["token_ids"].reshape(-1)[batch["starts"] + 1]])

    generator = np.random.default_rng(seed)
    model = Model("smooth", {"seed": seed}, 6, 64, lambda key: {}, encode)
    base, *members = ({"token": generator.normal(size=(300, 6)).astype(np.float32)} for _ in range(3))
    return from_params(model, base, {f"m{number}": params for number, params in enumerate(members)})


@pytest.mark.parametrize("seed", range(2))
def test_a_line_with_most_points_near_its_middle_has_no_row_far_off(dataset, seed):
    """High degrees through points of the middle are off by thousands of nats at the ends of the line."""
    generator = np.random.default_rng(seed)
    middle = 0.5 + 0.002 * generator.normal(size=160)
    rows = sampling.line(np.concatenate([np.linspace(0, 1, 41), middle]))
    head = {"kernel": generator.normal(size=(6, 2)).astype(np.float32), "bias": np.zeros(2, np.float32)}
    found = evaluate_hull(smooth_region(seed), rows, dataset, tolerance=0.02, score=fixed_head(head), seed=seed)
    exact = evaluate_hull(smooth_region(seed), rows, dataset, score=fixed_head(head), held_out=len(rows))
    assert surrogate_rows(found).sum() > 100
    assert set(exact.how) == {EXACT}
    errors = np.abs(found.generalised_loss - exact.generalised_loss)
    assert np.isfinite(found.losses).all()
    assert errors.max() <= 0.02
    assert errors.mean() <= found.mean_error_bound
    assert (errors > found.error_bounds + 1e-6).mean() <= 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_hold_in_requests_of_every_kind(kind):
    trials = [trial(kind, seed) for seed in range(8)]
    answered = sum(each["answered"] for each in trials)
    assert answered > 0
    assert sum(each["over"] for each in trials) <= LEVEL * answered
    assert not any(each["mean_over"] for each in trials)
    assert not any(each["not_finite"] for each in trials)


def test_the_committed_rates_keep_the_stated_level_and_are_those_of_the_docs():
    root = Path(__file__).parent.parent
    lines = (root / "benchmarks" / "results" / "surrogate_coverage.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    docs = (root / "docs" / "surrogate.md").read_text()
    assert {row["kind"] for row in rows} == set(KINDS)
    for row in rows:
        assert row["requests"] >= 1000
        assert row["points_over_their_bound"] <= row["level"] == LEVEL
        assert row["requests_with_mean_over_its_bound"] <= LEVEL
        assert row["numbers_not_finite"] == 0
        assert table_line(row) in docs


@pytest.mark.parametrize("distinct", [1, 5])
def test_copies_of_a_few_points_have_finite_scores(distinct):
    generator = np.random.default_rng(0)
    rows = np.repeat(KINDS["uniform"].draw(generator, distinct), 100, axis=0)
    world = Simulated(generator, KINDS["uniform"], rows)
    answers = answer_hull(
        rows,
        world,
        world.logits_of,
        partial(Scores.of, labels=world.labels),
        tolerance=0.01,
        held_out=12,
        degree=None,
        generator=generator,
    )
    assert (answers.degrees > 0).any()
    assert np.isfinite(answers.error_bounds).all()
    assert (np.abs(answers.scores.means - world.scores(rows).means) <= answers.error_bounds + 1e-6).mean() > 0.9


def test_rows_that_come_out_as_not_a_number_are_exact():
    generator = np.random.default_rng(0)
    rows = KINDS["uniform"].draw(generator, 400)
    world = Simulated(generator, KINDS["uniform"], rows)
    exact = world.scores(rows).losses

    def logits_of(features):
        logits = world.logits_of(features)
        return np.where(logits[:, :1, :1] > np.quantile(logits[:, 0, 0], 0.9), np.nan, logits)

    answers = answer_hull(
        rows,
        world,
        logits_of,
        partial(Scores.of, labels=world.labels),
        tolerance=1.0,
        held_out=4,
        degree=None,
        generator=generator,
    )
    assert (answers.degrees > 0).any()
    np.testing.assert_allclose(answers.scores.losses[answers.degrees == 0], exact[answers.degrees == 0], atol=1e-6)
    assert np.isfinite(answers.scores.losses).all()
    assert np.isfinite(answers.error_bounds).all()


def test_an_error_needs_points_to_be_measured_at(dataset, region):
    with pytest.raises(WsrError, match="held_out must be at least 2"):
        evaluate_hull(region, hull(30, 4), dataset, held_out=1)
