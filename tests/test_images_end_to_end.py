"""A population of image models from the command line and in Python: train, map, evaluate, compare, merge."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformers import AutoConfig

from wsr.cli import main
from wsr.data import load_dataset
from wsr.engine.early import Group, compare
from wsr.engine.evaluate import Protocol, evaluate
from wsr.engine.learned_coefficients import validation_loss
from wsr.models import load
from wsr.models.features import all_features
from wsr.region.region import from_params
from wsr.store import Store
from wsr.training import Job, Recipe, finetune

SIZES = {"finetune": 96, "probe": 40, "validation": 24, "test": 40}


@pytest.fixture(scope="module")
def vit():
    return load("tiny_vit")


@pytest.fixture(scope="module")
def data(vit):
    names = ("made_up_images_a1", "made_up_images_a2")
    return [load_dataset(name, vit.processor, sizes=SIZES) for name in names]


@pytest.fixture(scope="module")
def members(vit, data):
    recipe = Recipe(learning_rate=1e-2, batch_size=32, epochs=12.0, warmup=0.006)
    return list(finetune(vit.model, vit.params, [Job(data[0], seed, recipe) for seed in range(2)], chunk=1))


@pytest.mark.long
def test_the_command_line_takes_digits_through_everything(tmp_path, capsys):
    store, merged = tmp_path / "store", tmp_path / "merged"
    common = ["--learning_rate=0.01", "--epochs=8", "--size=192", "--seeds=1"]
    names = "digits,made_up_images_a1,made_up_images_a2"
    assert main(["train", f"--store={store}", "--base=tiny_vit", f"--datasets={names}", *common]) == 0
    assert len(Store.open(store).names()) == 3
    assert main(["map", f"--store={store}", f"--out={tmp_path / 'map'}"]) == 0
    assert (tmp_path / "map" / "map.html").is_file()
    sizes = ["--probe_size=60", "--test_size=60", "--interior=2"]
    assert main(["evaluate", f"--store={store}", "--on=digits", *sizes, f"--out={tmp_path / 'rows'}"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    assert {row["group"] for row in rows} == {"pretrained", "member", "centroid", "interior"}
    scores = [row["value"] for row in rows if row["metric"] == "accuracy"]
    assert max(scores) > 0.35  # chance is a tenth
    assert main(["merge", f"--store={store}", f"--to={merged}"]) == 0
    assert AutoConfig.from_pretrained(merged).model_type == "vit"
    average = np.mean([Store.open(store).load(name)[0]["norm"]["scale"] for name in Store.open(store).names()], axis=0)
    again = load(str(merged))
    np.testing.assert_allclose(again.params["norm"]["scale"], average, atol=1e-6)
    assert again.processor == load("tiny_vit").processor
    capsys.readouterr()
    assert main(["evaluate", f"--store={store}", "--on=made_up_a1"]) == 1
    assert "made_up_a1 is a dataset of text, but the model reads images" in capsys.readouterr().err
    assert main(["train", f"--store={tmp_path / 'other'}", "--base=tiny", "--datasets=digits"]) == 1
    assert "digits is a dataset of images, but the model reads text" in capsys.readouterr().err


def test_members_learn_and_points_between_them_are_scored(vit, data, members):
    assert all(member.losses[-3:].mean() < 0.7 * member.losses[:2].mean() for member in members)
    region = from_params(vit.model, vit.params, {f"seed {m.job.seed}": m.params for m in members})
    scores = evaluate(region, np.array([[1.0, 0.0], [0.5, 0.5]]), data[1])
    # The end of a line is the member itself, encoded in one batch.
    test = data[1].splits["test"]
    features = all_features(vit.model, members[0].params, test)
    params = jax.tree.map(jnp.asarray, members[0].params)
    together = vit.model.encode(params, {"pixel_values": test.pixel_values})
    np.testing.assert_allclose(features, together, atol=1e-5)
    assert scores.losses.shape == (2, 40)
    assert (scores.scores > 0.5).all()


def test_an_early_answer_reads_images_as_texts(vit, data, members):
    region = from_params(vit.model, vit.params, {f"seed {m.job.seed}": m.params for m in members})
    near = Group(region, np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]))
    base = Group(region, np.array([[0.0, 0.0], [0.05, 0.0], [0.0, 0.05]]))
    answer = compare(near, base, data[0], confidence=0.5, generator=np.random.default_rng(0))
    assert answer.looks[-1].probability > 0.5  # members are better than their base
    assert answer.texts_read == 6 * (answer.looks[-1].size.texts + 40)


@pytest.mark.long
def test_the_gradient_in_the_coefficients_agrees_with_a_difference(vit, data, members):
    region = from_params(vit.model, vit.params, {f"seed {m.job.seed}": m.params for m in members})
    judge = validation_loss(region, data[1], Protocol(inverse_l2=1.0))  # a C that is chosen may jump between the points
    point = jnp.array([0.5, 0.3])
    gradient = judge(point)[1]()
    step = jnp.array([0.02, 0.0])
    difference = (judge(point + step)[0] - judge(point - step)[0]) / 0.04
    np.testing.assert_allclose(gradient[0], difference, rtol=0.1, atol=2e-3)


def test_a_head_alone_and_early_stopping_read_images_too(vit, data):
    recipe = Recipe(mode="head", learning_rate=0.05, batch_size=32, epochs=3.0, warmup=0.006, patience=5, check_every=3)
    (member,) = finetune(vit.model, vit.params, [Job(data[0], 0, recipe)], chunk=1)
    assert member.losses[-1] < member.losses[0]
    assert member.failed_step is None
