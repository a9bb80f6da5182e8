"""The loss of a language model against PyTorch: token by token, between two models, and from the command line."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models_support import in_rows, one_a_row, random_params, random_texts
from oracles import ORACLES, our_config, their_config
from test_store import record_of

from wsr import models
from wsr.cli import main
from wsr.data.dataset import Split
from wsr.data.texts import Texts
from wsr.engine.language_model import evaluate_language_model
from wsr.engine.settings import Settings
from wsr.errors import WsrError
from wsr.geometry import sampling
from wsr.models.huggingface.weights import from_huggingface, to_huggingface
from wsr.models.layers import language_model as layers
from wsr.region.region import from_params
from wsr.store import Store
from wsr.store.results import Results

LENGTHS = [9, 4, 13, 2]
KINDS = [("gpt2", True), ("llama", False), ("qwen2", True)]


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch, the oracle of the parity tests, is not installed")


def _pair(torch, name, tied, seed=0):
    """A random language model of PyTorch, the same one here, and its parameters."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    theirs = AutoModelForCausalLM.from_config(their_config(name, tie_word_embeddings=tied)).eval()
    _, config = our_config(theirs.config)
    untied = {} if name == "gpt2" and tied else {"language_model_head": not tied}
    ours = models.build(name, {**config, **untied, "pooling": "last"})
    params, _ = from_huggingface(ours, {key: value.numpy() for key, value in theirs.state_dict().items()})
    return theirs, ours, params


def _their_losses(torch, theirs, ids):
    """The loss of each token but the first."""
    with torch.no_grad():
        logits = theirs(torch.tensor([ids])).logits[0]
    return torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="none").numpy()


def _texts(lengths=LENGTHS, windows=None):
    """Random texts, one a window, or several windows a text."""
    ids = [own for own, _ in random_texts(5, lengths, 40)]
    flat = np.concatenate(ids).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    split = Split(flat, np.zeros_like(flat), offsets, np.zeros(len(lengths), np.int32))
    first = np.arange(len(lengths)) if windows is None else np.asarray(windows)
    return ids, Texts("random", split, first, f"{lengths} {windows}")


@pytest.mark.torch
@pytest.mark.parametrize(("name", "tied"), [*KINDS[:2], ("gemma2", True), ("gemma3_text", False)])
def test_losses_of_tokens_however_texts_are_packed_and_in_whatever_pieces(torch, name, tied, monkeypatch):
    theirs, ours, params = _pair(torch, name, tied)
    texts = random_texts(1, LENGTHS, 40)
    for logits in (layers.LOGITS_TOGETHER, 40 * 5):  # all tokens at once, or five, which do not divide their number
        monkeypatch.setattr(layers, "LOGITS_TOGETHER", logits)
        for batch in (one_a_row(texts, 16), in_rows(texts, [[3, 2], [0, 1], []], 16)):
            found = np.asarray(ours.token_losses(params, batch))
            assert found.shape == batch["token_ids"].shape
            expected = np.zeros(found.size, np.float32)
            for (ids, _), start in zip(texts, np.asarray(batch["starts"]), strict=True):
                expected[start : start + len(ids) - 1] = _their_losses(torch, theirs, ids)
            np.testing.assert_allclose(found.ravel(), expected, atol=1e-5)


@pytest.mark.torch
def test_gradients_of_the_loss_agree_and_reach_a_head_of_its_own(torch):
    theirs, ours, params = _pair(torch, "llama", False)
    texts = random_texts(2, LENGTHS, 40)
    ids = torch.tensor([texts[0][0]])
    theirs(ids, labels=ids).loss.backward()
    gradients = {key: parameter.grad.numpy() for key, parameter in theirs.named_parameters()}
    expected, _ = from_huggingface(ours, gradients)
    batch = in_rows(texts, [[3, 2], [0, 1]], 16)
    own = jnp.asarray(batch["text_ids"] == 0)
    found = jax.grad(lambda params: jnp.where(own, ours.token_losses(params, batch), 0.0).sum() / (LENGTHS[0] - 1))(
        params
    )
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5), found, expected)
    assert np.abs(found["head"]["kernel"]).max() > 1e-3


@pytest.mark.torch
@pytest.mark.parametrize(("name", "tied"), KINDS[:2])
@pytest.mark.parametrize("packed", [True, False])
def test_every_point_of_a_line_between_two_models(torch, name, tied, packed):
    theirs, ours, base = _pair(torch, name, tied)
    other, _, member = _pair(torch, name, tied, seed=1)
    ends = [{key: value.clone() for key, value in model.state_dict().items()} for model in (theirs, other)]
    ids, texts = _texts()
    region = from_params(replace(ours, packed=packed), base, {"other": member})
    alphas = np.array([0.0, 0.3, 0.5, 1.0, 1.4])
    found = evaluate_language_model(region, alphas[:, None], texts, settings=Settings(chunk=2 if packed else 1))
    for alpha, losses, loss, perplexity in zip(
        alphas, found.losses, found.language_model_loss, found.perplexity, strict=True
    ):
        theirs.load_state_dict({key: (1 - alpha) * ends[0][key] + alpha * ends[1][key] for key in ends[0]})
        expected = [_their_losses(torch, theirs, own) for own in ids]
        np.testing.assert_allclose(losses, [own.mean() for own in expected], atol=1e-5)
        whole = np.concatenate(expected).mean()
        np.testing.assert_allclose(loss, whole, atol=1e-5)
        np.testing.assert_allclose(perplexity, np.exp(whole), rtol=1e-5)
    assert np.ptp(found.language_model_loss) > 0.1


@pytest.fixture(scope="module")
def region():
    """Two members around a random GPT-2."""
    model = models.build("gpt2", models.architectures()["gpt2"].example)
    return from_params(model, random_params(model), {f"m{seed}": random_params(model, seed) for seed in (1, 2)})


def test_a_text_of_several_windows_has_one_loss(region):
    rows = sampling.line([0.0, 0.5]) @ np.eye(2)
    # The window of one token has nothing to predict.
    _, texts = _texts([9, 5, 1, 4], windows=[0, 1])
    together = evaluate_language_model(region, rows, texts)
    assert together.texts.predicted.tolist() == [8, 7]
    alone = texts.windows.take(np.array([0, 1, 3]))
    apart = evaluate_language_model(region, rows, Texts("apart", alone, np.arange(3), "apart"))
    sums = apart.losses[:, 1:] @ np.array([4, 3])
    np.testing.assert_allclose(together.losses, np.stack([apart.losses[:, 0], sums / 7], axis=1), atol=1e-6)


def test_points_are_kept_under_a_key_of_their_own(region, monkeypatch):
    points = Results.in_memory()
    _, texts = _texts()
    first = evaluate_language_model(region, np.eye(2), texts, settings=Settings(results=points))
    assert len(points.keys()) == 2
    again = evaluate_language_model(region, np.eye(2), texts, settings=Settings(results=points))
    assert len(points.keys()) == 2
    np.testing.assert_array_equal(first.losses, again.losses)
    evaluate_language_model(region, np.eye(2), replace(texts, content_hash="others"), settings=Settings(results=points))
    assert len(points.keys()) == 4
    loss, perplexity = first.rows("member", level="dataset")[:2]
    assert (loss["metric"], perplexity["metric"]) == ("language_model_loss", "perplexity")
    assert (loss["members"], loss["n"], loss["level"]) == (["m1"], sum(LENGTHS) - 4, "dataset")
    assert perplexity["value"] == pytest.approx(np.exp(loss["value"]))


def test_no_language_model_and_too_long_windows_are_refused(region, tiny):
    _, texts = _texts()
    encoder = from_params(tiny.model, tiny.params, {"same": tiny.params})
    with pytest.raises(WsrError, match="tiny: not a language model with its head"):
        evaluate_language_model(encoder, np.eye(1), texts)
    example = models.architectures()["llama"].example
    headless = models.build("llama", {**example, "language_model_head": False})
    assert headless.token_losses is None
    assert "head" not in jax.eval_shape(headless.init, jax.random.key(0))
    with pytest.raises(WsrError, match="a window has 25 tokens, gpt2 reads at most 24"):
        evaluate_language_model(region, np.eye(2), _texts([25])[1])


@pytest.mark.torch
@pytest.mark.parametrize(("name", "tied"), KINDS)
def test_a_checkpoint_with_its_head_comes_in_and_goes_out(torch, tiny, tmp_path, name, tied):
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    theirs = AutoModelForCausalLM.from_config(their_config(name, vocab_size=112, tie_word_embeddings=tied)).eval()
    theirs.save_pretrained(tmp_path / "in")
    tiny.processor.save_pretrained(tmp_path / "in")
    checkpoint = models.load(str(tmp_path / "in"))
    assert ("head" in checkpoint.params) == (not tied)
    models.export(checkpoint, tmp_path / "out")
    again, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert type(again) is type(theirs)
    ((ids, types),) = random_texts(3, [9], 100)
    expected = _their_losses(torch, theirs, ids)
    np.testing.assert_allclose(_their_losses(torch, again.eval(), ids), expected, atol=1e-6)
    losses = checkpoint.model.token_losses(checkpoint.params, one_a_row([(ids, types)], 9))
    np.testing.assert_allclose(losses[0, :-1], expected, atol=1e-5)


def test_a_head_that_another_model_has_is_dropped():
    example = models.architectures()["llama"].example
    whole = models.build("llama", example)
    bare = models.build("llama", {**example, "language_model_head": False})
    params, dropped = from_huggingface(bare, to_huggingface(whole, random_params(whole)))
    assert dropped == ("lm_head.weight",)
    assert "head" not in params


@pytest.mark.torch
def test_from_a_text_file_to_a_table_of_points(torch, tiny, tmp_path, capsys):
    """A population of GPT-2s, evaluated at and between its members; one member is asked of PyTorch too."""
    from transformers import AutoModelForCausalLM

    model = models.build("gpt2", {**models.architectures()["gpt2"].example, "vocab_size": 108})
    base = random_params(model)
    models.export(models.Checkpoint(model, base, tiny.processor), tmp_path / "base")
    store = Store.create(
        tmp_path / "store",
        model_name="gpt2",
        model_config=dict(model.config),
        base_name=str(tmp_path / "base"),
        base_params=base,
    )
    metrics = {"test_score": 0.9, "chance": 0.5, "test_texts": 100}
    members = {f"m{seed}": random_params(model, seed) for seed in (1, 2)}
    for name, params in members.items():
        store.save(record_of(name, metrics=metrics), params, {"bias": np.zeros(2, np.float32)})
    models.export(models.Checkpoint(model, members["m1"], tiny.processor), tmp_path / "m1")
    lines = ["some text to read", "and more", "", "a line that is longer than one window of sixteen tokens", "end"]
    (tmp_path / "notes.txt").write_text("\n".join(lines))
    call = [f"--store={tmp_path / 'store'}", f"--on={tmp_path / 'notes.txt'}", "--loss=language_model"]
    call += ["--max_length=16", "--interior=2", f"--out={tmp_path / 'rows.jsonl'}"]
    assert main(["evaluate", *call]) == 0
    assert "perplexity" in capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["group"] for row in rows[::2]] == ["pretrained", "member", "member", "centroid", "interior", "interior"]

    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "m1").eval()
    losses = []
    for line in filter(None, lines):
        ids = tiny.processor(line)["input_ids"]
        losses += [_their_losses(torch, theirs, ids[at : at + 16]) for at in range(0, len(ids), 16)]
    expected = np.concatenate(losses).mean()
    assert rows[2]["members"] == ["m1"]
    np.testing.assert_allclose(rows[2]["value"], expected, atol=1e-5)
    np.testing.assert_allclose(rows[3]["value"], np.exp(expected), rtol=1e-5)
    capsys.readouterr()
    assert main(["evaluate", *call, "--interior=40", "--surrogate_tolerance=0.5"]) == 0
    assert "surrogate(degree=" in capsys.readouterr().out


def test_every_decoder_is_a_language_model():
    decoders = {name for name, model in _examples() if model.token_losses is not None}
    assert decoders == {"gpt2", "llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"}


def _examples():
    for name in ORACLES:
        yield name, models.build(name, models.architectures()[name].example)
