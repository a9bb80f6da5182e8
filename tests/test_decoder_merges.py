"""Learned merges of decoders: against losses of transformers on a grid of the hull, and from the command line."""

import itertools

import numpy as np
import pytest
from models_support import random_params
from test_choices import _their_log_likelihood, _tokenizer, _written
from test_decoder_hulls import MEMBERS, World, plain
from test_store import record_of

import wsr
from wsr import models
from wsr.cli import main
from wsr.data.choices import load_choices
from wsr.data.halves import halves
from wsr.data.texts import load_texts
from wsr.engine.evaluate import Protocol
from wsr.engine.hull_search import search_hull
from wsr.engine.settings import Settings
from wsr.errors import WsrError
from wsr.geometry.sampling import centroid
from wsr.merging.soups import greedy_soup

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch, the oracle of the parity tests, is not installed")


@pytest.fixture(scope="module")
def world(torch):
    """Members so far apart that the best point lies between them."""
    return World(torch, "gpt2", spread=0.1)


@pytest.fixture(scope="module")
def texts():
    return plain(0, 24)[1]


@pytest.fixture(scope="module")
def preferences(tmp_path_factory):
    """A file of preferences between random words, and its rows."""
    draw = np.random.default_rng(1)

    def word():
        return "".join(draw.choice(list("ab "), 6)).strip() or "a"

    rows = [{"prompt": word(), "chosen": word() + "a", "rejected": word() + "b"} for _ in range(14)]
    path = _written(tmp_path_factory.mktemp("preferences") / "preferences.jsonl", rows)
    return rows, load_choices(path, _tokenizer(False), max_length=24)


def tokens(texts):
    """The tokens of each window from which a token is predicted."""
    found = np.split(texts.windows.token_ids, texts.windows.offsets[1:-1])
    return [own.tolist() for own in found if len(own) > 1]  # one token alone predicts nothing


def grid(step):
    """All points of the hull with coefficients that are multiples of 1 / step."""
    rows = itertools.product(range(step + 1), repeat=MEMBERS - 1)
    return np.array([(*row, step - sum(row)) for row in rows if sum(row) <= step]) / step


@pytest.mark.long
def test_the_lowest_perplexity_is_that_of_a_grid_by_transformers(world, texts):
    chosen_on = tokens(halves(texts)[0])
    found = search_hull(world.region, [texts], points=20)
    points = grid(8)
    theirs = np.array([world.loss_of_texts(point, chosen_on) for point in points])
    assert points[theirs.argmin()].max() < 1  # no member is the best point
    assert found.losses.min() <= theirs.min() + 0.01 * np.ptp(theirs)
    for number in (found.answer, found.order[0]):
        assert found.losses[number, 0] == pytest.approx(world.loss_of_texts(found.points[number], chosen_on), abs=1e-5)
    expected = (1 - found.share) * world.region.centroid() + found.share * found.points[found.order[0]]
    np.testing.assert_allclose(found.coefficients, expected)
    assert found.protocols == (None,)


def test_the_lowest_loss_of_preferences_is_that_of_a_grid_by_transformers(torch, world, preferences):
    rows, questions = preferences
    half = halves(questions)[0]
    each = [questions.take(np.array([own])).content_hash for own in range(len(rows))]
    kept = [each.index(half.take(np.array([own])).content_hash) for own in range(len(half))]
    assert len(set(kept)) == 7

    def loss(point):
        model = world.at(point)
        gaps = [
            _their_log_likelihood(torch, model, _tokenizer(False), rows[own]["prompt"], rows[own]["chosen"])
            - _their_log_likelihood(torch, model, _tokenizer(False), rows[own]["prompt"], rows[own]["rejected"])
            for own in kept
        ]
        return float(np.log1p(np.exp(-np.array(gaps))).mean())

    found = search_hull(world.region, [questions], points=20)
    theirs = np.array([loss(point) for point in grid(4)])
    assert found.losses.min() <= theirs.min() + 0.01 * np.ptp(theirs)
    lowest = found.order[0]
    assert found.losses[lowest, 0] == pytest.approx(loss(found.points[lowest]), abs=1e-4)


@pytest.mark.long
def test_a_compromise_between_texts_and_preferences_is_better_than_the_centroid(world, texts, preferences):
    found = search_hull(world.region, [texts, preferences[1]], points=12)
    assert found.losses.shape == (len(found.points), 2)
    assert found.relative[found.order[0]] < 1


def test_the_greedy_soup_is_that_of_the_recipe_by_transformers(world, texts):
    chosen_on = tokens(halves(texts)[0])

    def loss(members):
        return world.loss_of_texts(centroid(MEMBERS, members)[0], chosen_on)

    first, *others = sorted(range(MEMBERS), key=lambda member: loss([member]))
    soup = [first]
    for member in others:
        if loss([*soup, member]) <= loss(soup):
            soup.append(member)
    found = greedy_soup(world.region, texts, Protocol(), Settings())
    np.testing.assert_array_equal(found, centroid(MEMBERS, soup)[0])


def test_gradients_need_a_labelled_dataset(world, texts):
    with pytest.raises(
        WsrError, match="learned_free chooses by a probe on a labelled dataset, found plain, plain texts"
    ):
        wsr.merge(world.region, wsr.merging.LearnedFree(steps=1), wsr.merging.Given(dataset=texts))


@pytest.fixture(scope="module")
def store(tiny, tmp_path_factory):
    """Three GPT-2s, which know the tiny checkpoint's vocabulary."""
    folder = tmp_path_factory.mktemp("decoders")
    model = models.build("gpt2", {**models.architectures()["gpt2"].example, "vocab_size": 108})
    models.export(models.Checkpoint(model, random_params(model), tiny.processor), folder / "base")
    made = wsr.Store.create_for(folder / "store", models.load(str(folder / "base")))
    metrics = {"test_score": 0.9, "chance": 0.5, "test_texts": 100}
    for seed in (1, 2):
        made.save(record_of(f"m{seed}", metrics=metrics), random_params(model, seed), {"bias": np.zeros(2, np.float32)})
    return made


def test_from_the_shell_the_merge_has_the_perplexity_that_transformers_finds(torch, store, tiny, tmp_path, capsys):
    from transformers import GPT2LMHeadModel

    lines = [f"{first} {second} of the text" for first in ("some", "a b c", "two") for second in ("line", "end", "x y")]
    (tmp_path / "notes.txt").write_text("\n".join(lines))
    call = ["merge", f"--store={store.path}", "--max_length=16", f"--on={tmp_path / 'notes.txt'}"]
    call += ["--loss=language_model"]
    assert main([*call, "--method=learned", "--points=6", f"--to={tmp_path / 'merged'}"]) == 0
    told = capsys.readouterr().out
    assert "notes: validation on 4 of 9, test on the others" in told
    printed = [line.split() for line in told.splitlines()]
    (shown,) = [words for words in printed if words[:1] == ["learned"] and len(words) == 4]
    test = halves(load_texts(tmp_path / "notes.txt", tiny.processor, max_length=16))[1]
    theirs, total = GPT2LMHeadModel.from_pretrained(tmp_path / "merged").eval(), 0.0
    with torch.no_grad():
        for own in tokens(test):
            total += float(theirs(torch.tensor([own]), labels=torch.tensor([own])).loss) * (len(own) - 1)
    loss = total / test.predicted.sum()
    assert [float(words) for words in shown[2:]] == pytest.approx([loss, np.exp(loss)], rel=1e-3)
    assert not any("probes" in words for words in printed)
    assert main([*call, "--method=learned_free", f"--to={tmp_path / 'free'}"]) == 1
    assert "learned_free chooses by a probe" in capsys.readouterr().err
