"""Masked language modelling: what is hidden, what the loss is, that it falls, and the folder that comes out."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models_support import one_a_row, random_params, random_texts

from wsr.errors import WsrError
from wsr.models import build, load
from wsr.models.bert import EXAMPLE
from wsr.studies.harness.pretrained import PLANS, _texts, pretrained
from wsr.training.pretrain import initial_head, mask_tokens, masked_loss, pretrain


def test_a_seventh_of_the_tokens_is_hidden_most_of_them_by_the_mask():
    draw = np.random.default_rng(0)
    token_ids = draw.integers(5, 1000, (50, 40)).astype(np.int32)
    token_ids[:, 0] = 2
    text_ids = np.zeros((50, 40), np.int32)
    text_ids[:, 30:] = -1
    masked = mask_tokens(token_ids, text_ids, np.array([0, 1, 2, 3, 4], np.int32), 4, 1000, 400, draw)
    places = masked.places[masked.valid]
    assert len(places) == len(set(places)) == round(0.15 * 50 * 29)
    assert (places % 40 > 0).all()  # no special token
    assert (places % 40 < 30).all()  # no padding
    np.testing.assert_array_equal(masked.targets[masked.valid], token_ids.reshape(-1)[places])
    seen = masked.token_ids.reshape(-1)
    assert np.mean(seen[places] == 4) == pytest.approx(0.8, abs=0.08)
    assert np.mean(seen[places] == token_ids.reshape(-1)[places]) == pytest.approx(0.1, abs=0.06)
    others = np.setdiff1d(np.arange(2000), places)
    np.testing.assert_array_equal(seen[others], token_ids.reshape(-1)[others])


@pytest.mark.torch
def test_loss_and_gradient_are_those_of_bert_for_masked_lm():
    torch = pytest.importorskip("torch")
    from transformers import BertConfig, BertForMaskedLM

    from wsr.models.huggingface.weights import to_huggingface

    config = dict(EXAMPLE) | {"pooling": "cls", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = build("bert", config)
    params = random_params(model)
    draw = np.random.default_rng(1)
    head = {name: 0.3 * draw.standard_normal(leaf.shape) for name, leaf in initial_head(config, draw).items()}
    head = {name: leaf.astype(np.float32) for name, leaf in head.items()}
    batch = one_a_row(random_texts(2, [9, 6], config["vocab_size"]), 9)
    places = np.array([2, 5, 11, 0], np.int32)
    targets, valid = np.array([7, 30, 12, 0], np.int32), np.array([True, True, True, False])

    own = {name: config[name] for name in BertConfig().to_dict() if name in config}
    reference = BertForMaskedLM(BertConfig(**own)).eval()
    state = {f"bert.{name}": torch.tensor(np.asarray(leaf)) for name, leaf in to_huggingface(model, params).items()}
    state |= {
        "cls.predictions.transform.dense.weight": torch.tensor(head["kernel"].T),
        "cls.predictions.transform.dense.bias": torch.tensor(head["bias"]),
        "cls.predictions.transform.LayerNorm.weight": torch.tensor(head["scale"]),
        "cls.predictions.transform.LayerNorm.bias": torch.tensor(head["norm_bias"]),
        "cls.predictions.bias": torch.tensor(head["output_bias"]),
    }
    missing, unexpected = reference.load_state_dict(state, strict=False)
    assert not unexpected
    assert not [name for name in missing if "decoder" not in name and "position_ids" not in name]
    reference.tie_weights()
    with torch.no_grad():
        reference.cls.predictions.decoder.bias.copy_(state["cls.predictions.bias"])
    labels = np.full(18, -100)
    labels[places[valid]] = targets[valid]
    loss = reference(
        input_ids=torch.tensor(np.asarray(batch["token_ids"])).long(),
        attention_mask=torch.tensor(np.asarray(batch["text_ids"]) >= 0).long(),
        token_type_ids=torch.tensor(np.asarray(batch["token_types"])).long(),
        labels=torch.tensor(labels.reshape(2, 9)),
    ).loss
    loss.backward()

    def ours(weights):
        masked = {"targets": jnp.asarray(targets), "valid": jnp.asarray(valid)}
        return masked_loss(model.encode, 1e-12, weights, batch | {"starts": jnp.asarray(places)}, masked)

    value, gradient = jax.value_and_grad(ours)({"encoder": params, "head": jax.tree.map(jnp.asarray, head)})
    assert float(value) == pytest.approx(loss.item(), abs=1e-5)
    table = reference.bert.embeddings.word_embeddings.weight.grad.numpy()
    # PyTorch gives the padding token no gradient through the input side.
    np.testing.assert_allclose(gradient["encoder"]["embeddings"]["token"]["embedding"][1:], table[1:], atol=1e-5)
    np.testing.assert_allclose(
        gradient["head"]["kernel"].T, reference.cls.predictions.transform.dense.weight.grad.numpy(), atol=1e-5
    )


@pytest.mark.long
def test_bfloat16_is_of_the_encoders_products_alone():
    """Losses differ by the rounding of kernels alone, and the parameters stay in float32."""
    corpus, plan = PLANS["smoke"]
    tokenizer = load(corpus.tokenizer_of).processor
    texts = _texts(corpus, tokenizer, plan.max_length, "finetune")
    plans = [dataclasses.replace(plan, steps=5, precision=own) for own in ("float32", "bfloat16")]
    exact, coarse = (pretrain(texts, tokenizer, own, seed=0) for own in plans)
    assert 0 < abs(exact.losses - coarse.losses).max() < 1e-2
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(coarse.checkpoint.params)} == {"float32"}


@pytest.mark.long
def test_the_loss_falls_and_the_folder_opens(tmp_path, capsys):
    corpus, plan = PLANS["smoke"]
    folder = pretrained(tmp_path / "a", corpus, plan, seed=0)
    told = capsys.readouterr().out
    first, last = (float(part.split()[0]) for part in told.split("masked tokens ")[1].split(" in the first tenth, "))
    assert last < first - 0.2
    checkpoint = load(str(folder))
    assert checkpoint.model.config["pooling"] == "mean"
    assert checkpoint.model.hidden == plan.hidden
    told = json.loads((folder / "pretraining.json").read_text())
    assert told["held_out_perplexity"] == pytest.approx(math.exp(told["held_out_loss"]))
    assert told["held_out_texts"] > 0
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert pretrained(folder, corpus, plan, seed=0) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(WsrError, match=r"another plan \(differing: pretraining.steps\)"):
        pretrained(folder, corpus, dataclasses.replace(plan, steps=5), seed=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


@pytest.mark.long
def test_an_interrupted_pretraining_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    from wsr.training import pretrain as module

    corpus, plan = PLANS["smoke"]
    plan = dataclasses.replace(plan, steps=7)
    monkeypatch.setattr(module, "_KEPT_EVERY", 3)
    tokenizer = load(corpus.tokenizer_of).processor
    texts = _texts(corpus, tokenizer, plan.max_length, "finetune")
    found = module.pretrain(texts, tokenizer, plan, seed=0, held_out=texts)
    whole, losses = found.checkpoint, found.losses
    kept = tmp_path / "state.npz"

    def interrupted(*state):
        write(*state)
        raise KeyboardInterrupt

    write = module._keep
    for _ in range(2):  # after 3 steps, and after 6
        monkeypatch.setattr(module, "_keep", interrupted)
        with pytest.raises(KeyboardInterrupt):
            module.pretrain(texts, tokenizer, plan, seed=0, keep=kept)
    monkeypatch.setattr(module, "_keep", write)
    resumed = module.pretrain(texts, tokenizer, plan, seed=0, keep=kept, held_out=texts)
    np.testing.assert_array_equal(resumed.losses, losses)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), resumed.checkpoint.params, whole.params))
    assert resumed.held_out == found.held_out
    # A model that knows nothing predicts each token of the vocabulary alike.
    assert losses[-1] - 0.5 < found.held_out < np.log(len(tokenizer))
