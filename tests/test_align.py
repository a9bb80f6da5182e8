"""``wsr align``: folders of models in another order, against the originals and against transformers."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from incoming_folders import rewrite
from models_support import random_params
from safetensors.numpy import load_file
from shuffling import shuffled

import wsr
from wsr.cli import main
from wsr.errors import WsrError
from wsr.geometry.trees import flatten, nest
from wsr.models import Checkpoint, architectures, build
from wsr.models.permutations import permutable
from wsr.models.tiny import tokenizer
from wsr.store import Store


def leaves_of(params):
    return {path: np.asarray(leaf) for path, leaf in flatten(params).items()}


@pytest.fixture(scope="module")
def bert(tiny, tmp_path_factory):
    """A folder of a BERT, and one of the same function in another order."""
    place = tmp_path_factory.mktemp("bert")
    base = replace(tiny, params=random_params(tiny.model))
    wsr.export(base, place / "reference")
    other = shuffled(leaves_of(base.params), permutable(tiny.model), 1)
    wsr.export(base.with_params(nest(other)), place / "shuffled")
    return place


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """The same of a language model, whose residual stream is in another order, too."""
    place = tmp_path_factory.mktemp("llama")
    words = tokenizer()
    model = build("llama", {**architectures()["llama"].example, "vocab_size": len(words)})
    base = Checkpoint(model, random_params(model), words, "llama")
    wsr.export(base, place / "reference")
    other = shuffled(leaves_of(base.params), permutable(model), 1, stream=True)
    wsr.export(base.with_params(nest(other)), place / "shuffled")
    return place


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_shuffled_copy_is_the_original_again(family, request, tmp_path):
    place = request.getfixturevalue(family)
    before, reference = (load_file(place / name / "model.safetensors") for name in ("shuffled", "reference"))
    assert any(not np.array_equal(before[name], leaf) for name, leaf in reference.items())
    found = wsr.align(place / "shuffled", place / "reference", tmp_path / "out")
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert after.keys() == before.keys()
    for name, leaf in reference.items():
        np.testing.assert_array_equal(after[name], leaf, err_msg=name)
    assert found.after == 0 < found.before
    assert found.stream == (family == "llama")
    expected = np.concatenate([(before[name] - leaf).ravel() for name, leaf in reference.items()])
    whole = np.concatenate([leaf.ravel() for leaf in reference.values()])
    assert found.before == pytest.approx(np.linalg.norm(expected) / np.linalg.norm(whole), rel=1e-5)
    files = {file.name for file in (place / "shuffled").rglob("*") if file.is_file()} - {"README.md"}
    assert files == {file.name for file in (tmp_path / "out").rglob("*") if file.is_file()}


def test_transformers_computes_the_same_before_and_after(tmp_path):
    """A GPT-2 with a classifier, aligned to a model of other weights: its logits stay, so its stream does, too."""
    torch = pytest.importorskip("torch")
    from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

    sizes = {"vocab_size": 40, "n_positions": 24, "n_embd": 16, "n_layer": 2, "n_head": 2, "initializer_range": 0.3}
    words = tokenizer()
    config = GPT2Config(**{**sizes, "vocab_size": len(words)}, pad_token_id=0, num_labels=3)
    batch = {"input_ids": torch.arange(5, 17).reshape(2, 6), "attention_mask": torch.ones(2, 6, dtype=torch.long)}
    for seed, kind in enumerate((GPT2ForSequenceClassification, GPT2LMHeadModel)):
        torch.manual_seed(seed)
        model = kind(config).eval()
        model.save_pretrained(tmp_path / kind.__name__)
        words.save_pretrained(tmp_path / kind.__name__)
        torch.manual_seed(seed + 10)
        reference = tmp_path / f"reference-{seed}"
        kind(config).save_pretrained(reference)
        words.save_pretrained(reference)
        found = wsr.align(tmp_path / kind.__name__, reference, tmp_path / f"out-{seed}")
        assert found.stream == (kind is GPT2LMHeadModel)
        assert found.moved >= 8  # all kernels of both layers; biases are zero
        assert found.after < found.before
        aligned = kind.from_pretrained(tmp_path / f"out-{seed}").eval()
        with torch.no_grad():
            torch.testing.assert_close(aligned(**batch).logits, model(**batch).logits, atol=1e-5, rtol=1e-5)


def test_types_heads_and_buffers_stay_as_they_are(bert, tmp_path):
    shutil.copytree(bert / "shuffled", tmp_path / "half")
    head = {"classifier.weight": np.ones((2, 16), np.float16), "embeddings.position_ids": np.arange(4)}

    def halved(tensors):
        return {name: leaf.astype(np.float16) for name, leaf in tensors.items()} | head

    before = rewrite(tmp_path / "half", halved)
    wsr.align(tmp_path / "half", bert / "reference", tmp_path / "out")
    after = load_file(tmp_path / "out" / "model.safetensors")
    reference = load_file(bert / "reference" / "model.safetensors")
    assert {name: leaf.dtype for name, leaf in after.items()} == {name: leaf.dtype for name, leaf in before.items()}
    for name, leaf in head.items():
        np.testing.assert_array_equal(after[name], leaf)
    for name, leaf in reference.items():
        np.testing.assert_array_equal(after[name], leaf.astype(np.float16), err_msg=name)


def test_the_stream_of_an_encoder_is_moved_only_if_asked_and_if_nothing_reads_it(bert, tiny, tmp_path):
    reference = wsr.load(str(bert / "reference"))
    other = shuffled(leaves_of(reference.params), permutable(tiny.model), 3, stream=True)
    wsr.export(reference.with_params(nest(other)), tmp_path / "moved")
    assert wsr.align(tmp_path / "moved", bert / "reference", tmp_path / "kept").after > 0.1
    assert wsr.align(tmp_path / "moved", bert / "reference", tmp_path / "out", stream=True).after == 0
    rewrite(tmp_path / "moved", lambda tensors: {**tensors, "classifier.weight": np.ones((2, 16), np.float32)})
    with pytest.raises(WsrError, match=r"its residual stream stays in order, because classifier\.weight would read it"):
        wsr.align(tmp_path / "moved", bert / "reference", tmp_path / "refused", stream=True)
    assert not (tmp_path / "refused").exists()


@pytest.mark.parametrize("change", ["modules", "class"])
def test_the_stream_of_a_decoder_whose_features_are_read_stays(llama, tmp_path, change):
    """A SentenceTransformer of a decoder, and a decoder that is saved without its language-modelling class."""
    shutil.copytree(llama / "shuffled", tmp_path / "features")
    if change == "modules":
        (tmp_path / "features" / "modules.json").write_text(json.dumps([{"path": "", "type": "x.Transformer"}]))
    else:
        path = tmp_path / "features" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "architectures": ["LlamaModel"]}))
    found = wsr.align(tmp_path / "features", llama / "reference", tmp_path / "out")
    assert not found.stream
    assert found.after > 0.1


def test_a_model_is_aligned_to_a_point_of_a_store(tiny, bert, tmp_path, capsys):
    from test_store import record_of

    base = wsr.load(str(bert / "reference"))
    store = Store.create_for(tmp_path / "store", base)
    store.save(record_of("m"), base.params, {})
    words = [f"--store={store.path}", "--reference=m", f"--to={tmp_path / 'out'}"]
    assert main(["align", str(bert / "shuffled"), *words]) == 0
    assert "0 after" in capsys.readouterr().out


def test_what_cannot_be_aligned_is_refused(bert, llama, tmp_path, capsys):
    assert (
        main(["align", str(bert / "shuffled"), f"--reference={llama / 'reference'}", f"--to={tmp_path / 'out'}"]) == 1
    )
    assert "have different shapes" in capsys.readouterr().err
    assert main(["align", str(bert / "shuffled"), "--reference=tiny", f"--to={bert / 'reference'}"]) == 1
    assert "exists and is not empty" in capsys.readouterr().err
    assert main(["align", "--reference=tiny", f"--to={tmp_path / 'out'}"]) == 1
    assert "no model is named" in capsys.readouterr().err
    wrong = tmp_path / "wrong"
    shutil.copytree(bert / "shuffled", wrong)
    config = json.loads((wrong / "config.json").read_text())
    (wrong / "config.json").write_text(json.dumps({**config, "model_type": "unknown"}))
    assert main(["align", str(wrong), "--reference=tiny", f"--to={tmp_path / 'out'}"]) == 1
    assert "model_type = 'unknown' is not supported" in capsys.readouterr().err


def test_a_merge_of_an_aligned_copy_is_the_model_itself(bert, tmp_path):
    """The mean of a model and its shuffled copy would be another model."""
    wsr.align(bert / "shuffled", bert / "reference", tmp_path / "aligned")
    recipe = {
        "merge_method": "linear",
        "models": [{"model": str(bert / "reference")}, {"model": str(tmp_path / "aligned")}],
        "parameters": {"weight": 0.5},
    }
    (tmp_path / "recipe.yml").write_text(json.dumps(recipe))
    assert main(["merge", f"--recipe={tmp_path / 'recipe.yml'}", f"--to={tmp_path / 'merged'}"]) == 0
    merged, reference = (
        load_file(folder / "model.safetensors") for folder in (tmp_path / "merged", bert / "reference")
    )
    for name, leaf in reference.items():
        np.testing.assert_allclose(merged[name], leaf, atol=1e-6, err_msg=name)
