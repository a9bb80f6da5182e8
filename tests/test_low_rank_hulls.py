"""Hulls of LoRA members, evaluated from their factors: equal to the same members made dense, in less memory."""

import jax
import numpy as np
import pytest
from models_support import random_params
from test_decoder_hulls import plain
from test_store import record_of

from wsr import models
from wsr.engine.language_model import evaluate_language_model, with_losses
from wsr.engine.region_features import plan_features
from wsr.engine.settings import Settings
from wsr.geometry.low_rank import Factors
from wsr.geometry.points import add_low_rank
from wsr.geometry.trees import flatten
from wsr.region import region as regions
from wsr.region.region import Region, from_params
from wsr.store import Store

RANK, ADAPTERS = 2, 5


@pytest.fixture(scope="module")
def model():
    return models.build("gpt2", models.architectures()["gpt2"].example)


@pytest.fixture(scope="module")
def base(model):
    return jax.tree.map(np.asarray, random_params(model))


def factors(base, seed):
    """Factors of every matrix of the layers, and of one vector."""
    draw = np.random.default_rng(seed)

    def thin(*shape):
        return (0.2 * draw.normal(size=shape)).astype(np.float32)

    found = {
        path: Factors(thin(leaf.shape[0], RANK), thin(RANK, leaf.shape[1]))
        for path, leaf in flatten(base).items()
        if leaf.ndim == 2 and path.startswith("layers")
    }
    path, leaf = next((path, leaf) for path, leaf in flatten(base).items() if leaf.ndim == 1)
    return found | {path: Factors(np.ones((1, 1), np.float32), thin(1, leaf.size))}


@pytest.fixture(scope="module")
def store(model, base, tmp_path_factory):
    """Adapters, and one member stored whole."""
    made = Store.create(
        tmp_path_factory.mktemp("lora") / "store",
        model_name="gpt2",
        model_config=dict(model.config),
        base_name="base",
        base_params=base,
    )
    for number in range(ADAPTERS):
        made.save_low_rank(record_of(f"a{number}", mode="lora"), factors(base, number), {})
    whole = jax.tree.map(lambda leaf: leaf + np.float32(0.03), base)
    made.save(record_of("whole"), whole, {})
    return made


@pytest.fixture(scope="module")
def texts():
    return plain()[1]


def adapters(store, model):
    return Region.from_store(store, model, names=[f"a{number}" for number in range(ADAPTERS)])


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("streamed", [False, True])
def test_points_between_adapters_have_the_losses_of_dense_members(store, model, texts, chunk, streamed):
    region = Region.from_store(store, model)
    dense = from_params(model, store.base(), {name: store.load(name)[0] for name in region.names})
    rows = np.concatenate(
        [np.random.default_rng(0).normal(size=(5, len(region))), np.eye(len(region)), np.zeros((1, len(region)))]
    )
    settings = Settings(chunk=chunk)
    if streamed:
        needed = plan_features(with_losses(region), rows, {"texts": texts.windows}, settings=settings).needed_bytes
        settings = Settings(chunk=chunk, memory_budget_gib=(needed - 1) / 2**30)
        plan = plan_features(with_losses(region), rows, {"texts": texts.windows}, settings=settings)
        assert not plan.resident
    found = evaluate_language_model(region, rows, texts, settings=settings)
    np.testing.assert_allclose(found.losses, evaluate_language_model(dense, rows, texts).losses, atol=1e-5)


def test_an_evaluation_makes_no_adapter_dense_and_holds_its_factors_only(store, model, base, texts, monkeypatch):
    def never(store, name):
        raise AssertionError(f"{name} was made dense")

    monkeypatch.setattr(regions, "_load_encoder", never)
    region = adapters(store, model)
    rows = np.random.default_rng(1).dirichlet(np.ones(ADAPTERS), size=4)
    evaluate_language_model(region, rows, texts)
    held = sum(own.a.nbytes + own.b.nbytes for member in region.members for own in member.load_factors().values())
    thin = sum(
        sum(leaf.shape) * RANK for path, leaf in flatten(base).items() if path in factors(base, 0) and leaf.ndim == 2
    )
    vector = next(leaf.size for leaf in flatten(base).values() if leaf.ndim == 1)
    assert held == 4 * ADAPTERS * (thin + vector + 1)

    monkeypatch.undo()
    dense = from_params(model, store.base(), {name: store.load(name)[0] for name in region.names})
    low, high = (
        plan_features(with_losses(own), rows, {"texts": texts.windows}).needed_bytes for own in (region, dense)
    )
    params_bytes = sum(leaf.nbytes for leaf in flatten(base).values())
    product = max(leaf.nbytes for path, leaf in flatten(base).items() if path in factors(base, 0))
    # All stay on the device, and room for one more is kept; a CPU's memory also holds the arrays of the host.
    assert high - low == 2 * ((ADAPTERS + 1) * (params_bytes - held // ADAPTERS) - 2 * product)


def test_products_are_added_to_every_point(base):
    changes = [factors(base, number) for number in (0, 1)]
    coefficients = np.random.default_rng(2).normal(size=(3, 2))
    points = jax.tree.map(lambda leaf: np.repeat(leaf[None], 3, axis=0), base)
    found = flatten(add_low_rank(jax.tree.map(jax.numpy.asarray, points), iter(changes), coefficients))
    for path, leaf in flatten(base).items():
        for row, own in zip(coefficients, found[path], strict=True):
            products = [
                c * (change[path].a @ change[path].b) for c, change in zip(row, changes, strict=True) if path in change
            ]
            expected = leaf + sum(product.reshape(leaf.shape) for product in products)
            np.testing.assert_allclose(own, expected, atol=1e-5, err_msg=path)


def test_a_member_stored_whole_has_no_factors(store, model):
    region = Region.from_store(store, model)
    assert [member.load_factors() is None for member in region.members] == [False] * ADAPTERS + [True]
    assert store.load_factors("a0").keys() == factors(store.base(), 0).keys()
