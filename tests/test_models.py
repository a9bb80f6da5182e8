"""What every registered architecture keeps, and the sizes, poolings and configs of the built-in ones."""

import functools
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from models_support import LENGTH, LENGTHS, every_token, inputs_for, one_a_row, random_params, random_texts
from oracles import ORACLES, largest_config, our_config

from wsr import models
from wsr.data.image_processor import ImageProcessor
from wsr.errors import WsrError
from wsr.geometry.points import combine
from wsr.geometry.trees import flatten, stack
from wsr.models.bert import EXAMPLE
from wsr.models.distilbert import DistilBert, DistilBertConfig
from wsr.models.layers.pooling import POOLINGS
from wsr.store import MemberRecord, Store

NAMES = sorted(models.architectures())
DROPPING = [
    name
    for name in NAMES
    if any("drop" in key and value for key, value in models.architectures()[name].example.items())
]
GRADIENTS = ("bert", "tiny")
"""Architectures whose gradients every run tests; ``make test-long`` tests the others."""
WITH_COUNTERPART = [name for name in NAMES if models.architectures()[name].counterpart]
# The poolings are shared by all: each with one architecture, and each architecture with its own.
POOLED = [(name, None) for name in NAMES] + [("bert", pooling) for pooling in POOLINGS]


@functools.cache
def _setup(name, **changes):
    """A model, its ``encode``, parameters and inputs.

    Not compiled as a whole: the tests share shapes, so that each operation is compiled once for all of them.
    """
    model = models.build(name, {**models.architectures()[name].example, **changes})
    return model, model.encode, random_params(model), inputs_for(model)


# The common suite: what an architecture must keep, whoever wrote it. It joins by being registered.


@pytest.mark.parametrize("name", NAMES)
def test_init_gives_a_plain_float32_dict_with_string_keys(name):
    model, _, _, _ = _setup(name)
    params = model.init(jax.random.key(0))
    for path, leaf in jax.tree.leaves_with_path(params):
        assert all(isinstance(key, jax.tree_util.DictKey) and isinstance(key.key, str) for key in path)
        assert leaf.dtype == jnp.float32
        assert (path[-1].key == "bias") == ("bias" in jax.tree_util.keystr(path))
    other = model.init(jax.random.key(1))
    changed = jax.tree.map(lambda one, another: bool((one != another).any()), params, other)
    assert any(jax.tree.leaves(changed))


def test_initial_tables_have_the_spread_the_config_asks_for():
    model = models.build("tiny", {**models.architectures()["tiny"].example, "initializer_range": 0.3})
    table = model.init(jax.random.key(0))["embeddings"]["token"]["embedding"]
    np.testing.assert_allclose(np.std(table), 0.3, rtol=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_name_and_config_give_the_same_model_again(name):
    model, encode, params, inputs = _setup(name)
    assert json.loads(json.dumps(model.config)) == model.config
    again = models.build(model.name, model.config)
    assert (again.name, again.config, again.hidden) == (model.name, model.config, model.hidden)
    assert (again.reads, again.packed) == (model.reads, model.packed)
    np.testing.assert_array_equal(again.encode(params, inputs.alone), encode(params, inputs.alone))


@pytest.mark.parametrize(("name", "pooling"), POOLED)
def test_together_equals_alone(name, pooling):
    model, encode, params, inputs = _setup(name, **({"pooling": pooling} if pooling else {}))
    alone = encode(params, inputs.alone)
    assert alone.shape == (4, model.hidden)
    assert np.abs(alone[0] - alone[1]).max() > 1e-4
    np.testing.assert_allclose(encode(params, inputs.together), alone, atol=1e-5)


@pytest.mark.parametrize(("name", "pooling"), POOLED)
def test_changing_a_text_changes_its_own_features_only(name, pooling):
    _, encode, params, inputs = _setup(name, **({"pooling": pooling} if pooling else {}))
    before, after = encode(params, inputs.together), encode(params, inputs.first_changed)
    np.testing.assert_array_equal(after[1:], before[1:])
    assert np.abs(after[0] - before[0]).max() > 1e-4


@pytest.mark.parametrize(("name", "pooling"), POOLED)
def test_absent_texts_and_empty_rows_are_finite(name, pooling):
    _, encode, params, inputs = _setup(name, **({"pooling": pooling} if pooling else {}))
    features = encode(params, inputs.two_absent)
    assert features.shape[0] == 4
    assert np.isfinite(features).all()
    assert np.isfinite(encode(params, inputs.all_absent)).all()


@pytest.mark.parametrize("name", NAMES)
def test_vmap_and_map_over_params_equal_a_loop(name):
    model, encode, _, inputs = _setup(name)
    members = [random_params(model, seed) for seed in range(3)]
    population = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    loop = np.stack([encode(member, inputs.together) for member in members])
    assert np.abs(loop[0] - loop[1]).max() > 1e-3
    by_vmap = jax.jit(jax.vmap(model.encode, in_axes=(0, None)))(population, inputs.together)
    by_map = jax.lax.map(lambda member: encode(member, inputs.together), population)
    np.testing.assert_allclose(by_vmap, loop, atol=1e-5)
    np.testing.assert_allclose(by_map, loop, atol=1e-5)


@pytest.mark.parametrize(
    "name", [name if name in GRADIENTS else pytest.param(name, marks=pytest.mark.long) for name in NAMES]
)
def test_gradient_is_finite_and_agrees_with_a_difference(name):
    model, encode, params, inputs = _setup(name)
    # Two texts of four are absent: their features must not poison the gradient.
    batch = inputs.two_absent
    random = np.random.default_rng(0)
    target = random.standard_normal((4, model.hidden)).astype(np.float32)

    def loss(params):
        return jnp.sum(model.encode(params, batch) * target)

    gradient = jax.grad(loss)(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    # Along the gradient itself the loss rises by its norm.
    norm = float(np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradient))))
    ends = []
    for step in (2e-3, -2e-3):
        moved = jax.tree.map(lambda leaf, slope, step=step: leaf + step * slope / norm, params, gradient)
        ends.append(float(np.sum(np.asarray(encode(moved, batch), np.float64) * target)))
    np.testing.assert_allclose((ends[0] - ends[1]) / 4e-3, norm, rtol=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_combine_gives_base_and_members_back_bit_for_bit(name):
    model, _, base, _ = _setup(name)
    members = [random_params(model, seed) for seed in (1, 2)]
    points = jax.jit(combine)(base, stack(members), jnp.asarray([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.5, 0.25]]))
    for point, expected in enumerate((base, *members)):
        _assert_same(jax.tree.map(lambda leaf, point=point: leaf[point], points), expected)
    for path, leaf in flatten(points).items():
        own, one, other = (np.asarray(flatten(params)[path]) for params in (base, *members))
        np.testing.assert_allclose(leaf[3], own + 0.5 * (one - own) + 0.25 * (other - own), atol=1e-5, err_msg=path)


@pytest.mark.parametrize("name", NAMES)
def test_a_store_gives_base_and_members_back_bit_for_bit(name, tmp_path):
    model, _, base, _ = _setup(name)
    store = Store.create(tmp_path, model_name=name, model_config=model.config, base_name="a base", base_params=base)
    member = random_params(model, 1)
    head = {"kernel": np.ones((model.hidden, 2), np.float32), "bias": np.zeros(2, np.float32)}
    origin = {"dataset": "data", "family": "family", "seed": 0, "mode": "full", "size": 1, "hyperparameters": {}}
    where = {"jaxlib": "", "device_kind": "", "threads": 1, "group_size": 1}
    store.save(MemberRecord(name="one", metrics={}, **origin, **where), member, head)
    again = Store.open(tmp_path)
    assert models.build(again.model_name, again.model_config).config == model.config
    _assert_same(again.base(), base)
    _assert_same(again.load("one")[0], member)


@pytest.mark.parametrize("name", WITH_COUNTERPART)
def test_a_hugging_face_folder_gives_the_same_bits_back(name, tmp_path):
    model, _, _, _ = _setup(name)
    if model.reads == "images":
        of_channels = (0.5,) * model.config["num_channels"]
        processor = ImageProcessor(model.config["image_size"], of_channels, of_channels)
    else:
        processor = models.load("tiny").processor
        # More rows than tokens, as most have: some classes of tokenizers add tokens of their own when they are read.
        model = models.build(name, {**model.config, "vocab_size": 128})
    models.export(models.Checkpoint(model, random_params(model), processor), tmp_path / "folder")
    again = models.load(str(tmp_path / "folder"))
    assert (again.model.config, again.model.reads) == (model.config, model.reads)
    _assert_same(again.params, random_params(model))


def _assert_same(found, expected):
    assert flatten(found).keys() == flatten(expected).keys()
    for path, leaf in flatten(found).items():
        np.testing.assert_array_equal(leaf, flatten(expected)[path], err_msg=path)


# What is of one architecture or of all together.


@pytest.mark.parametrize("name", DROPPING)
def test_dropout_happens_only_with_a_key_and_follows_it(name):
    _, encode, params, inputs = _setup(name)
    batch = inputs.alone
    plain = encode(params, batch)
    first, same, other = (encode(params, batch, jax.random.key(k)) for k in (1, 1, 2))
    np.testing.assert_array_equal(plain, encode(params, batch))
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 1e-3
    assert np.abs(first - plain).max() > 1e-3


@pytest.mark.parametrize("rate", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_both_dropout_rates_are_followed(rate):
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    _, encode, params, inputs = _setup("bert", **off)
    batch = inputs.alone
    plain = encode(params, batch)
    np.testing.assert_array_equal(encode(params, batch, jax.random.key(1)), plain)
    _, dropping, _, _ = _setup("bert", **{**off, rate: 0.5})
    assert np.abs(dropping(params, batch, jax.random.key(1)) - plain).max() > 1e-3


def test_distilbert_drops_nothing_of_what_attention_gives():
    config = {**models.architectures()["distilbert"].example, "dropout": 0.5, "attention_dropout": 0.0}
    module = DistilBert(DistilBertConfig(**config).encoder(), nnx.Rngs(0))
    batch = one_a_row(random_texts(0, LENGTHS, 40), LENGTH)
    hidden = jnp.asarray(np.random.default_rng(0).normal(size=(batch["token_ids"].size, 16)), jnp.float32)

    def difference():
        module.eval()
        plain = module.transform(hidden, batch, None)
        module.train()
        return np.abs(module.transform(hidden, batch, nnx.Rngs(dropout=0)) - plain).max()

    assert difference() > 1e-3
    for layer in module.layers:  # the only other place where something could be dropped
        layer.feed_forward.output.kernel[...] = jnp.zeros((32, 16))
    assert difference() == 0.0


def test_attention_with_dropout_at_a_vanishing_rate_equals_attention_without():
    # The path with dropout of the attention weights is written out by hand; it must be the same function.
    _, encode, params, inputs = _setup("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=1e-9)
    batch = inputs.together
    np.testing.assert_allclose(encode(params, batch, jax.random.key(0)), encode(params, batch), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_no_silent_broadcasting_between_ranks(name):
    model, _, params, inputs = _setup(name)
    with jax.numpy_rank_promotion("raise"):
        features = jax.eval_shape(model.encode, params, inputs.together, jax.random.key(0))
    assert features.shape == (4, model.hidden)


@pytest.mark.parametrize("name", sorted(ORACLES))
@pytest.mark.long
def test_the_largest_public_size_has_its_number_of_parameters_and_runs(name):
    read_as, config = our_config(largest_config(name))
    model = models.build(read_as, {**config, "pooling": "mean"})
    params = jax.eval_shape(model.init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == ORACLES[name].parameters
    assert model.max_length == ORACLES[name].max_length
    texts = random_texts(0, [512], 1000)
    features = jax.eval_shape(model.encode, params, one_a_row(texts, 512))
    assert features.shape == (1, model.hidden)
    assert features.dtype == jnp.float32


def test_roberta_ignores_token_types_and_bert_does_not():
    for name, differs in (("bert", True), ("roberta", False)):
        _, encode, params, _ = _setup(name)
        plain = encode(params, one_a_row(random_texts(0, LENGTHS, 40), LENGTH))
        pair = encode(params, one_a_row(random_texts(0, LENGTHS, 40, pairs=True), LENGTH))
        assert bool(np.abs(plain - pair).max() > 1e-4) == differs


def test_params_of_another_size_are_refused():
    model, _, _, inputs = _setup("bert")
    _, _, shallow, _ = _setup("bert", num_hidden_layers=1)
    with pytest.raises(WsrError, match="parameters lack layers/1/attention/"):
        model.encode(shallow, inputs.alone)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "swish"}, "hidden_act = 'swish'"),
        ({"pooling": "median"}, "pooling = 'median'"),
        ({"num_attention_heads": 3}, "not a multiple"),
        ({"num_hidden_layers": 0}, "num_hidden_layers = 0"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob = 1.0"),
        ({"vocab_size": "40", "hidden_size": True}, "vocab_size = '40', hidden_size = True"),
        ({"colour": 1}, "unknown colour"),
    ],
)
def test_configs_that_make_no_encoder_are_refused(changes, message):
    with pytest.raises(WsrError, match=message):
        models.build("bert", {**EXAMPLE, **changes})


def test_missing_config_keys_are_named_together():
    config = {key: value for key, value in EXAMPLE.items() if key not in ("hidden_act", "pooling")}
    with pytest.raises(WsrError, match="missing hidden_act, missing pooling"):
        models.build("bert", config)


def test_names_are_registered_once_and_unknown_ones_refused():
    with pytest.raises(WsrError, match="registered already"):
        models.register("bert", models.architectures()["bert"].build, example=EXAMPLE)
    with pytest.raises(WsrError, match=f"unknown architecture 'gpt'; known: {', '.join(NAMES)}"):
        models.build("gpt", {})


def test_tiny_is_loaded_by_name_quickly_and_always_the_same():
    models.load("tiny")
    start = time.process_time()  # other processes do not count
    first = models.load("tiny")
    assert time.process_time() - start < 1.0
    again = models.load("tiny")
    assert first.model.name == "tiny"
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), first.params, again.params))


def test_tiny_tokenizer_reads_pairs_and_lower_cases():
    tokenizer = models.load("tiny").processor
    assert tokenizer.is_fast
    assert len(tokenizer) == models.load("tiny").model.config["vocab_size"]
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("Ab, 7")["input_ids"])
    assert tokens == ["[CLS]", "a", "##b", ",", "7", "[SEP]"]
    pair = tokenizer("a", "b\N{CJK UNIFIED IDEOGRAPH-65E5}")
    assert tokenizer.convert_ids_to_tokens(pair["input_ids"]) == ["[CLS]", "a", "[SEP]", "b", "[UNK]", "[SEP]"]
    assert pair["token_type_ids"] == [0, 0, 0, 1, 1, 1]


def test_pooling_can_be_chosen_when_loading():
    mean, first = models.load("tiny"), models.load("tiny", pooling="cls")
    assert (mean.model.config["pooling"], first.model.config["pooling"]) == ("mean", "cls")
    batch = every_token(one_a_row(random_texts(0, [4], 100), 4))
    assert jax.eval_shape(first.model.encode, first.params, batch).shape == (4, 16)


@pytest.mark.parametrize("name", ["no/such/folder", "/no/such", "no such name"])
def test_a_path_that_is_not_there_is_named(name):
    with pytest.raises(WsrError, match="no such folder"):
        models.load(name)


def test_an_unreachable_hub_names_the_offline_choices():
    # conftest sets HF_HUB_OFFLINE: the client refuses at once, as it does without a network.
    with pytest.raises(
        WsrError, match=r"'nobody/nothing' .* without a network, use a local folder .*'minilm' or 'tiny'"
    ):
        models.load("nobody/nothing")


def test_numpy_batches_are_read_too():
    _, encode, params, inputs = _setup("bert")
    as_numpy = {name: np.asarray(array) for name, array in inputs.together.items()}
    np.testing.assert_array_equal(encode(params, as_numpy), encode(params, inputs.together))
