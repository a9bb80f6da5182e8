"""Attention of long rows: against NumPy text by text, against rows whose scores exist together, and its memory."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from models_support import in_rows, random_texts

from wsr import models
from wsr.data.dataset import Split
from wsr.geometry.trees import flatten
from wsr.models.layers import attention, blockwise_attention
from wsr.models.layers.attention import attend
from wsr.models.layers.mask import Mask, whole_rows, within_texts
from wsr.runtime.devices import member_mesh
from wsr.training import Job, Recipe, initial_head
from wsr.training.batches import group_batches
from wsr.training.memory import member_bytes
from wsr.training.program import hyperparameters, initial_state, training_program

ROWS = ((400, 170), (30, 1, 255, 256))  # lengths of the texts of each row
LENGTH = 592
HEADS, WIDTH = 4, 8
MASKS = {
    "texts": {},
    "causal": {"causal": True},
    "local": {"furthest": 5},
    "a block wide": {"furthest": 200},
    "causal and local": {"causal": True, "furthest": 64},
}


@pytest.fixture
def whole(monkeypatch):
    """Calls a function with the scores of every row held together, as those of short rows are."""

    def call(function, *arguments):
        with monkeypatch.context() as patch:
            patch.setattr(attention, "WHOLE_SCORES", 10**9)
            return function(*arguments)

    return call


@pytest.fixture(scope="module")
def rows():
    texts = [(list(range(length)), [0] * length) for own in ROWS for length in own]
    return in_rows(texts, [[0, 1], [2, 3, 4, 5]], LENGTH)


@pytest.fixture(scope="module")
def parts():
    draw = np.random.default_rng(0)
    shapes = [(len(ROWS) * LENGTH, heads * WIDTH) for heads in (HEADS, HEADS, HEADS)]
    return [jnp.asarray(draw.normal(size=shape).astype(np.float32)) for shape in shapes]


def mask_of(rows, options):
    return within_texts(rows["text_ids"], rows["positions"], **options)


def read_outputs(rows):
    """1 where a token belongs to a text, whose output something reads."""
    return np.asarray(rows["text_ids"]).reshape(-1, 1) >= 0


def text_by_text(query, key, value, rows, *, causal=False, furthest=None, cap=None, key_heads=HEADS):
    """The definition, in float64, with the tokens of one text and one head at a time."""
    found = np.zeros(query.shape)
    ids = np.asarray(rows["text_ids"]).ravel()
    for text in range(ids.max() + 1):
        (places,) = np.nonzero(ids == text)
        apart = np.arange(len(places))[:, None] - np.arange(len(places))
        hidden = (causal & (apart < 0)) | (False if furthest is None else np.abs(apart) > furthest)
        for head in range(HEADS):
            own = slice(head * WIDTH, (head + 1) * WIDTH)
            shared = head * key_heads // HEADS
            theirs = slice(shared * WIDTH, (shared + 1) * WIDTH)
            scores = np.float64(query[places, own]) @ np.float64(key[places, theirs]).T / WIDTH**0.5
            scores = scores if cap is None else cap * np.tanh(scores / cap)
            weights = np.exp(np.where(hidden, -np.inf, scores))
            found[places, own] = weights / weights.sum(axis=1, keepdims=True) @ np.float64(value[places, theirs])
    return found


@pytest.mark.parametrize("options", MASKS.values(), ids=MASKS)
def test_long_rows_attend_as_their_texts_do_alone(rows, parts, options):
    found = attend(*parts, mask_of(rows, options), heads=HEADS)
    expected = text_by_text(*map(np.asarray, parts), rows, **options)
    np.testing.assert_allclose(found * read_outputs(rows), expected, atol=1e-5)


def test_shared_key_heads_and_capped_scores(rows, parts):
    query, key, value = parts[0], *(part[:, : 2 * WIDTH] for part in parts[1:])
    found = attend(query, key, value, mask_of(rows, {"causal": True}), heads=HEADS, key_heads=2, cap=0.8)
    expected = text_by_text(*map(np.asarray, (query, key, value)), rows, causal=True, cap=0.8, key_heads=2)
    np.testing.assert_allclose(found * read_outputs(rows), expected, atol=1e-5)


@pytest.mark.parametrize("length", [513, 768, 1000])
def test_rows_of_any_length(length, whole):
    draw = np.random.default_rng(length)
    parts = [jnp.asarray(draw.normal(size=(length, HEADS * WIDTH)).astype(np.float32)) for _ in range(3)]
    run = partial(attend, *parts, whole_rows(1, length), heads=HEADS)
    np.testing.assert_allclose(run(), whole(run), atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("options", MASKS.values(), ids=MASKS)
def test_gradients_of_several_points_are_those_of_whole_scores(rows, parts, options, whole):
    """Under vmap over points, with two query heads to a key head and a cap."""
    weights = jnp.asarray(np.random.default_rng(1).normal(size=parts[0].shape) * read_outputs(rows), jnp.float32)

    def loss(query, key, value):
        own = mask_of(rows, options)
        return (attend(query, key, value, own, heads=HEADS, key_heads=2, cap=2.0) * weights).sum()

    def run():
        points = [jnp.stack([part, 0.5 * part]) for part in (parts[0], *(part[:, : 2 * WIDTH] for part in parts[1:]))]
        return jax.vmap(jax.value_and_grad(loss, (0, 1, 2)))(*points)

    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), run(), whole(run))


def test_a_mask_hides_no_pair_of_blocks_that_it_needs():
    """Against every pair of tokens."""
    size, count = 16, 5
    place = np.arange(size * count)
    for causal in (False, True):
        for furthest in (None, 0, 1, 15, 16, 17, 33):
            apart = place[:, None] - place
            seen = np.full(apart.shape, True) if furthest is None else np.abs(apart) <= furthest
            seen &= (apart >= 0) | (not causal)
            expected = np.argwhere(seen.reshape(count, size, count, size).any(axis=(1, 3)))
            found = blockwise_attention._Rule(causal, furthest, None).pairs(count, size)
            np.testing.assert_array_equal(found, expected)


def test_dropout_removes_a_share_of_the_weights_and_of_their_gradients():
    """With equal scores the output of a token lists its weights, if the value of token k is the k-th unit vector."""
    length, rate = 528, 0.3
    nothing, units = jnp.zeros((length, length)), jnp.eye(length)
    mask = Mask(*[jnp.zeros((1, length), jnp.int32)] * 3)
    dropout = nnx.Dropout(rate)

    def dropped(query, key, value):
        return attend(query, key, value, mask, heads=1, dropout=dropout, rngs=nnx.Rngs(dropout=jax.random.key(3)))

    weights = dropped(nothing, nothing, units) * length
    assert np.mean(weights == 0) == pytest.approx(rate, abs=0.01)
    np.testing.assert_allclose(weights[weights > 0], 1 / (1 - rate), rtol=1e-5)

    draw = np.random.default_rng(0)
    query, key, value, slope = (jnp.asarray(draw.normal(size=(length, 8)).astype(np.float32)) for _ in range(4))

    def written_out(query, key, value):
        return (weights * jax.nn.softmax(query @ key.T / 8**0.5, axis=-1)) @ value

    found, back = jax.vjp(dropped, query, key, value)
    expected, their_back = jax.vjp(written_out, query, key, value)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), back(slope), their_back(slope))


def test_in_evaluation_and_without_keys_nothing_is_dropped(rows, parts):
    plain = attend(*parts, mask_of(rows, {}), heads=HEADS)
    idle = nnx.Dropout(0.5, deterministic=True)
    run = partial(attend, *parts, mask_of(rows, {}), heads=HEADS)
    np.testing.assert_array_equal(run(dropout=nnx.Dropout(0.5)), plain)
    np.testing.assert_array_equal(run(dropout=idle, rngs=nnx.Rngs(dropout=0)), plain)


@pytest.fixture(scope="module")
def reader():
    """A small BERT that reads long texts."""
    return models.build("bert", {**models.architectures()["bert"].example, "max_position_embeddings": 4096})


def one_long_row(length):
    return in_rows(random_texts(0, [length], 40), [[0]], length)


@pytest.mark.parametrize(
    "differentiated", [False, pytest.param(True, marks=pytest.mark.long)], ids=["encoding", "gradient"]
)
def test_memory_grows_with_the_length_of_a_row_and_not_with_its_square(reader, differentiated):
    params = jax.eval_shape(reader.init, jax.random.key(0))

    def temporary(length):
        run = partial(reader.encode, batch=one_long_row(length))
        run = jax.grad(lambda params: reader.encode(params, one_long_row(length)).sum()) if differentiated else run
        return jax.jit(run).lower(params).compile().memory_analysis().temp_size_in_bytes

    short, long = temporary(1024), temporary(4096)
    assert long < 5 * short
    assert long < 2 * 4096**2 * 4 / 4, "a quarter of the scores of one layer"


@pytest.mark.long
def test_training_on_long_rows_takes_what_its_compiled_program_says(dataset):
    """What the backward pass keeps, and the block at which it is."""
    tokens = np.zeros(4 * 1024, np.int32)
    texts = Split(tokens, tokens, np.arange(5) * 1024, np.zeros(4, np.int32))
    job = Job(dataset.with_split("finetune", texts), 0, Recipe(batch_size=4, epochs=1.0))
    sizes = {"max_position_embeddings": 1024, "hidden_size": 64, "intermediate_size": 128}
    reader = models.build("bert", {**models.architectures()["bert"].example, **sizes})
    params = reader.init(jax.random.key(0))
    encoder, plan = group_batches(reader, params, [job])
    state = initial_state([flatten(params)], [initial_head(job, reader.hidden)], member_mesh(1))
    program = training_program(encoder, False, True)
    found = program.lower(state, {}, plan, hyperparameters([job], job.steps), 0, 1).compile().memory_analysis()
    compiled = found.temp_size_in_bytes + sum(leaf.nbytes for leaf in jax.tree.leaves((state, plan)))
    assert 0.9 * compiled < member_bytes(reader, params, job) < 2 * compiled


@pytest.mark.long
def test_a_rematerialised_backward_pass_gives_the_same_gradients(reader):
    params, batch = reader.init(jax.random.key(0)), one_long_row(528)
    key = jax.random.key(1)

    def gradient(encode):
        return jax.jit(jax.grad(lambda params: jnp.square(encode(params, batch, dropout_key=key)).sum()))(params)

    found, expected = gradient(reader.rematerialised.encode), gradient(reader.encode)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), found, expected)
