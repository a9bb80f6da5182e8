"""Checkpoints of levanter, written array by array as levanter writes them: exports answer as the model they came from.

The names and axes follow levanter's public code; levanter itself was not run.
"""

import json
import re
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.array_serialization.serialization import GlobalAsyncCheckpointManager

import wsr
from wsr import models
from wsr.errors import WsrError

HEADS, KEY_HEADS, WIDTH, HIDDEN, WIDE, LAYERS, WORDS = 6, 2, 4, 24, 20, 3, 112
LLAMA = {
    "vocab_size": WORDS,
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KEY_HEADS,
    "head_dim": WIDTH,
    "intermediate_size": WIDE,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
GPT2 = {
    "vocab_size": WORDS,
    "n_embd": HIDDEN,
    "n_layer": LAYERS,
    "n_head": HEADS,
    "n_positions": 16,
    "initializer_range": 0.3,
}


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch, the oracle of the parity tests, is not installed")


def llama_arrays(tensors):
    """levanter's arrays of a Llama, by path: a matrix is [out, in], and axes of heads stand apart."""
    found = {
        "embeddings/token_embeddings/weight": tensors["model.embed_tokens.weight"],
        "transformer/norm/weight": tensors["model.norm.weight"],
    }
    if "lm_head.weight" in tensors:
        found["lm_head/weight"] = tensors["lm_head.weight"]
    for layer in range(LAYERS):
        theirs, ours = f"model.layers.{layer}", f"transformer/layers/blocks/{layer}"

        def by_head(name, heads, theirs=theirs):
            return np.stack(np.split(tensors[f"{theirs}.self_attn.{name}.weight"], heads))

        queries = by_head("q_proj", HEADS)  # [heads, width, embed]; three in turn share a key
        groups = [queries[first : first + HEADS // KEY_HEADS] for first in range(0, HEADS, HEADS // KEY_HEADS)]
        found[f"{ours}/self_attn/q_proj/weight"] = np.stack(groups)
        found[f"{ours}/self_attn/k_proj/weight"] = by_head("k_proj", KEY_HEADS)
        found[f"{ours}/self_attn/v_proj/weight"] = by_head("v_proj", KEY_HEADS)
        outputs = np.split(tensors[f"{theirs}.self_attn.o_proj.weight"], HEADS, axis=1)
        found[f"{ours}/self_attn/o_proj/weight"] = np.stack(outputs, axis=1)  # [embed, heads, width]
        for part in ("gate_proj", "up_proj", "down_proj"):
            found[f"{ours}/mlp/{part}/weight"] = tensors[f"{theirs}.mlp.{part}.weight"]
        for part in ("input_layernorm", "post_attention_layernorm"):
            found[f"{ours}/{part}/weight"] = tensors[f"{theirs}.{part}.weight"]
    return found


def gpt2_arrays(tensors):
    """levanter's arrays of a GPT-2, by path: a matrix is [in, out], and axes of heads stand apart."""
    found = {
        "embeddings/token_embeddings/weight": tensors["transformer.wte.weight"],
        "embeddings/position_embeddings/weight": tensors["transformer.wpe.weight"],
    }
    for leaf in ("weight", "bias"):
        found[f"transformer/ln_f/{leaf}"] = tensors[f"transformer.ln_f.{leaf}"]
        for layer in range(LAYERS):
            theirs, ours = f"transformer.h.{layer}", f"transformer/blocks/blocks/{layer}"
            parts = np.split(tensors[f"{theirs}.attn.c_attn.{leaf}"], 3, axis=-1)  # queries, keys, values
            by_head = [np.stack(np.split(part, HEADS, axis=-1), axis=-2) for part in parts]
            found[f"{ours}/attn/c_attn/{leaf}"] = np.stack(by_head, axis=-3)  # [embed, 3, heads, width]
            output = tensors[f"{theirs}.attn.c_proj.{leaf}"]
            found[f"{ours}/attn/c_proj/{leaf}"] = np.stack(np.split(output, HEADS)) if leaf == "weight" else output
            for part in ("ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj"):
                found[f"{ours}/{part.replace('.', '/')}/{leaf}"] = tensors[f"{theirs}.{part}.{leaf}"]
    return found


def stacked(arrays):
    """The arrays of all layers stacked along a first axis."""
    found = {path: leaf for path, leaf in arrays.items() if not re.search(r"/blocks/\d+/", path)}
    for path in arrays:
        if "/blocks/0/" in path:
            layers = [arrays[path.replace("/blocks/0/", f"/blocks/{own}/")] for own in range(LAYERS)]
            found[path.replace("/blocks/0/", "/stacked/")] = np.stack(layers)
    return found


def write_step(folder, arrays):
    """The folder of a step: the training state, of which the arrays are the model."""
    state = {f"model/{path}": jnp.asarray(leaf) for path, leaf in arrays.items()}
    state |= {"step": jnp.asarray(7), "opt_state/count": jnp.asarray(7), "training_key": jnp.zeros(2, jnp.uint32)}
    manager = GlobalAsyncCheckpointManager()
    manager.serialize_with_paths(
        list(state.values()), [str(folder / path) for path in state], on_commit_callback=lambda: None
    )
    manager.wait_until_finished()
    about = {"step": 7, "timestamp": "2025-09-26T12:04:00", "is_temporary": False}
    (folder / "metadata.json").write_text(json.dumps(about))


def their_model(torch, name, tied):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    own = GPT2 if name == "gpt2" else {**LLAMA, "tie_word_embeddings": tied}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **own)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # fresh models have zero biases and unit scales
            parameter.add_(0.1 * torch.randn_like(parameter))
    tensors = {key: value.numpy() for key, value in model.state_dict().items()}
    if tied:
        tensors.pop("lm_head.weight")
    return model, (gpt2_arrays if name == "gpt2" else llama_arrays)(tensors)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("name", "tied", "scanned"),
    [("gpt2", True, True), ("llama", True, True), ("llama", False, True), ("llama", False, False)],
)
def test_a_checkpoint_of_levanter_answers_as_the_model_it_came_from(torch, tiny, tmp_path, name, tied, scanned):
    from transformers import AutoModelForCausalLM

    theirs, arrays = their_model(torch, name, tied)
    theirs.config.save_pretrained(tmp_path / "run")
    tiny.processor.save_pretrained(tmp_path / "run")
    write_step(tmp_path / "run" / "step-7", stacked(arrays) if scanned else arrays)
    models.export(models.load(str(tmp_path / "run")), tmp_path / "out")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    tokens = torch.tensor([[5, 17, 40, 33, 8, 21, 9, 3, 71]])
    with torch.no_grad():
        np.testing.assert_allclose(again(tokens).logits, theirs(tokens).logits, rtol=0, atol=1e-5)


@pytest.mark.torch
def test_what_of_levanter_is_refused(torch, tiny, tmp_path):
    theirs, arrays = their_model(torch, "llama", tied=True)
    folder = tmp_path / "run"
    theirs.config.save_pretrained(folder)
    tiny.processor.save_pretrained(folder)
    changed = stacked(arrays)
    place = "transformer/layers/stacked"
    changed[f"{place}/post_attn_layernorm/weight"] = changed[f"{place}/input_layernorm/weight"]
    changed[f"{place}/mlp/up_proj/weight"] = changed[f"{place}/mlp/up_proj/weight"][:, 1:]
    write_step(folder / "step-7", changed)
    with pytest.raises(WsrError) as caught:
        wsr.load(folder)
    for told in (
        "for the nearest, levanter, stacked: unexpected transformer/layers/stacked/post_attn_layernorm/weight",
        "shape of transformer/layers/stacked/mlp/up_proj/weight is (3, 19, 24), expected (3, 20, 24)",
    ):
        assert told in str(caught.value)
    (folder / "step-7" / "model" / "transformer" / "norm" / "weight" / ".zarray").write_text("no metadata")
    with pytest.raises(WsrError, match=r"transformer/norm/weight: not readable as a zarr array") as caught:
        wsr.load(folder)
    assert "\n" not in str(caught.value)
    shutil.copytree(folder / "step-7", folder / "step-8")
    with pytest.raises(WsrError, match=r"several trees of weights: step-7, step-8; keep one of them"):
        wsr.load(folder)
    shutil.rmtree(folder / "step-7")
    shutil.rmtree(folder / "step-8" / "model")
    (folder / "step-8" / "model").mkdir()
    with pytest.raises(WsrError, match=r"expected the arrays of a model below model/, found none"):
        wsr.load(folder)
