"""Units that may change places, in every architecture: the function stays, and matching finds the old order again."""

import itertools

import jax
import numpy as np
import pytest
from models_support import inputs_for, random_params
from shuffling import shuffled

from wsr.exchange.matching import aligned, assigned
from wsr.geometry.trees import flatten, nest
from wsr.models import architectures, build
from wsr.models.permutations import permutable

VARIANTS = {
    "deberta_v2 as in version 2": (
        "deberta_v2",
        {"share_att_key": False, "conv_kernel_size": 3, "type_vocab_size": 2, "position_biased_input": True},
    ),
    "deberta_v2 with one kind of score": ("deberta_v2", {"share_att_key": False, "pos_att_type": ["c2p"]}),
    "electra without a projection": ("electra", {"embedding_size": 16}),
    "albert with groups": ("albert", {"num_hidden_groups": 2, "inner_group_num": 2}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama with one key head": ("llama", {"num_key_value_heads": 1}),
    "modernbert with biases": ("modernbert", {"norm_bias": True, "attention_bias": True, "mlp_bias": True}),
    "gpt2 with a head of its own": ("gpt2", {"language_model_head": True}),
    "t5 with one layer per gate": ("t5", {"feed_forward_proj": "relu"}),
    "vit without biases": ("vit", {"qkv_bias": False}),
}
CASES = {
    **{name: (name, {}) for name, own in architectures().items() if own.counterpart and not name.startswith("tiny")},
    **VARIANTS,
}
MODELS = {}


def model_of(case):
    if case not in MODELS:
        name, changes = CASES[case]
        model = build(name, {**architectures()[name].example, **changes})
        outputs = jax.jit(model.token_losses or model.encode)
        MODELS[case] = model, {path: np.asarray(leaf) for path, leaf in flatten(random_params(model)).items()}, outputs
    return MODELS[case]


@pytest.mark.parametrize("case", CASES)
def test_units_that_change_places_leave_the_function_as_it_is(case):
    model, leaves, outputs = model_of(case)
    units = permutable(model)
    layers = {path.rpartition("/")[0] for path in leaves if path.endswith("kernel")}
    on_units = {axis.path for own in units.feed_forwards for axis in (*own.into, *own.out)}
    on_units |= {axis.path for own in units.attentions for axis in (*own.query, *own.key, *own.value, *own.output)}
    without = {"projection", "patches", "convolution/convolution", "head"}
    assert layers - {path.rpartition("/")[0] for path in on_units} <= without, "a layer without units"
    batch = inputs_for(model).together
    expected = np.asarray(outputs(nest(leaves), batch))
    other = shuffled(leaves, units, 1)
    changed = {path for path, leaf in leaves.items() if not np.array_equal(other[path], leaf)}
    single = [own for own in units.attentions if own.key_heads == 1 and not own.free]
    assert on_units - {axis.path for own in single for axis in own.key} <= changed
    np.testing.assert_allclose(np.asarray(outputs(nest(other), batch)), expected, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_the_residual_stream_changes_the_order_of_features_and_no_logit(case):
    model, leaves, outputs = model_of(case)
    units = permutable(model)
    assert units.stream
    only = type(units)((), (), (), units.stream, units.hidden)
    other = shuffled(leaves, only, 2, stream=True)
    order = np.random.default_rng(2).permutation(units.hidden)
    batch = inputs_for(model).together
    expected, found = (np.asarray(outputs(nest(own), batch)) for own in (leaves, other))
    if model.token_losses is None:
        expected = expected[:, order]
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_a_copy_in_another_order_is_put_back_exactly(case, stream):
    model, leaves, _ = model_of(case)
    units = permutable(model)
    other = shuffled(leaves, units, 3, stream=stream)
    found, steps = aligned(leaves, other, units, stream=stream)
    assert steps
    for path, leaf in leaves.items():
        np.testing.assert_array_equal(found[path], leaf, err_msg=path)
    again, none = aligned(leaves, found, units, stream=stream)
    assert none == []
    assert again is found


def test_a_noised_copy_is_put_back_and_an_independent_model_comes_closer():
    model, leaves, outputs = model_of("llama")
    units = permutable(model)
    random = np.random.default_rng(4)
    noised = {
        path: leaf + np.float32(0.02) * random.standard_normal(leaf.shape, np.float32) for path, leaf in leaves.items()
    }
    found, _ = aligned(leaves, shuffled(noised, units, 5, stream=True), units, stream=True)
    for path, leaf in noised.items():
        np.testing.assert_array_equal(found[path], leaf, err_msg=path)
    independent = {path: np.asarray(leaf) for path, leaf in flatten(random_params(model, 7)).items()}
    nearer, steps = aligned(leaves, independent, units, stream=True)

    def product(own):
        return sum(float((leaf * own[path]).sum()) for path, leaf in leaves.items())

    assert product(nearer) > product(independent)
    assert len(steps) > 1
    batch = inputs_for(model).together
    np.testing.assert_allclose(outputs(nest(nearer), batch), outputs(nest(independent), batch), atol=1e-5)


def test_the_assignment_is_the_best_of_all():
    similarity = np.random.default_rng(0).standard_normal((6, 6))
    best = max(itertools.permutations(range(6)), key=lambda order: similarity[np.arange(6), list(order)].sum())
    assert assigned(similarity).tolist() == list(best)


def test_a_model_of_unknown_layers_has_no_units():
    from flax import nnx

    import wsr

    class Bag(nnx.Module):
        def __init__(self, rngs):
            self.words = nnx.Embed(10, 4, rngs=rngs)

        def __call__(self, batch):
            return self.words(batch["token_ids"]).mean(axis=1)

    units = permutable(wsr.models.from_nnx(Bag, name="bag", config={}, hidden=4, max_length=8, packed=False))
    assert (units.feed_forwards, units.attentions, units.head_tables, units.stream) == ((), (), (), ())
