"""Whether a model was fine-tuned from a checkpoint, told by its weights: against a reference, and on a real encoder."""

import jax
import ml_dtypes
import numpy as np
import pytest
from models_support import random_params

from wsr.exchange.kinship import LEAST_COSINE, kinship, rounding
from wsr.geometry.trees import flatten


def near(base, scale, seed=1):
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: np.asarray(leaf + scale * random.standard_normal(leaf.shape), np.float32), base)


def drawn_anew(base, seed=2):
    """Every leaf drawn from a normal distribution with its own mean and spread: another pretraining."""
    random = np.random.default_rng(seed)

    def draw(leaf):
        leaf = np.asarray(leaf)
        return (leaf.mean() + leaf.std() * random.standard_normal(leaf.shape)).astype(np.float32)

    return jax.tree.map(draw, base)


def in_another_order(base, hidden, seed=3):
    """The same function with its hidden units in another order."""
    order = np.random.default_rng(seed).permutation(hidden)

    def shuffle(leaf):
        leaf = np.asarray(leaf)
        for axis in [axis for axis, size in enumerate(leaf.shape) if size == hidden]:
            leaf = np.take(leaf, order, axis=axis)
        return leaf

    return jax.tree.map(shuffle, base)


def test_figures_are_those_of_a_plain_reference(tiny):
    base = random_params(tiny.model)
    own = near(base, 0.05)
    own["embeddings"]["norm"] = base["embeddings"]["norm"]
    matrices = [
        (np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel())
        for a, b in zip(flatten(own).values(), flatten(base).values(), strict=True)
        if b.ndim == 2
    ]
    found = kinship(own, base)
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in matrices]
    assert found.cosine == pytest.approx(np.median(cosines), rel=1e-9)
    whole, origin = (np.concatenate([pair[side] for pair in matrices]) for side in (0, 1))
    assert found.relative_distance == pytest.approx(np.linalg.norm(whole - origin) / np.linalg.norm(origin), rel=1e-9)
    everything = [np.concatenate([np.ravel(leaf) for leaf in flatten(tree).values()]) for tree in (own, base)]
    assert found.moved == pytest.approx(np.linalg.norm(everything[0].astype(np.float64) - everything[1]), rel=1e-6)
    assert (found.unchanged, found.leaves) == (2, len(flatten(base)))


def test_the_base_itself_and_models_of_zeros(tiny):
    base = random_params(tiny.model)
    same = kinship(base, base)
    assert (same.cosine, same.relative_distance, same.moved) == (pytest.approx(1), 0, 0)
    assert same.unchanged == same.leaves
    assert kinship(jax.tree.map(np.zeros_like, base), base).cosine == 0
    assert not kinship(jax.tree.map(np.negative, base), base).same_base


def test_rounding_is_the_distance_to_the_rounded_base(tiny):
    base = random_params(tiny.model)
    flat = np.concatenate([np.ravel(leaf) for leaf in flatten(base).values()])
    for dtype in (ml_dtypes.bfloat16, np.float16):
        expected = np.linalg.norm(flat.astype(dtype).astype(np.float64) - flat)
        assert rounding(base, np.dtype(dtype)) == pytest.approx(expected, rel=1e-9)
    rounded = jax.tree.map(lambda leaf: np.asarray(leaf).astype(ml_dtypes.bfloat16).astype(np.float32), base)
    assert rounding(rounded, np.dtype(ml_dtypes.bfloat16)) == 0


@pytest.mark.real
@pytest.mark.long
def test_fine_tuned_models_lie_close_and_independent_ones_do_not():
    """Where ``LEAST_COSINE`` lies: far from both, even where fine-tuning went so wrong that nothing is left."""
    from wsr.data.load import load_dataset
    from wsr.models import load
    from wsr.training import Job, Recipe, finetune

    minilm = load("minilm")
    sizes = {"finetune": 128, "probe": 10, "validation": 10, "test": 10}
    dataset = load_dataset("vader_movie", minilm.processor, max_length=24, sizes=sizes)
    jobs = [
        Job(dataset, 0, Recipe(learning_rate=rate, batch_size=16, epochs=1.0, warmup=0.006)) for rate in (1e-4, 1e-2)
    ]
    usual, hard = (
        kinship(member.params, minilm.params) for member in finetune(minilm.model, minilm.params, jobs, chunk=1)
    )
    drawn = kinship(drawn_anew(minilm.params), minilm.params)
    shuffled = kinship(in_another_order(minilm.params, minilm.model.hidden), minilm.params)
    print(f"\nusual {usual}\nhard {hard}\ndrawn {drawn}\nshuffled {shuffled}")
    assert usual.cosine > 0.9999
    assert hard.cosine > 0.9
    assert max(abs(drawn.cosine), abs(shuffled.cosine)) < 0.01
    assert usual.same_base
    assert hard.same_base
    assert not drawn.same_base
    assert not shuffled.same_base
    assert 0.2 < LEAST_COSINE < 0.8
