"""The recipe that ``wsr suggest`` prints: that of most members, and long enough to learn the data."""

import re
import shlex
import shutil

import pytest
from forked_cli import wsr

from wsr import models
from wsr.cli import suggest
from wsr.cli.flags import values_of
from wsr.engine import recipe_check
from wsr.engine.recipe_check import check_recipe
from wsr.store import Store
from wsr.training import Recipe


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Trains a store for each mode, with the flags given; returns its path."""
    folder = tmp_path_factory.mktemp("stores")

    def trained(name, *flags):
        path = folder / name
        if not path.exists():
            words = ("--base=tiny", "--datasets=made_up_a1", "--seeds=2", "--size=96", "--max_length=48", *flags)
            done = wsr("train", f"--store={path}", *words)
            assert done.returncode == 0, done.stderr
        return path

    return trained


def suggested(store, *flags):
    done = wsr("suggest", f"--store={store}", "--data=made_up_b1", "--max_length=48", "--texts=60", *flags)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
def test_members_whose_heads_alone_were_trained_are_no_starts(stores, tmp_path):
    store = stores("head", "--mode=head", "--epochs=30", "--learning_rate=0.3")
    printed = suggested(store)
    assert "every member has the base's weights: the base is the only start" in printed
    (command,) = [line for line in printed.splitlines() if line.startswith("wsr ")]
    assert "--mode=head" in shlex.split(command)
    assert "--base=tiny" in shlex.split(command)
    for verb, flags in (("map", [f"--out={tmp_path}"]), ("merge", [f"--to={tmp_path / 'merged'}"])):
        refused = wsr(verb, f"--store={store}", *flags)
        assert refused.returncode == 1
        assert "none of 2 members left the base" in refused.stderr
        assert "nan" not in refused.stdout + refused.stderr


@pytest.mark.long
def test_the_command_trains_as_the_members_were(stores):
    flags = ("--mode=lora", "--lora_rank=2", "--lora_alpha=4.0", "--head_learning_rate=0.02")
    store = stores("lora", *flags, "--epochs=12", "--learning_rate=0.05", "--nodropout", "--weight_decay=0.0")
    printed = suggested(store)
    command = shlex.split(printed.splitlines()[-1])
    assert {*flags, "--nodropout", "--weight_decay=0.0", "--learning_rate=0.05"} <= set(command)
    score, chance = map(float, re.search(r"accuracy (\S+) on \d+ test texts, (\S+) by chance", printed).groups())
    assert score >= chance
    assert "test texts" not in suggested(store, "--nocheck_recipe")
    recipe = Store.open(store).records()[0].hyperparameters
    assert f"--batch_size={recipe['batch_size']}" in command


def test_a_base_whose_folder_is_not_here_is_exported_from_the_store(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    models.export(tiny, "base")
    store = Store.create_for("store", models.load("base"))
    values = values_of(suggest.PAGE.flags)
    values(["wsr suggest", "--store=store", "--data=made_up_b1"])
    (train,) = suggest._commands(values, store, "", "base", Recipe())
    assert "--base=./base" in train.split()
    shutil.move("base", "elsewhere")
    export, train = suggest._commands(values, store, "", "base", Recipe())
    assert export == "wsr export base --store=store --to=runs/start-base"
    assert "--base=runs/start-base" in train.split()


@pytest.mark.long
def test_more_epochs_until_a_member_learns(tiny, dataset, monkeypatch):

    found = check_recipe(tiny.model, tiny.params, dataset, Recipe(learning_rate=0.01, epochs=1, batch_size=16))
    assert found.learned
    assert found.recipe.epochs in (3, 9)
    monkeypatch.setattr(recipe_check, "LONGER", (1,))
    never = check_recipe(tiny.model, tiny.params, dataset, Recipe(learning_rate=0.0, epochs=0.3, batch_size=16))
    assert not never.learned
