"""The engine against the long way round: combine by hand, encode text by text, scikit-learn's probe."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.preprocessing import StandardScaler

from wsr.data.packing import evaluation_batches
from wsr.engine.cross_validation import FOLDS, GRID, folds_of
from wsr.engine.evaluate import Protocol, evaluate, probe_draws
from wsr.engine.probe import PROBES
from wsr.engine.region_features import region_features
from wsr.engine.settings import Settings
from wsr.engine.surrogate import evaluate_hull
from wsr.errors import WsrError
from wsr.geometry import sampling
from wsr.geometry.points import combine
from wsr.geometry.trees import flatten, stack
from wsr.models.features import all_features, point_features, split_features
from wsr.region.region import from_params
from wsr.runtime.devices import memory_budget, mesh_for
from wsr.store.results import Results


@pytest.fixture(scope="module")
def members(tiny):
    """Three points around the tiny checkpoint."""

    def moved(seed):
        generator = np.random.default_rng(seed)
        return jax.tree.map(
            lambda leaf: (leaf + 0.05 * generator.normal(size=leaf.shape)).astype(np.float32), tiny.params
        )

    return {f"m{seed}": moved(seed) for seed in range(3)}


@pytest.fixture(scope="module")
def region(tiny, members):
    return from_params(tiny.model, tiny.params, members)


def test_features_do_not_depend_on_how_texts_are_packed(tiny, dataset):
    split = dataset.splits["test"]
    together = split_features(tiny.model, tiny.params, evaluation_batches(split, rows=4, row_length=128), len(split))
    alone = split_features(
        tiny.model, tiny.params, evaluation_batches(split, rows=1, row_length=48, packed=False), len(split)
    )
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_points_together_are_points_alone(tiny, dataset, members, chunk):
    split = dataset.splits["test"]
    batches = evaluation_batches(split, rows=8)
    rows = sampling.convex_hull(np.random.default_rng(0), chunk, 3)
    stacked = stack(list(members.values()))
    points = combine(tiny.params, stacked, jnp.asarray(rows, jnp.float32))
    together = point_features(tiny.model, points, batches, len(split), mesh_for(chunk))
    for number, row in enumerate(rows):
        mixed = jax.tree.map(lambda leaf, row=row: np.tensordot(row, leaf, axes=1).astype(np.float32), stacked)
        alone = split_features(tiny.model, mixed, batches, len(split))
        np.testing.assert_allclose(together[number], alone, atol=1e-5)


def by_scikit_learn(known, known_labels, held_out, labels, inverse_l2):
    """Returns test losses and predictions of scikit-learn's probe, and its penalty."""
    if inverse_l2 is None:
        scaler = StandardScaler().fit(known)
        fold = folds_of(known_labels, classes=2)
        cuts = [(np.flatnonzero(fold != own), np.flatnonzero(fold == own)) for own in range(FOLDS)]
        probe = LogisticRegressionCV(
            Cs=list(GRID),
            cv=cuts,
            scoring="neg_log_loss",
            solver="newton-cholesky",
            tol=1e-8,
            l1_ratios=(0,),
            use_legacy_attributes=False,
        )
        known, held_out = scaler.transform(known), scaler.transform(held_out)
    else:
        probe = LogisticRegression(C=inverse_l2, tol=1e-10, max_iter=10_000)
    chances = probe.fit(known, known_labels).predict_proba(held_out)
    losses = -np.log(chances[np.arange(len(labels)), labels])
    return losses, chances.argmax(axis=1), inverse_l2 or float(probe.C_)


@pytest.mark.parametrize(
    "protocol", [Protocol(), Protocol(inverse_l2=1.0), Protocol(draws=2)], ids=lambda own: own.told
)
def test_equals_scikit_learn_on_features_taken_the_long_way(tiny, dataset, region, members, protocol):
    row = np.array([[0.5, 0.3, 0.2]])
    found = evaluate(region, row, dataset, protocol=protocol)
    mixed = jax.tree.map(
        lambda *leaves: sum(c * leaf for c, leaf in zip(row[0], leaves, strict=True)).astype(np.float32),
        *members.values(),
    )

    def features(name):
        split = dataset.splits[name]
        batches = evaluation_batches(split, rows=1, row_length=64)
        return np.asarray(split_features(tiny.model, mixed, batches, len(split)), np.float64)

    known, known_labels = features("probe"), dataset.splits["probe"].labels
    held_out, labels = features("test"), dataset.splits["test"].labels
    draws = [np.arange(len(known))[texts] for texts in probe_draws(known_labels, protocol.draws)]
    np.testing.assert_array_equal(np.sort(np.concatenate(draws)), np.arange(len(known)))  # disjoint, and all
    expected = [by_scikit_learn(known[own], known_labels[own], held_out, labels, protocol.inverse_l2) for own in draws]
    for draw, (losses, predictions, inverse_l2) in enumerate(expected):
        assert found.inverse_l2[draw, 0] == pytest.approx(inverse_l2)
        np.testing.assert_allclose(found.losses_by_draw[draw, 0], losses, atol=1e-4)
        np.testing.assert_array_equal(found.predictions_by_draw[draw, 0], predictions)
    assert found.converged.all()
    losses, predictions, _ = zip(*expected, strict=True)
    np.testing.assert_allclose(found.losses[0], np.mean(losses, axis=0), atol=1e-4)
    np.testing.assert_array_equal(found.predictions[0], predictions[0])
    assert found.scores[0] == pytest.approx(np.mean(np.array(predictions) == labels))


def test_probe_draws_have_the_same_mix_of_labels(dataset):
    labels = np.random.default_rng(0).choice(3, p=[0.7, 0.2, 0.1], size=100)
    shares = np.stack([np.bincount(labels[own], minlength=3) for own in probe_draws(labels, 3)])
    assert np.ptp(shares, axis=0).max() <= 1
    with pytest.raises(WsrError, match="40 texts cannot be cut into 41 draws"):
        probe_draws(dataset.splits["probe"].labels, 41)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("kind", "field", "values"),
    [
        (Protocol, "inverse_l2", [0.0, -1.0, NAN, INF, "1", True]),
        (Protocol, "draws", [0, 1.5, NAN, "2", True, None]),
        (Protocol, "probe", ["Linear", None]),
        (Settings, "chunk", [0, 1.5, NAN, "4", True]),
        (Settings, "rows", [0, 1.5, NAN, None]),
        (Settings, "row_length", [0, 1.5, NAN, None]),
        (Settings, "memory_budget_gib", [0, -1, NAN, INF, "3"]),
        (Settings, "precision", ["bf16", None]),
    ],
)
def test_a_wrong_setting_is_refused_by_the_name_of_its_field(kind, field, values):
    for value in values:
        wrong = kind()
        # As users set it, without the run-time types of these tests, which refuse a wrong type before it.
        object.__setattr__(wrong, field, value)
        with pytest.raises(WsrError, match=f"^{kind.__name__.lower()}: {field}\\b"):
            wrong.__post_init__()


@pytest.mark.parametrize("gib", [0.0, -1.0, NAN, INF])
def test_a_memory_budget_of_no_size_is_refused(gib):
    with pytest.raises(WsrError, match="memory_budget_gib: expected a number above 0"):
        memory_budget(gib)


def test_a_tolerance_that_is_no_number_is_refused(dataset, region):
    with pytest.raises(WsrError, match="tolerance must be at least 0, found nan"):
        evaluate_hull(region, np.eye(len(region)), dataset, tolerance=NAN)


def test_probes_that_did_not_converge_are_told_in_one_line(dataset, region, monkeypatch, capsys):
    fit = PROBES["linear"]
    monkeypatch.setattr(
        "wsr.engine.evaluate.PROBES",
        {"linear": lambda *args, **more: dataclasses.replace(fit(*args, **more), converged=jnp.zeros(1, bool))},
    )
    results = Results.in_memory()
    for _ in range(2):  # evaluated, then found in the cache
        found = evaluate(region, np.eye(3)[:2], dataset, settings=Settings(chunk=1, results=results))
        assert not found.converged.any()
        told = "made_up_a1: the probes of 2 of 2 points did not converge, so their losses are not exact"
        assert capsys.readouterr().out.splitlines() == [told]


@pytest.mark.parametrize("chunk", [1, 3, 8])
def test_the_chunk_does_not_change_the_rows(dataset, region, chunk):
    rows = np.concatenate([np.zeros((1, 3)), np.eye(3), sampling.line([0.5, 2.0]) @ np.eye(2, 3)])
    reference = evaluate(region, rows, dataset, settings=Settings(chunk=1))
    found = evaluate(region, rows, dataset, settings=Settings(chunk=chunk))
    np.testing.assert_allclose(found.losses, reference.losses, atol=1e-4)


def test_a_member_is_the_same_point_whatever_the_basis(dataset, region):
    """So its result is found again: the key names the point and not the request."""
    points = Results.in_memory()
    whole = evaluate(region, np.eye(3), dataset, settings=Settings(results=points))
    part = region.where(lambda member: member.name == "m1")
    before = points.keys()
    again = evaluate(part, np.eye(1), dataset, settings=Settings(results=points))
    assert points.keys() == before
    np.testing.assert_array_equal(again.losses[0], whole.losses[1])


def test_finished_points_are_not_evaluated_again_and_a_damaged_one_is(dataset, region, tmp_path, monkeypatch, capsys):
    from wsr.engine import evaluate as module

    counted = []
    fit = module.fit_draws
    monkeypatch.setattr(module, "fit_draws", lambda *args: counted.append(1) or fit(*args))
    rows = np.eye(3)
    first = evaluate(region, rows, dataset, settings=Settings(results=Results.on_disk(tmp_path)))
    assert len(counted) == 3
    again = evaluate(region, rows, dataset, settings=Settings(results=Results.on_disk(tmp_path)))
    assert len(counted) == 3
    np.testing.assert_array_equal(first.losses, again.losses)

    victim = sorted(tmp_path.glob("*.npz"))[0]
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(bytes(content))
    mended = evaluate(region, rows, dataset, settings=Settings(results=Results.on_disk(tmp_path)))
    assert len(counted) == 4
    assert "damaged" in capsys.readouterr().out
    np.testing.assert_array_equal(first.losses, mended.losses)


def test_another_protocol_or_dataset_is_another_result(dataset, region):
    results = Results.in_memory()
    settings = Settings(results=results)
    evaluate(region, np.eye(3)[:1], dataset, settings=settings)
    for protocol in (Protocol(inverse_l2=0.1), Protocol(inverse_l2=1.0), Protocol("roberta_head"), Protocol(draws=2)):
        evaluate(region, np.eye(3)[:1], dataset, protocol=protocol, settings=settings)
    evaluate(region, np.eye(3)[:1], dataclasses.replace(dataset, content_hash="other"), settings=settings)
    assert len(results.keys()) == 6


def test_rows_hold_coefficients_and_everything_a_reader_needs(dataset, region):
    found = evaluate(region, np.array([[0.25, 0.0, 0.75]]), dataset)
    loss, accuracy = found.rows("interior", level="dataset")
    assert loss["members"] == ["m0", "m2"]
    assert loss["coefficients"] == [0.25, 0.75]
    assert (loss["group"], loss["level"], loss["dataset"]) == ("interior", "dataset", "made_up_a1")
    assert (loss["metric"], accuracy["metric"]) == ("generalised_loss", "accuracy")
    assert (loss["n"], loss["how"]) == (40, "exact")
    assert loss["value"] == pytest.approx(found.losses.mean())
    told = "linear probe, C by 5-fold cross-validation on standardised features"
    assert {(row["probe"], row["draws"]) for row in (loss, accuracy)} == {(told, 1)}
    fixed = evaluate(region, np.eye(3)[:1], dataset, protocol=Protocol(inverse_l2=1.0, draws=2)).rows("member")
    assert {(row["probe"], row["draws"]) for row in fixed} == {
        ("linear probe, C = 1, mean of 2 draws of probe texts", 2)
    }


def test_an_evaluation_says_which_penalties_were_chosen(dataset, region):
    found = evaluate(region, np.eye(3), dataset, protocol=Protocol(draws=2))
    penalties = np.array([[1e-5, 0.01, 0.1], [0.1, 1.0, 100.0]], np.float32)
    told = dataclasses.replace(found, inverse_l2=penalties).penalties
    assert told == "C 1e-05 to 100 in 6 probes, 2 at an end of the grid"
    assert repr(dataclasses.replace(found, inverse_l2=penalties)).endswith(f"3 points exact; {told}")
    assert evaluate(region, np.eye(3)[:1], dataset, protocol=Protocol(inverse_l2=1.0)).penalties == ""
    assert evaluate(region, np.eye(3)[:1], dataset, protocol=Protocol("roberta_head")).penalties == ""


def test_evaluation_leaves_the_members_as_they_were(dataset, region, members):
    before = {
        name: {path: np.array(leaf) for path, leaf in flatten(params).items()} for name, params in members.items()
    }
    evaluate(region, np.array([[0.5, 0.5, 0.0]]), dataset)
    for name, params in members.items():
        for path, leaf in flatten(params).items():
            np.testing.assert_array_equal(leaf, before[name][path])


def test_one_program_serves_all_chunks(dataset, region, tiny):
    from wsr.models.features import _encoder

    _encoder.cache_clear()
    for count in (1, 3, 5):
        evaluate(
            region, sampling.convex_hull(np.random.default_rng(count), count, 3), dataset, settings=Settings(chunk=2)
        )
    assert (
        _encoder(tiny.model, mesh_for(1))._cache_size() <= 2
    )  # one for each number of slots: the probe and the test split


def test_bfloat16_is_another_result_and_a_near_one(dataset, region):
    points = Results.in_memory()
    exact = evaluate(region, np.eye(3)[:1], dataset, settings=Settings(results=points))
    half = evaluate(region, np.eye(3)[:1], dataset, settings=Settings(results=points, precision="bfloat16"))
    assert len(points.keys()) == 2
    difference = np.abs(half.generalised_loss - exact.generalised_loss)
    # The seven digits after the leading one of bfloat16, 0.8 %, of losses of at most ln 2.
    assert 0 < difference < 0.01


def test_texts_of_all_splits_share_batches_and_stay_apart(tiny, dataset, region):
    splits = {name: dataset.splits[name] for name in ("validation", "test", "probe")}
    ((numbers, features),) = region_features(region, np.eye(3)[1:2], splits)
    assert numbers == [0]
    for name, split in splits.items():
        alone = all_features(tiny.model, region.members[1].load(), split)
        np.testing.assert_allclose(features[name][0], alone, atol=1e-5)
