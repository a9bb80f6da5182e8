"""T5 and Flan-T5 with their decoder against PyTorch: logits, folders both ways, questions with several answers."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models_support import in_rows
from safetensors.numpy import load_file

import wsr
from wsr import models
from wsr.cli import main
from wsr.errors import WsrError
from wsr.geometry.linear_head import matmul
from wsr.geometry.trees import flatten
from wsr.models.huggingface.config import read_config
from wsr.models.huggingface.weights import from_huggingface, head_settings
from wsr.models.t5_seq2seq import COUNTERPART, EXAMPLE, T5Seq2Seq, T5Seq2SeqConfig

pytestmark = pytest.mark.torch
SIZES = {
    "vocab_size": 128,
    "d_model": 24,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 1,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "decoder_start_token_id": 0,
}
VARIANTS = {
    "T5": {"feed_forward_proj": "relu"},
    "Flan-T5": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "a shallow decoder with another start": {
        "num_layers": 2,
        "num_decoder_layers": 1,
        "decoder_start_token_id": 7,
    },
}
PAIRS = [([5, 9, 30, 1], [17, 4]), ([8, 1], [21, 33, 6, 40, 2, 19, 11, 12, 50, 61]), ([31, 7, 7, 44, 60, 71, 1], [90])]
"""Questions and answers."""


@pytest.fixture(scope="module", autouse=True)
def torch():
    return pytest.importorskip("torch", reason="PyTorch, the oracle of the parity tests, is not installed")


@functools.cache
def _theirs(variant):
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(**{**SIZES, **VARIANTS[variant]})).eval()
    if VARIANTS[variant].get("tie_word_embeddings") is False:
        model.lm_head.weight = torch.nn.Parameter(0.3 * torch.randn(128, 24))
    with torch.no_grad():
        for parameter in model.parameters():  # Fresh models have unit scales: hide nothing.
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def _ours(theirs, folder, variant):
    theirs.config.save_pretrained(folder)
    config = {**json.loads((folder / "config.json").read_text()), **VARIANTS[variant]}
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["T5ForConditionalGeneration"]}))
    name, config = read_config(folder)
    assert name == "t5_seq2seq"
    tensors = {key: tensor.numpy() for key, tensor in theirs.state_dict().items()}
    present = head_settings(COUNTERPART, config, tensors)
    model = models.build(name, {**config, **present, "pooling": "mean"})
    return model, from_huggingface(model, tensors)[0]


def _batch(pairs, rows, length):
    """Questions and answers, packed: the type is 1 at each token that is followed by one of an answer."""
    texts = []
    for question, answer in pairs:
        types = np.arange(len(question) + len(answer)) >= len(question) - 1
        texts.append((question + answer, [*types[:-1].astype(int).tolist(), 0]))
    return {name: jnp.asarray(own) for name, own in in_rows(texts, rows, length).items()}


def _their_losses(torch, model, pairs):
    """The cross-entropy of each token of each answer, and the logits, of each pair alone."""
    losses, logits = [], []
    for question, answer in pairs:
        with torch.no_grad():
            found = model(input_ids=torch.tensor([question]), labels=torch.tensor([answer])).logits[0]
        logits.append(found.numpy())
        losses.append(torch.nn.functional.cross_entropy(found, torch.tensor(answer), reduction="none").numpy())
    return losses, logits


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_and_losses_of_packed_pairs_are_those_of_transformers(torch, tmp_path, variant):
    theirs = _theirs(variant)
    model, params = _ours(theirs, tmp_path, variant)
    assert model.config["language_model_head"] == (variant == "Flan-T5")
    losses, logits = _their_losses(torch, theirs, PAIRS)
    batch = _batch(PAIRS, [[1, 0], [2]], 20)
    found = np.asarray(jax.jit(model.token_losses)(params, batch)).reshape(-1)
    states = _decoded(model, params, batch)
    head = params["token"]["embedding"].T if "head" not in params else params["head"]["kernel"]
    for at, (question, _), own, expected in zip(batch["starts"], PAIRS, losses, logits, strict=True):
        first = int(at) + len(question) - 1
        np.testing.assert_allclose(found[first : first + len(own)], own, rtol=0, atol=1e-4)
        np.testing.assert_allclose(matmul(states[first : first + len(own)], head), expected, rtol=0, atol=1e-4)
    assert (found != 0).sum() == sum(map(len, losses))


def _decoded(model, params, batch):
    from flax import nnx

    config = T5Seq2SeqConfig.from_mapping(model.config)
    module = nnx.eval_shape(lambda: T5Seq2Seq(config, nnx.Rngs(0)))
    state = nnx.state(module, nnx.Param)
    flat = [(path, leaf.replace(_leaf(params, path))) for path, leaf in nnx.to_flat_state(state)]
    nnx.update(module, nnx.from_flat_state(flat))
    module.eval()
    return nnx.jit(lambda module, batch: module.decoded(batch))(module, batch).reshape(-1, config.d_model)


def _leaf(params, path):
    for part in path:
        params = params[str(part)]
    return params


def test_gradients_of_every_parameter_agree(torch, tmp_path):
    theirs = _theirs("Flan-T5")
    model, params = _ours(theirs, tmp_path, "Flan-T5")
    question, answer = PAIRS[1]
    theirs.zero_grad()
    theirs(input_ids=torch.tensor([question]), labels=torch.tensor([answer])).loss.backward()
    gradients = {
        key: np.zeros(parameter.shape, np.float32) if parameter.grad is None else parameter.grad.numpy()
        for key, parameter in theirs.named_parameters()
    }
    expected, _ = from_huggingface(model, {**gradients})
    batch = _batch(PAIRS, [[1, 0], [2]], 20)
    row = slice(0, len(question) + len(answer))

    def loss(params):
        return model.token_losses(params, batch)[0, row].sum() / len(answer)

    found = jax.jit(jax.grad(loss))(params)
    for path, leaf in flatten(expected).items():
        np.testing.assert_allclose(flatten(found)[path], leaf, rtol=0, atol=1e-4, err_msg=path)
    assert np.abs(flatten(expected)["decoder/layers/0/cross/query/kernel"]).max() > 1e-4


def _write(tiny, theirs, folder, variant):
    theirs.save_pretrained(folder)
    tiny.processor.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **VARIANTS[variant]}))
    return folder


def _near(theirs, seed):
    import copy

    import torch

    torch.manual_seed(seed)
    other = copy.deepcopy(theirs)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    return other


QUESTIONS = [
    {"question": "the film was", "choices": ["good", "bad"], "label": 0},
    {"question": "1 + 1 is", "choices": ["three", "2", "one hundred"], "label": 1},
]


def test_a_tied_t5_comes_in_and_goes_out(torch, tiny, tmp_path):
    from transformers import AutoModelForSeq2SeqLM

    theirs = _theirs("T5")
    read = models.load(str(_write(tiny, theirs, tmp_path / "in", "T5")))
    assert not read.model.config["language_model_head"]
    models.export(read, tmp_path / "out")
    again, info = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    for one, other in zip(*(_their_losses(torch, model, PAIRS)[1] for model in (again.eval(), theirs)), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def test_members_are_imported_merged_exported_and_answer_as_in_transformers(torch, tiny, tmp_path):
    from transformers import T5ForConditionalGeneration

    variant = "Flan-T5"
    base = _theirs(variant)
    _write(tiny, base, tmp_path / "base", variant)
    members = {name: _near(base, seed) for seed, name in enumerate("ab")}
    for name, model in members.items():
        _write(tiny, model, tmp_path / name, variant)
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, QUESTIONS)))
    store = f"--store={tmp_path / 'store'}"
    folders = [str(tmp_path / name) for name in members]
    assert main(["import", *folders, store, f"--base={tmp_path / 'base'}", "--dataset=x"]) == 0
    assert wsr.Store.open(tmp_path / "store").model_name == "t5_seq2seq"
    assert main(["merge", store, f"--to={tmp_path / 'merged'}", "--method=uniform"]) == 0
    average, info = T5ForConditionalGeneration.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    first, second = (dict(model.named_parameters()) for model in members.values())
    for name, own in average.named_parameters():
        torch.testing.assert_close(own, (first[name] + second[name]) / 2, rtol=0, atol=1e-6)
    for name, model in members.items():
        assert main(["export", name, store, f"--to={tmp_path / 'out' / name}"]) == 0
        again = T5ForConditionalGeneration.from_pretrained(tmp_path / "out" / name).eval()
        losses, logits = _their_losses(torch, model, PAIRS)
        for one, other in zip(_their_losses(torch, again, PAIRS)[1], logits, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)
    # Losses of questions by the log-likelihoods of answers, as lm-evaluation-harness takes them of an encoder-decoder.
    rows, on = tmp_path / "rows.jsonl", f"--on={tmp_path / 'questions.jsonl'}"
    assert main(["evaluate", store, on, "--loss=choices", "--interior=0", f"--out={rows}"]) == 0
    told = [json.loads(line) for line in rows.read_text().splitlines()]
    for name, model in members.items():
        of_member = {row["metric"]: row["value"] for row in told if row["members"] == [name]}
        losses, right = [], []
        for question in QUESTIONS:
            context = tiny.processor(question["question"])["input_ids"]
            answers = [tiny.processor(f" {own}", add_special_tokens=False)["input_ids"] for own in question["choices"]]
            of_answers, _ = _their_losses(torch, model, [(context, answer) for answer in answers])
            likelihoods = -np.array([own.sum() for own in of_answers], np.float64)
            losses.append(np.log(np.exp(likelihoods - likelihoods[question["label"]]).sum()))
            right.append(likelihoods.argmax() == question["label"])
        assert of_member["choice_loss"] == pytest.approx(np.mean(losses), abs=1e-3)
        assert of_member["accuracy"] == np.mean(right)


def test_the_features_are_those_of_the_encoder(torch, tiny, tmp_path):
    theirs = _theirs("Flan-T5")
    folder = _write(tiny, theirs, tmp_path / "base", "Flan-T5")
    whole = models.load(str(folder))
    theirs.encoder.config.is_encoder_decoder = False
    texts = [(question, [0] * len(question)) for question, _ in PAIRS]
    batch = in_rows(texts, [[0, 1], [2]], 12)
    found = jax.jit(whole.model.encode)(whole.params, batch)
    for one, (question, _) in zip(found, PAIRS, strict=True):
        with torch.no_grad():
            states = theirs.get_encoder()(torch.tensor([question])).last_hidden_state[0].numpy()
        np.testing.assert_allclose(one, states.mean(axis=0), rtol=0, atol=1e-4)


def test_a_population_of_encoders_keeps_decoders_as_heads(torch, tiny, tmp_path):
    from transformers import T5EncoderModel, T5ForConditionalGeneration

    variant = "a shallow decoder with another start"
    theirs = _theirs(variant)
    encoder = T5EncoderModel(theirs.config)
    encoder.load_state_dict({name: own for name, own in theirs.state_dict().items() if name in encoder.state_dict()})
    encoder.save_pretrained(tmp_path / "base")
    tiny.processor.save_pretrained(tmp_path / "base")
    _write(tiny, theirs, tmp_path / "member", variant)
    store = f"--store={tmp_path / 'store'}"
    command = ["import", str(tmp_path / "member"), store, f"--base={tmp_path / 'base'}", "--dataset=x"]
    assert main(command) == 0
    assert wsr.Store.open(tmp_path / "store").model_name == "t5"
    assert main(["export", "member", "--head", store, f"--to={tmp_path / 'out'}"]) == 0
    again = T5ForConditionalGeneration.from_pretrained(tmp_path / "out").eval()
    for one, other in zip(*(_their_losses(torch, model, PAIRS)[1] for model in (again, theirs)), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def test_what_a_t5_with_decoder_refuses(tiny, tmp_path):
    theirs = _theirs("T5")
    _write(tiny, theirs, tmp_path / "base", "T5")
    base = models.load(str(tmp_path / "base"))
    (tmp_path / "notes.txt").write_text("a text without a question")
    store = wsr.Store.create_for(tmp_path / "store", base)
    assert main(["import", str(tmp_path / "base"), f"--store={store.path}", "--dataset=x", "--names=m"]) == 0
    from wsr.data.texts import load_texts

    texts = load_texts(tmp_path / "notes.txt", tiny.processor, max_length=24)
    with pytest.raises(WsrError, match="predicts answers to questions, not texts; score it on choices"):
        wsr.evaluate_language_model(wsr.open(store.path), np.eye(1), texts)
    with pytest.raises(WsrError, match="num_decoder_layers = 0; expected at least 1"):
        models.build("t5_seq2seq", {**EXAMPLE, "num_decoder_layers": 0})
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    config = {name: own for name, own in config.items() if name not in ("dense_act_fn", "is_gated_act")}
    for attribute in ({"is_decoder": True}, {"feed_forward_proj": "gated-mish"}):
        (tmp_path / "config.json").write_text(json.dumps({**config, **attribute}))
        with pytest.raises(WsrError, match=f"(config|unsupported): {next(iter(attribute))} = "):
            models.build("t5_seq2seq", {**read_config(tmp_path)[1], "pooling": "mean"})
    # The encoder alone is a T5 of the other architecture.
    from transformers import T5EncoderModel

    T5EncoderModel(theirs.config).save_pretrained(tmp_path / "encoder")
    tiny.processor.save_pretrained(tmp_path / "encoder")
    assert models.load(str(tmp_path / "encoder")).model.name == "t5"
    assert main(["import", str(tmp_path / "encoder"), f"--store={store.path}", "--dataset=x"]) == 1
    assert "lm_head.weight" not in load_file(tmp_path / "encoder" / "model.safetensors")
