"""Rules that choose a start, and how their choices are judged, against counts by hand."""

import math

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from wsr.data.load import load_dataset
from wsr.engine.suggest import FOLDS, starts
from wsr.geometry.trees import flatten
from wsr.models import load
from wsr.models.features import all_features
from wsr.models.precision import computing_in
from wsr.region.region import from_params
from wsr.store.results import Results
from wsr.studies.few_shot import FewShot, Start
from wsr.studies.harness.context import Context
from wsr.studies.newcomer import (
    CENTROID,
    PRETRAINED,
    RANDOM,
    Newcomer,
    behind_the_best,
    best_is_named,
    equal_starts,
    near_the_best,
    score_of,
)
from wsr.studies.start_rules import Judge, choices
from wsr.studies.which_start import count_starts
from wsr.training import Job, Recipe, finetune


def newcomer(right, chosen=(0,), named=((0,),)):
    """A newcomer with one seed, one rule and one confidence."""
    right = np.asarray(right, float)
    names = tuple(f"start {number}" for number in range(len(right)))
    return Newcomer(names, right, {"probe": list(chosen)}, {0.9: [list(own) for own in named]})


def test_rules_that_need_no_examples_take_the_first_the_second_or_all_starts():
    own = newcomer([[[1, 1, 0, 0]], [[1, 1, 1, 0]], [[1, 1, 1, 1]]], chosen=(2,))
    assert [score_of(own, rule) for rule in (PRETRAINED, CENTROID, RANDOM, "probe")] == [0.5, 0.75, 0.75, 1.0]


def test_each_seed_scores_its_own_choice():
    own = newcomer([[[1, 1], [0, 0]], [[0, 1], [1, 1]]], chosen=(0, 1))
    assert score_of(own, "probe") == 1.0
    assert score_of(newcomer([[[1, 1], [0, 0]], [[0, 1], [1, 1]]], chosen=(1, 0)), "probe") == 0.25


def test_near_the_best_are_starts_within_half_a_point():
    right = np.zeros((3, 1, 1000))
    for start, count in enumerate((800, 796, 794)):
        right[start, 0, :count] = 1
    assert [near_the_best(newcomer(right, chosen=(number,)), "probe") for number in range(3)] == [1, 1, 0]
    assert near_the_best(newcomer(right), RANDOM) == pytest.approx(2 / 3)


def test_behind_the_best_is_not_fooled_by_luck():
    draw = np.random.default_rng(0)
    fair, raw = [], []
    for _ in range(200):
        own = newcomer(draw.integers(0, 2, (15, 1, 100)))
        fair.append(behind_the_best(own, PRETRAINED, draw))
        raw.append(own.right.mean(axis=(1, 2)).max() - score_of(own, PRETRAINED))
    error = np.std(fair) / math.sqrt(len(fair))
    assert abs(np.mean(fair)) < 4 * error  # all starts are truly equal
    assert np.mean(raw) > 0.05  # what the best of fifteen seems to add


def test_equal_starts_keep_each_texts_outcomes():
    own = newcomer(np.random.default_rng(0).integers(0, 2, (6, 2, 50)))
    dealt = equal_starts(own, np.random.default_rng(1))
    np.testing.assert_array_equal(dealt.right.sum(axis=0), own.right.sum(axis=0))
    assert (dealt.right != own.right).any()


def test_the_best_start_is_named_or_not():
    right = [[[1, 0], [1, 0]], [[1, 1], [1, 0]], [[0, 0], [0, 0]]]
    assert best_is_named(newcomer(right, named=((0, 1), (0,))), 0.9) == (0.5, 0.5)


@pytest.fixture(scope="module")
def judged():
    """A judge of a made-up dataset, and two starts: the pretrained model and the average of two members."""
    base = load("tiny")
    data = [load_dataset(name, base.processor, max_length=48) for name in ("made_up_a1", "made_up_a2")]
    recipe = Recipe(mode="bitfit", learning_rate=0.01, batch_size=16, epochs=2)
    members = finetune(base.model, base.params, [Job(data[0], seed, recipe) for seed in (0, 1)], chunk=1)
    params = {f"m{own.job.seed}": own.params for own in members}
    region = from_params(base.model, base.params, params, dataset="made_up_a1", family="made_up_a")
    context = Context(region, {own.name: own for own in data}, ["made_up_a2"], Results.in_memory())
    plan = FewShot(40, 1, recipe, least_steps=10, inverse_l2=1.0)
    pretrained, averaged = Start(region.emptied(), "float32"), Start(region, "float32")
    return Judge(context, data[1], 0, plan, pretrained), plan.job(data[1], 0), pretrained, averaged


def test_the_probe_rule_is_the_loss_of_scikit_learns_probes(judged):
    judge, job, pretrained, _ = judged
    examples = job.split.take(np.argsort(job.split.labels, kind="stable"))
    features = all_features(pretrained.region.model, pretrained.params, examples)
    fold, expected = np.arange(len(examples)) % FOLDS, np.empty(len(examples))
    for number in range(FOLDS):
        inside = fold == number
        fitted = LogisticRegression(C=1.0, tol=1e-8, max_iter=5000).fit(features[~inside], examples.labels[~inside])
        chances = fitted.predict_proba(features[inside])
        expected[inside] = -np.log(chances[np.arange(inside.sum()), examples.labels[inside]])
    np.testing.assert_allclose(judge.judge(pretrained)["probe"], expected, atol=1e-3)


def test_the_cosine_rule_compares_the_biases_that_bitfit_trains(judged):
    judge, job, pretrained, averaged = judged
    (member,) = finetune(pretrained.region.model, pretrained.params, [job], chunk=1)
    leaves = [flatten(tree) for tree in (pretrained.params, member.params, averaged.params)]
    base, trained, start = (
        np.concatenate([own[path].ravel() for path in sorted(own) if path.endswith("bias")]) for own in leaves
    )
    one, two = trained - base, start - base
    expected = one @ two / np.linalg.norm(one) / np.linalg.norm(two)
    assert judge.judge(averaged)["cosine"] == pytest.approx(-expected, abs=1e-5)
    assert judge.judge(pretrained)["cosine"] == 0


def test_a_start_encodes_in_the_precision_of_the_trainings(judged):
    _, job, _, averaged = judged
    start = Start(averaged.region, "bfloat16")
    model = computing_in(averaged.region.model, "bfloat16", jax.default_backend())
    expected = all_features(model, averaged.params, job.split)
    np.testing.assert_allclose(start.features(job.split), expected, atol=1e-5)
    assert np.abs(expected - averaged.features(job.split)).max() > 1e-4
    assert start.identity != averaged.identity


def test_a_judged_start_is_kept(judged, monkeypatch):
    judge, _, _, averaged = judged
    before = judge.judge(averaged)
    monkeypatch.setattr("wsr.studies.few_shot.all_features", None)
    monkeypatch.setattr("wsr.studies.start_rules.finetune", None)
    after = judge.judge(averaged)
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


def test_each_rule_takes_its_own_smallest_value():
    first = {"probe": np.array([1.0, 0.0]), "logme": 2.0, "few steps": 0.3, "cosine": -0.1}
    second = {"probe": np.array([0.4, 0.4]), "logme": 1.0, "few steps": 0.5, "cosine": -0.2}
    assert choices([first, second]) == {"probe": 1, "logme": 1, "few steps": 0, "cosine": 1}


def test_starts_are_counted_before_anything_is_trained():
    base = load("tiny")
    names = ("made_up_a1", "made_up_a2", "made_up_b1", "made_up_b2")
    region = from_params(base.model, base.params, {}, dataset="", family="")
    for name in names:
        members = {f"{name} {seed}": base.params for seed in (0, 1)}
        family = name[:-1]
        region = region.joined(from_params(base.model, base.params, members, dataset=name, family=family).members)
    own = starts(region.without_dataset("made_up_a1"))
    assert count_starts("made_up_a1", names, 2) == sum(start.coefficients.max() != 1 for start in own)
