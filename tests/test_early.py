"""Early answers: the rule by simulation, and its evaluation against the engine's."""

import itertools
import math
from dataclasses import replace

import jax
import numpy as np
import pytest
from scipy import stats
from worlds import made_up

from benchmarks.early import EVEN, FULL, simulated_answers, true_probability
from wsr.engine import early
from wsr.engine.early import Group, Size, compare, probability_interval, schedule
from wsr.engine.evaluate import Protocol, evaluate
from wsr.engine.settings import Settings
from wsr.errors import WsrError
from wsr.geometry import sampling
from wsr.region.region import from_params
from wsr.statistics.better import probability_better
from wsr.store.results import Results


@pytest.mark.parametrize("law", EVEN)
def test_a_group_is_seldom_named_where_neither_is_better(law):
    """At a confidence of 0.95 five in a hundred may be; with binomial tolerance."""
    runs = 30
    named = sum(look.better is not None for look in simulated_answers(runs, **EVEN[law])[0])
    assert named <= stats.binom.ppf(0.999, runs, 0.05)


def test_the_interval_holds_the_truth_and_clear_answers_come_early():
    runs = 40
    looks, used = simulated_answers(runs, shift=2.0)
    held = sum(look.low <= true_probability(2.0) <= look.high for look in looks)
    assert held >= stats.binom.ppf(0.001, runs, 0.95)
    assert all(look.better == "a" for look in looks)
    assert used < 0.4
    looks, used = simulated_answers(10, shift=-4.0)
    assert all(look.better == "b" for look in looks)
    assert used < 0.2


def test_groups_that_do_not_overlap_are_bounded_exactly():
    """Clopper and Pearson at k of k: (error / 2) ** (1 / k), so that k fair coins alike have a chance of 2 ** -k."""
    generator = np.random.default_rng(0)
    a, b = generator.uniform(0, 1, (6, 80)), generator.uniform(5, 6, (9, 80))
    found = probability_interval(a, b, confidence=0.95, generator=generator)
    np.testing.assert_allclose(found, [1, 0.025 ** (1 / 6), 1], rtol=1e-12)
    np.testing.assert_allclose(
        probability_interval(b, a, confidence=0.95, generator=generator), [0, 0, 1 - 0.025 ** (1 / 6)], rtol=1e-12
    )


def test_probability_is_that_of_compare_ties_included():
    generator = np.random.default_rng(1)
    a, b = generator.normal(size=(9, 30)), generator.normal(size=(7, 30))
    b[:2] = a[:2]
    found, low, high = probability_interval(a, b, confidence=0.95, generator=generator)
    expected = probability_better(a, b, resamples=10, generator=generator).probability
    assert found == pytest.approx(expected, abs=1e-12)
    assert low < found < high
    same = np.tile(generator.normal(size=(1, 30)), (8, 1))
    assert probability_interval(same, same, confidence=0.95, generator=generator)[0] == 0.5


def test_texts_count_as_well_as_models():
    """Many models that differ only by which texts were drawn: models alone would be sure, two texts cannot be."""
    generator = np.random.default_rng(2)
    a, b = np.tile([[0.0, 1.0]], (40, 1)), np.tile([[0.9, 0.3]], (40, 1))
    a, b = a + 1e-3 * generator.normal(size=a.shape), b + 1e-3 * generator.normal(size=b.shape)
    _, low, high = probability_interval(a, b, confidence=0.95, generator=generator)
    assert low < 0.5 < high


@pytest.mark.parametrize(("models", "confidence"), [(6, 0.95), (7, 0.95), (8, 0.95), (16, 0.95), (12, 0.99)])
def test_the_first_round_could_answer_and_the_last_is_everything(models, confidence):
    sizes = schedule(Size(models, 30, 300), confidence)
    assert sizes[-1] == Size(models, 30, 300)
    first = min(sizes[0].models_a, sizes[0].models_b)
    share = (1 - confidence) / len(sizes)
    assert 2 * 0.5**first < share
    for before, after in itertools.pairwise(sizes):
        assert before.models_a <= after.models_a
        assert before.models_b <= after.models_b
        assert before.texts <= after.texts


def test_too_few_models_are_refused_before_anything_is_evaluated():
    with pytest.raises(WsrError, match=r"needs 6 models in each group .* found 5 and 30"):
        schedule(Size(5, 30, 300), 0.95)
    with pytest.raises(WsrError, match="confidence"):
        schedule(FULL, 1.0)


@pytest.fixture(scope="module")
def groups(tiny):
    """Members near the checkpoint and members that noise has spoilt."""

    def moved(seed, scale):
        generator = np.random.default_rng(seed)
        return jax.tree.map(
            lambda leaf: (leaf + scale * generator.normal(size=leaf.shape)).astype(np.float32), tiny.params
        )

    near = from_params(tiny.model, tiny.params, {f"near {seed}": moved(seed, 0.01) for seed in range(3)})
    far = from_params(tiny.model, tiny.params, {f"far {seed}": moved(seed, 2.0) for seed in range(9)})
    return Group(near, sampling.convex_hull(np.random.default_rng(0), 9, 3)), Group(far, np.eye(9))


def test_losses_are_those_of_the_engine_and_no_text_is_read_twice(dataset, groups, tmp_path, monkeypatch):
    monkeypatch.setattr(early, "FEWEST_TEXTS", 10)
    seen, read = [], []
    protocol = Protocol(draws=2)
    interval, score = early.probability_interval, early._Scorer._score

    def undecided(a, b, **more):
        seen.append((a, b))
        probability, _, _ = interval(a, b, **more)
        return probability, 0.0, 1.0

    monkeypatch.setattr(early, "probability_interval", undecided)
    monkeypatch.setattr(
        early._Scorer,
        "_score",
        lambda self, group, rows, features, parts: (
            read.append((len(rows), sorted(part.shape[1] for part in features.values()))),
            score(self, group, rows, features, parts),
        ),
    )
    points = Results.on_disk(tmp_path)
    answer = compare(
        *groups, dataset, protocol=protocol, generator=np.random.default_rng(4), settings=Settings(results=points)
    )
    assert len(answer.looks) == 5
    assert answer.texts_read == answer.texts_needed == answer.texts_in_full == 18 * 80
    assert sum(models * sum(texts) for models, texts in read) == 18 * 80

    # The engine's losses, in the order in which models and texts were drawn.
    draw = np.random.default_rng(4)
    texts = draw.permutation(40)
    for group, found in zip(groups, seen[-1], strict=True):
        rows = draw.permutation(group.coefficients)
        np.testing.assert_allclose(
            found, evaluate(group.region, rows, dataset, protocol=protocol).losses[:, texts], atol=1e-4
        )

    settings = Settings(results=Results.on_disk(tmp_path))
    again = compare(*groups, dataset, protocol=protocol, generator=np.random.default_rng(4), settings=settings)
    assert again.texts_read == 0
    assert again.looks == answer.looks


def test_a_clear_answer_reads_less(tiny, groups):
    data = made_up(tiny, "made_up_a1", finetune=240, probe=60)
    many = replace(data, splits={**data.splits, "test": data.splits["finetune"]})
    answer = compare(*groups, many, generator=np.random.default_rng(0))
    assert answer.looks[-1].better == "a"
    assert answer.texts_read == answer.texts_needed < answer.texts_in_full
    assert answer.saved == pytest.approx(1 - answer.texts_needed / answer.texts_in_full)
    assert math.isfinite(answer.seconds)
