"""Dropout by rbg: its rate, and bits that depend on a member's own seed alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from wsr.models.model import Model
from wsr.training import Division, Job, Recipe, finetune

RATE, HIDDEN = 0.3, 400
RBG = Recipe(learning_rate=0.01, batch_size=16, epochs=2, dropout_rng="rbg")
seen: list[np.ndarray] = []
"""Features of the batches trained on, with dropout."""


def _ones(params, batch, dropout_key=None):
    """An encoder that hands on what dropout makes of ones."""
    ones = jnp.ones((len(batch["starts"]), HIDDEN)) + params["shift"]
    if dropout_key is None:
        return ones
    features = nnx.Dropout(RATE, deterministic=False)(ones, rngs=nnx.Rngs(dropout=dropout_key))
    jax.debug.callback(lambda features: seen.append(np.asarray(features)), features)
    return features


ONES = Model("ones", {}, HIDDEN, 64, lambda key: {"shift": jnp.zeros(HIDDEN)}, _ones)


def train(*jobs, **options):
    seen.clear()
    members = list(finetune(ONES, {"shift": np.zeros(HIDDEN, np.float32)}, jobs, **options))
    jax.effects_barrier()
    return members


@pytest.mark.parametrize("pieces", [1, 2])
def test_drops_the_share_of_the_rate_and_scales_the_rest_up(dataset, pieces):
    train(Job(dataset, 0, dataclasses.replace(RBG, learning_rate=0.0)), chunk=1, division=Division(pieces))
    assert len(seen) == 8 * pieces
    features = np.concatenate(seen)
    assert (features == 0).mean() == pytest.approx(RATE, abs=0.01)
    np.testing.assert_allclose(features[features != 0], 1 / (1 - RATE), rtol=1e-6)
    # Each text of each step has a mask of its own.
    assert len({mask.tobytes() for mask in features == 0}) == 8 * 16


def test_bits_depend_on_the_members_own_seed_alone(dataset):
    """JAX's vmap over keys of rbg draws the bits of all members from the first key."""
    jobs = [Job(dataset, seed, RBG) for seed in (0, 1)]
    first, second = train(*jobs, chunk=2)
    assert np.abs(first.losses - second.losses).max() > 1e-3
    np.testing.assert_allclose(train(jobs[1], chunk=1)[0].losses, second.losses, atol=1e-6)
    for member, again in zip((first, second), train(*jobs, chunk=2), strict=True):
        np.testing.assert_array_equal(member.losses, again.losses)
        np.testing.assert_array_equal(member.params["shift"], again.params["shift"])


def test_rbg_and_threefry_train_different_members(dataset):
    jobs = [Job(dataset, 0, RBG), Job(dataset, 0, dataclasses.replace(RBG, dropout_rng="threefry"))]
    rbg, threefry = train(*jobs, chunk=2)  # in two groups, because their keys differ in kind
    assert np.abs(rbg.losses - threefry.losses).max() > 1e-3


def test_a_member_of_rbg_is_another_member_of_the_store(tmp_path, capsys):
    from wsr.cli import main
    from wsr.store import Store

    flags = [f"--store={tmp_path / 's'}", "--base=tiny", "--datasets=made_up_a1", "--seeds=1", "--size=32"]
    flags += ["--epochs=1", "--max_length=48", "--mode=head"]
    assert main(["train", *flags, "--dropout_rng=mersenne"]) != 0
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert main(["train", *flags, "--dropout_rng=rbg"]) == 0
    assert Store.open(tmp_path / "s").record("made_up_a1-head-n32-s0").hyperparameters["dropout_rng"] == "rbg"
    capsys.readouterr()
    assert main(["train", *flags]) == 1
    assert "dropout_rng is 'rbg' in the store and 'threefry' here" in capsys.readouterr().err
