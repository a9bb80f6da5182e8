"""Early answers: the rule by simulation, and its evaluation against the engine's."""

import itertools
import math
from dataclasses import replace

import jax
import numpy as np
import pytest
from scipy import stats
from worlds import made_up

from benchmarks import coverage
from benchmarks.early import EVEN, FULL, INDEPENDENT, simulated_answers, true_probability
from wsr.engine import early
from wsr.engine.early import Group, Size, compare, look_in_rounds, schedule, sources_needed
from wsr.engine.evaluate import Protocol, evaluate
from wsr.engine.settings import Settings
from wsr.errors import WsrError
from wsr.geometry import sampling
from wsr.region.region import Region, from_params
from wsr.statistics.better import probability_better
from wsr.statistics.sources import Sources
from wsr.store.results import Results


@pytest.mark.long
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
    found = probability_better(a, b, generator=generator)
    np.testing.assert_allclose([found.probability, found.low, found.high], [1, 0.025 ** (1 / 6), 1], rtol=1e-9)
    assert found.p_value == pytest.approx(2 * 0.5**6, rel=1e-6)
    found = probability_better(b, a, generator=generator)
    np.testing.assert_allclose([found.probability, found.low, found.high], [0, 0, 1 - 0.025 ** (1 / 6)], rtol=1e-9)


def test_texts_count_as_well_as_models():
    """Many models that differ only by which texts were drawn: models alone would be sure, two texts cannot be."""
    generator = np.random.default_rng(2)
    a, b = np.tile([[0.0, 1.0]], (40, 1)), np.tile([[0.9, 0.3]], (40, 1))
    a, b = a + 1e-3 * generator.normal(size=a.shape), b + 1e-3 * generator.normal(size=b.shape)
    found = probability_better(a, b, generator=generator)
    assert found.low < 0.5 < found.high


@pytest.mark.parametrize(("models", "confidence"), [(6, 0.95), (7, 0.95), (8, 0.95), (16, 0.95), (12, 0.99)])
def test_the_first_round_could_answer_and_the_last_is_everything(models, confidence):
    sources = Sources.independent(models, "a"), Sources.independent(30, "b")
    sizes = schedule(Size(models, 30, 300), sources, confidence)
    assert sizes[-1] == Size(models, 30, 300)
    first = min(sizes[0].models_a, sizes[0].models_b)
    share = (1 - confidence) / len(sizes)
    assert 2 * 0.5**first < share
    for before, after in itertools.pairwise(sizes):
        assert before.models_a <= after.models_a
        assert before.models_b <= after.models_b
        assert before.texts <= after.texts


def test_too_few_sources_leave_one_round_and_no_answer():
    assert [sources_needed(confidence) for confidence in (0.5, 0.8, 0.95, 0.99)] == [3, 4, 6, 8]
    few = Sources(("x", "y"), np.repeat(np.eye(2), 15, axis=0), "dataset")
    sizes = schedule(FULL, (few, INDEPENDENT[1]), 0.95)
    assert sizes == (FULL,)
    losses = np.zeros((30, 300)), np.ones((16, 300))
    (look,) = look_in_rounds(lambda _: losses, sizes, (few, INDEPENDENT[1]), 0.95, np.random.default_rng(0))
    assert (look.probability, look.low, look.high, look.better) == (1, 0, 1, None)
    assert look.reason == "group a comes from 2 datasets; an interval needs 3"
    with pytest.raises(WsrError, match="confidence"):
        schedule(FULL, INDEPENDENT, 1.0)


def test_sources_are_datasets_or_the_members_of_one(tiny):
    members = from_params(tiny.model, tiny.params, dict.fromkeys(("a0", "a1", "b0"), tiny.params)).members
    members = [replace(member, dataset=member.name[0]) for member in members]
    region = Region(tiny.model, tiny.params, members, base_sha256="base")
    rows = np.array([[0.5, 0.25, 0.25], [1.0, 0, 0], [0, 0, 0], [2, 0, -2]])
    found = Group(region, rows).sources
    assert (found.names, found.kind) == (("a", "b", "base"), "dataset")
    np.testing.assert_allclose(found.shares, [[0.75, 0.25, 0], [1, 0, 0], [0, 0, 1], [0.5, 0.5, 0]])
    found = Group(region, rows[1:2] * 0.5 + np.eye(3)[:2] * 0.5).sources
    assert (found.names, found.kind) == (("a0", "a1"), "member")
    np.testing.assert_allclose(found.shares, [[1, 0], [0.5, 0.5]])


@pytest.mark.parametrize("design", ["hull", "datasets"])
def test_models_that_depend_on_each_other_are_no_independent_observations(design):
    """Equal laws, so either answer is wrong; taken for independent, 17 to 35 % of these runs named a group."""
    draw = _hull if design == "hull" else _clustered
    named, runs = 0, 60
    for seed in range(runs):
        generator = np.random.default_rng(seed)
        (a, of_a), (b, of_b) = draw(generator)
        size = Size(len(a), len(b), a.shape[1])
        look = look_in_rounds(lambda _, a=a, b=b: (a, b), (size,), (of_a, of_b), 0.95, generator)[-1]
        named += look.better is not None
    assert named <= stats.binom.ppf(0.999, runs, 0.05)


def _hull(generator):
    return coverage.DESIGNS["points between 5 members, against 16 others"](generator)


def _clustered(generator):
    return coverage.DESIGNS["members of 6 and 6 datasets, 5 each, correlation 0.9, others"](generator)


@pytest.fixture(scope="module")
def groups(tiny):
    """Members near the checkpoint and members that noise has spoilt."""

    def moved(seed, scale):
        generator = np.random.default_rng(seed)
        return jax.tree.map(
            lambda leaf: (leaf + scale * generator.normal(size=leaf.shape)).astype(np.float32), tiny.params
        )

    near = from_params(tiny.model, tiny.params, {f"near {seed}": moved(seed, 0.01) for seed in range(9)})
    far = from_params(tiny.model, tiny.params, {f"far {seed}": moved(seed, 2.0) for seed in range(9)})
    return Group(near, sampling.convex_hull(np.random.default_rng(0), 9, 9)), Group(far, np.eye(9))


@pytest.mark.long
def test_losses_are_those_of_the_engine_and_no_text_is_read_twice(dataset, groups, tmp_path, monkeypatch):
    monkeypatch.setattr(early, "FEWEST_TEXTS", 10)
    seen, read = [], []
    protocol = Protocol(draws=2)
    better, score = early.probability_better, early._Scorer._score

    def undecided(a, b, **more):
        seen.append((a, b))
        return replace(better(a, b, **more), low=0.0, high=1.0)

    monkeypatch.setattr(early, "probability_better", undecided)
    monkeypatch.setattr(
        early._Scorer,
        "_score",
        lambda self, group, rows, parts, places, features: (
            read.append((len(places), sorted(part.shape[1] for part in features.values()))),
            score(self, group, rows, parts, places, features),
        ),
    )
    points = Results.on_disk(tmp_path)
    answer = compare(
        *groups, dataset, protocol=protocol, generator=np.random.default_rng(4), settings=Settings(results=points)
    )
    assert len(answer.looks) == 5
    assert answer.texts_read == answer.texts_needed == answer.texts_in_full == 18 * 80
    assert sum(models * sum(texts) for models, texts in read) == 18 * 80

    # The engine's losses, in the order in which texts were drawn; the models may stand in any order.
    texts = np.random.default_rng(4).permutation(40)
    for group, found in zip(groups, seen[-1], strict=True):
        expected = evaluate(group.region, group.coefficients, dataset, protocol=protocol).losses_by_draw[..., texts]
        apart = np.abs(found[:, :, None] - expected[:, None]).max(axis=(0, -1))
        assert (apart.min(axis=0) < 1e-4).all()
        assert (apart.min(axis=1) < 1e-4).all()

    settings = Settings(results=Results.on_disk(tmp_path))
    again = compare(*groups, dataset, protocol=protocol, generator=np.random.default_rng(4), settings=settings)
    assert again.texts_read == 0
    assert again.looks == answer.looks


def test_few_models_come_from_many_sources(tiny):
    names = [f"{dataset}{number}" for dataset in "abc" for number in range(4)]
    members = from_params(tiny.model, tiny.params, dict.fromkeys(names, tiny.params)).members
    region = Region(tiny.model, tiny.params, [replace(own, dataset=own.name[0]) for own in members], base_sha256="base")
    for seed in range(5):
        sources = early._in_turn(Group(region, np.eye(12)), np.random.default_rng(seed)).sources
        assert [len(sources.first(models).names) for models in (1, 2, 3, 6)] == [1, 2, 3, 3]
        np.testing.assert_allclose(sources.first(6).weights, 1 / 3)


def test_a_clear_answer_reads_less(tiny, groups):
    data = made_up(tiny, "made_up_a1", finetune=240, probe=60)
    many = replace(data, splits={**data.splits, "test": data.splits["finetune"]})
    answer = compare(*groups, many, generator=np.random.default_rng(0))
    assert answer.looks[-1].better == "a"
    assert answer.texts_read == answer.texts_needed < answer.texts_in_full
    assert answer.saved == pytest.approx(1 - answer.texts_needed / answer.texts_in_full)
    assert math.isfinite(answer.seconds)
