"""Rematerialisation: each architecture's blocks, the same gradients, the same members."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from models_support import inputs_for

from wsr import models
from wsr.errors import WsrError
from wsr.geometry.trees import flatten
from wsr.models.model import Model
from wsr.training import Division, Job, Recipe, finetune

LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")
QUICK = ("bert",)


@pytest.mark.parametrize("name", models.architectures())
def test_each_block_of_each_architecture_is_rematerialised(name):
    model = models.build(name, models.architectures()[name].example)
    encode = partial(model.rematerialised.encode, batch=inputs_for(model).together)
    program = jax.make_jaxpr(lambda params: encode(params))(jax.eval_shape(model.init, jax.random.key(0)))
    blocks = [equation for equation in program.eqns if "prevent_cse" in equation.params]
    repeats = model.config.get("inner_group_num", 1)  # of ALBERT
    assert len(blocks) == repeats * next(model.config[own] for own in LAYERS if own in model.config)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in models.architectures()]
)
def test_gradients_with_dropout_are_those_without_rematerialisation(name):
    model = models.build(name, models.architectures()[name].example)
    params, batch = model.init(jax.random.key(0)), inputs_for(model).together
    key, weights = jax.random.key(1), jnp.linspace(-1, 1, model.hidden)

    def gradient(encode):
        def loss(params):
            return jnp.square(encode(params, batch, dropout_key=key) @ weights).mean()

        return flatten(jax.jit(jax.grad(loss))(params))

    def kept(encode):
        backwards = jax.eval_shape(lambda params: jax.vjp(partial(encode, batch=batch), params)[1], params)
        return sum(leaf.size for leaf in jax.tree.leaves(backwards))

    found, expected = gradient(model.rematerialised.encode), gradient(model.encode)
    for path, leaf in expected.items():
        np.testing.assert_allclose(found[path], leaf, atol=1e-5 * max(1.0, float(jnp.abs(leaf).max())), err_msg=path)
    assert kept(model.rematerialised.encode) < kept(model.encode)


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_members_come_out_as_without_rematerialisation(tiny, dataset, mode):
    job = Job(dataset, 0, Recipe(mode=mode, learning_rate=5e-3, batch_size=16, epochs=1, lora_rank=2))
    plain, again = (
        next(finetune(tiny.model, tiny.params, [job], chunk=1, division=Division(rematerialised=rematerialised)))
        for rematerialised in (False, True)
    )
    assert (plain.division.rematerialised, again.division.rematerialised) == (False, True)
    np.testing.assert_allclose(again.losses, plain.losses, atol=1e-5)
    np.testing.assert_allclose(again.head["kernel"], plain.head["kernel"], atol=1e-5)


def test_a_block_may_take_inputs_by_name_and_of_any_kind():
    class Scaled(nnx.Module):
        def __init__(self, rngs):
            self.dense = nnx.Linear(3, 3, rngs=rngs)

        def __call__(self, hidden, how, *, times=None):
            return (self.dense(hidden) if how == "dense" else hidden) * times

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.blocks = nnx.List([Scaled(rngs), Scaled(rngs)])

        def __call__(self, batch):
            hidden = batch["x"]
            for block, how in zip(self.blocks, ("dense", "none"), strict=True):
                hidden = block(hidden, how, times=batch["times"])
            return hidden

    model = models.from_nnx(Net, name="net", config={}, hidden=3, max_length=4)
    params, batch = model.init(jax.random.key(0)), {"x": np.ones((2, 3), np.float32), "times": np.float32(2.0)}
    np.testing.assert_allclose(model.rematerialised.encode(params, batch), model.encode(params, batch), rtol=1e-6)


def test_a_model_without_known_blocks_is_refused(tiny, dataset):
    unknown = Model("mine", {}, 2, 64, lambda key: {}, lambda params, batch, dropout_key=None: batch["starts"])
    with pytest.raises(WsrError, match="mine cannot be rematerialised, because its blocks are not known"):
        next(finetune(unknown, {}, [Job(dataset, 0, Recipe())], chunk=1, division=Division(rematerialised=True)))
