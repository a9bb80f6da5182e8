"""A newcomer's Linen and NNX modules, and the state that is refused."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from models_support import in_rows, random_texts

from wsr.errors import WsrError
from wsr.models import from_linen, from_nnx, registry

BATCH = {"image": jnp.arange(12.0).reshape(4, 3)}
SIZES = {"name": "small", "config": {}, "hidden": 5, "max_length": 1}


class NnxNetwork(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(3, 5, rngs=rngs), nnx.Linear(5, 5, rngs=rngs)])
        self.dropout = nnx.Dropout(0.5)

    def __call__(self, batch, rngs=None):
        hidden = self.dropout(self.layers[0](batch["image"]), rngs=rngs)
        return self.layers[1](jnp.tanh(hidden))


class LinenNetwork(linen.Module):
    @linen.compact
    def __call__(self, batch, deterministic=True):
        hidden = linen.Dropout(0.5)(linen.Dense(5)(batch["image"]), deterministic=deterministic)
        return linen.Dense(5)(jnp.tanh(hidden))


def _nnx_model():
    model = from_nnx(NnxNetwork, **SIZES)
    params = model.init(jax.random.key(0))
    return model, params, [params["layers"][layer] for layer in ("0", "1")]


def _linen_model():
    model = from_linen(LinenNetwork(), example=BATCH, **SIZES)
    params = model.init(jax.random.key(0))
    return model, params, [params[layer] for layer in ("Dense_0", "Dense_1")]


@pytest.mark.parametrize("make", [_nnx_model, _linen_model])
def test_a_module_becomes_two_pure_functions(make):
    model, params, (first, second) = make()
    hidden = np.tanh(np.asarray(BATCH["image"]) @ first["kernel"] + first["bias"])
    expected = hidden @ second["kernel"] + second["bias"]
    np.testing.assert_allclose(model.encode(params, BATCH), expected, atol=1e-5)
    np.testing.assert_allclose(jax.jit(model.encode)(params, BATCH), expected, atol=1e-5)
    dropped = model.encode(params, BATCH, jax.random.key(1))
    np.testing.assert_array_equal(dropped, model.encode(params, BATCH, jax.random.key(1)))
    assert np.abs(dropped - expected).max() > 1e-3


def test_initial_parameters_are_those_of_the_nnx_module():
    params = from_nnx(NnxNetwork, **SIZES).init(jax.random.key(3))
    module = NnxNetwork(nnx.Rngs(jax.random.key(3)))
    for layer in (0, 1):
        for name in ("kernel", "bias"):
            np.testing.assert_array_equal(params["layers"][str(layer)][name], getattr(module.layers[layer], name)[...])


@pytest.mark.parametrize("make", [_nnx_model, _linen_model])
def test_a_module_works_over_a_population(make):
    model, _, _ = make()
    population = jax.vmap(model.init)(jax.random.split(jax.random.key(0), 2))
    features = jax.vmap(model.encode, in_axes=(0, None))(population, BATCH)
    one = model.encode(jax.tree.map(lambda leaf: leaf[1], population), BATCH)
    np.testing.assert_allclose(features[1], one, atol=1e-5)


def test_modules_without_dropout_need_no_extra_argument():
    class Plain(nnx.Module):
        def __init__(self, rngs):
            self.dense = nnx.Linear(3, 5, rngs=rngs)

        def __call__(self, batch):
            return self.dense(batch["image"])

    class PlainLinen(linen.Module):
        @linen.compact
        def __call__(self, batch):
            return linen.Dense(5)(batch["image"])

    for model in (from_nnx(Plain, **SIZES), from_linen(PlainLinen(), example=BATCH, **SIZES)):
        params = model.init(jax.random.key(0))
        with_key = model.encode(params, BATCH, jax.random.key(0))
        np.testing.assert_array_equal(with_key, model.encode(params, BATCH))


def test_linen_partitioning_boxes_are_opened():
    class Boxed(linen.Module):
        @linen.compact
        def __call__(self, batch):
            kernel_init = linen.with_partitioning(linen.initializers.lecun_normal(), (None, "model"))
            return linen.Dense(5, kernel_init=kernel_init)(batch["image"])

    model = from_linen(Boxed(), example=BATCH, **SIZES)
    params = model.init(jax.random.key(0))
    assert isinstance(params["Dense_0"]["kernel"], jax.Array)
    assert model.encode(params, BATCH).shape == (4, 5)


def test_nnx_batch_statistics_are_refused_by_name():
    class Normalised(NnxNetwork):
        def __init__(self, rngs):
            super().__init__(rngs)
            self.norm = nnx.BatchNorm(5, rngs=rngs)

    with pytest.raises(WsrError, match=r"norm/mean \(BatchStat\), norm/var \(BatchStat\)"):
        from_nnx(Normalised, **SIZES)


def test_nnx_stored_random_keys_are_refused_by_name():
    class Keyed(NnxNetwork):
        def __init__(self, rngs):
            super().__init__(rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

    with pytest.raises(WsrError, match=r"dropout/rngs/count \(RngCount\), dropout/rngs/key \(RngKey\)"):
        from_nnx(Keyed, **SIZES)


def test_linen_batch_statistics_are_refused_by_name():
    class Normalised(linen.Module):
        @linen.compact
        def __call__(self, batch):
            return linen.BatchNorm(use_running_average=True)(linen.Dense(5)(batch["image"]))

    with pytest.raises(WsrError, match=r"batch_stats \(Linen collection\)"):
        from_linen(Normalised(), example=BATCH, **SIZES)


def test_building_an_adapter_makes_no_array():
    class Huge(nnx.Module):
        def __init__(self, rngs):
            self.dense = nnx.Linear(3, 10**12, rngs=rngs)

        def __call__(self, batch):
            return self.dense(batch["image"])

    model = from_nnx(Huge, **{**SIZES, "hidden": 10**12})
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    assert shapes["dense"]["kernel"].shape == (3, 10**12)


@pytest.mark.long
def test_the_page_on_adding_an_architecture_runs(monkeypatch):
    page = Path(__file__).parents[1] / "docs" / "add_an_architecture.md"
    snippets = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    monkeypatch.setattr(registry, "_architectures", dict(registry._architectures))
    names: dict = {}
    for number, snippet in enumerate(snippets):
        exec(compile(snippet, f"{page}, snippet {number}", "exec"), names)

    texts = random_texts(0, [3, 5], 108)
    batch = in_rows(texts, [[0, 1]], 10)
    params = names["params"]
    table, dense = np.asarray(params["token"]["embedding"]), params["dense"]
    expected = [np.tanh(table[ids].mean(0) @ dense["kernel"] + dense["bias"]) for ids, _ in texts]
    np.testing.assert_allclose(names["model"].encode(params, batch), expected, atol=1e-5)
    np.testing.assert_allclose(names["in_linen"].encode(params, batch), expected, atol=1e-5)

    # What the page shows is no accident: members are alike, and they and their average solve a dataset that none saw.
    cosines = names["region"].similarity()
    assert cosines.shape == (3, 3)
    assert (cosines > 0.2).all()
    scores = names["scores"]
    assert scores.losses.shape[0] == 5
    assert (scores.scores > 0.9).all()
    members = np.stack([member["dense"]["bias"] for member in names["members"].values()])
    np.testing.assert_allclose(names["merged"]["dense"]["bias"], members.mean(axis=0), atol=1e-6)
    assert names["again"].model.name == "camembert"
