"""Configs as published checkpoints have them, with attributes of older versions; and what is refused by name."""

import json

import jax
import numpy as np
import pytest
from models_support import every_token, one_a_row
from published_configs import GEMMA, GEMMA2, GEMMA3, GPT2, LLAMA_3_2, LOADED, MODERNBERT, QWEN2, QWEN3, REFUSED, small

from wsr import models
from wsr.errors import WsrError
from wsr.models.huggingface.config import other_attributes, read_config
from wsr.models.huggingface.weights import from_huggingface, head_settings

LLAMA_3_1 = {
    **{name: value for name, value in LLAMA_3_2.items() if name != "head_dim"},
    "hidden_size": 4096,
    "rope_scaling": {**LLAMA_3_2["rope_scaling"], "factor": 8.0},
    "tie_word_embeddings": False,
}
FLAN_T5 = LOADED["flan-t5-small"]
IDS = [2, 17, 5, 40, 33, 8, 21, 9, 3]


@pytest.fixture
def read(tmp_path):
    def from_file(config, **changes):
        (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
        name, own = read_config(tmp_path)
        present = models.architectures()[name].counterpart.present
        models.build(name, {**own, **dict.fromkeys(present, True), "pooling": "mean", **_shallow(own)})
        return own

    return from_file


def _shallow(config):
    """One layer, which is built faster than many."""
    layers = next(name for name in ("num_hidden_layers", "n_layer", "num_layers") if name in config)
    return {layers: 1, **({"layer_types": config["layer_types"][:1]} if "layer_types" in config else {})}


def test_llama_3_1(read):
    found = read(LLAMA_3_1)
    assert found["rope_parameters"] == {**LLAMA_3_1["rope_scaling"], "rope_theta": 500000.0}
    assert (found["head_dim"], found["num_key_value_heads"]) == (128, 8)
    assert read({**LLAMA_3_1, "rope_scaling": None})["rope_parameters"]["rope_type"] == "default"


def test_qwen(read):
    assert read(QWEN2)["rope_parameters"] == {"rope_theta": 1000000.0, "rope_type": "default"}
    assert read(QWEN3)["head_dim"] == 128


def test_gemma(read):
    assert read(GEMMA)["hidden_act"] == "gelu_pytorch_tanh"
    assert read(GEMMA2)["layer_types"][:3] == ["sliding_attention", "full_attention", "sliding_attention"]
    found = read(GEMMA3)
    assert found["layer_types"][4:7] == ["sliding_attention", "full_attention", "sliding_attention"]
    assert found["rope_parameters"] == {
        "full_attention": {"rope_type": "default", "rope_theta": 1000000},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000},
    }
    # A window of both directions is written as it was read.
    embedding = read(LOADED["embeddinggemma-300m"])
    assert (embedding["sliding_window"], embedding["use_bidirectional_attention"]) == (512, True)


def test_gpt2_and_t5_and_modernbert(read):
    assert read(GPT2)["n_inner"] is None
    assert read(FLAN_T5)["feed_forward_proj"] == "gated-gelu"
    found = read(MODERNBERT)
    assert found["layer_types"][:4] == ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
    assert found["rope_parameters"]["sliding_attention"]["rope_theta"] == 10000.0


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (QWEN2, {"use_sliding_window": True, "max_window_layers": 21}, r"layer_types = .*sliding_window = 32768;"),
        (QWEN3, {"layer_types": ["sliding_attention"] * 24}, "unsupported: layer_types = "),
        (LLAMA_3_1, {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type = 'dynamic'"),
        (LLAMA_3_1, {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_type = 'yarn'"),
        (QWEN2, {"partial_rotary_factor": 0.5}, "unknown partial_rotary_factor = 0.5"),
        (LLAMA_3_1, {"hidden_act": "swiglu"}, "hidden_act = 'swiglu'; known: "),
        (LLAMA_3_1, {"head_dim": 3}, "even number of features in a head, found 3"),
        (GPT2, {"add_cross_attention": True}, "unsupported: add_cross_attention = True"),
        (FLAN_T5, {"is_decoder": True}, "unsupported: is_decoder = True"),
        (FLAN_T5, {"feed_forward_proj": "gated-swish"}, "feed_forward_proj = 'gated-swish'; known: "),
        (MODERNBERT, {"layer_types": ["full_attention"] * 3}, r"layer_types = .*22 layers|num_hidden_layers"),
    ],
)
def test_what_would_change_the_hidden_states_is_refused_by_name(read, config, changes, message):
    with pytest.raises(WsrError, match=message):
        read(config, **changes)


@pytest.mark.torch
@pytest.mark.parametrize("name", LOADED)
def test_a_published_config_has_transformers_own_hidden_states(tmp_path, name):
    torch = pytest.importorskip("torch", reason="PyTorch, the oracle of the parity tests, is not installed")
    import transformers

    published = small(LOADED[name])
    (tmp_path / "config.json").write_text(json.dumps(published))
    architecture, config = read_config(tmp_path)
    counterpart = models.architectures()[architecture].counterpart
    torch.manual_seed(0)
    theirs = getattr(transformers, counterpart.model_class)(transformers.AutoConfig.from_pretrained(tmp_path)).eval()
    tensors = {key: value.numpy() for key, value in theirs.state_dict().items()}
    heads = head_settings(counterpart, config, tensors)
    ours = models.build(architecture, {**config, **heads, "pooling": "cls"})
    params, _ = from_huggingface(ours, tensors)

    if ours.reads == "images":
        pixels = np.random.default_rng(0).standard_normal((1, 16, 16, 3)).astype(np.float32)
        batch = {"pixel_values": pixels}
        inputs = {"pixel_values": torch.tensor(pixels.transpose(0, 3, 1, 2))}
    else:
        batch = every_token(one_a_row([(IDS, [0] * len(IDS))], len(IDS)))
        inputs = {"input_ids": torch.tensor([IDS])}
    with torch.no_grad():
        encode = theirs.get_encoder() if theirs.config.is_encoder_decoder else theirs
        expected = encode(**inputs).last_hidden_state[0].numpy()
    found = jax.jit(ours.encode)(params, batch)
    np.testing.assert_allclose(found, expected[: len(found)], atol=1e-5)


@pytest.mark.parametrize("name", LOADED)
def test_what_does_not_determine_the_hidden_states_is_passed_on(tmp_path, name):
    published = small(LOADED[name])
    (tmp_path / "config.json").write_text(json.dumps(published))
    _, config = read_config(tmp_path)
    kept = other_attributes(tmp_path)
    of_the_file = {"_name_or_path", "model_type", "torch_dtype", "transformers_version"}
    assert not of_the_file & kept.keys()
    # transformers renames some: num_labels is the number of id2label, rotary attributes are in rope_parameters.
    renamed = {"num_labels", "rope_theta", "rope_scaling", "global_rope_theta", "local_rope_theta"}
    renamed |= {"rope_local_base_freq"}
    # It drops these.
    renamed |= {"output_attentions", "reference_compile"}
    for attribute, value in published.items():
        if attribute not in of_the_file | renamed | config.keys():
            assert kept[attribute] == value, attribute


@pytest.mark.parametrize("name", REFUSED)
def test_a_published_config_is_refused_for_its_reason(tmp_path, name):
    config, reason = REFUSED[name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WsrError, match=rf"config\.json: unsupported: {reason}"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pruned_heads": {"0": [0]}}, "some of its attention heads are pruned"),
        ({"per_layer_config": {"0": {"hidden_act": "relu"}}}, "its layers have configs of their own"),
        ({"auto_map": {"AutoModelForMaskedLM": "code.Model"}}, "it needs code from its own repository"),
    ],
)
def test_what_changes_the_model_although_no_code_reads_it(read, changes, reason):
    with pytest.raises(WsrError, match=f"unsupported: {reason}"):
        read(LOADED["bert-base-uncased"], **changes)


@pytest.mark.parametrize("config", [QWEN2, MODERNBERT])
def test_a_width_of_heads_that_goes_without_saying(read, config):
    width = config["hidden_size"] // config["num_attention_heads"]
    read(config, head_dim=width)
    with pytest.raises(WsrError, match=f"unsupported: head_dim = {2 * width}"):
        read(config, head_dim=2 * width)


def test_code_of_a_tokenizer_changes_no_model(read):
    read(LOADED["bert-base-uncased"], auto_map={"AutoTokenizer": ["code.Tokenizer", None]})
