"""Trees of Google DeepMind's gemma: what their exports compute in transformers, against a program in NumPy.

The program and the names follow the library's public code; the library itself was not run.
"""

import re

import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import traverse_util

import wsr
from wsr import models
from wsr.errors import WsrError

HEADS, WIDTH, HIDDEN, WIDE, LAYERS, WORDS, WINDOW = 4, 6, 24, 20, 3, 112, 3
TOKENS = np.array([5, 17, 40, 33, 8, 21, 9, 3, 71])
COMMON = {
    "vocab_size": WORDS,
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "head_dim": WIDTH,
    "intermediate_size": WIDE,
    "max_position_embeddings": 64,
}
KINDS = ["sliding_attention", "full_attention", "sliding_attention"]
ALTERNATING = {"layer_types": KINDS, "sliding_window": WINDOW, "query_pre_attn_scalar": 10}
ROTARY = {"sliding_attention": 10.0, "full_attention": 100.0}
VERSIONS = {
    "gemma": ({}, {}),
    "gemma2": (
        {**ALTERNATING, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
        {"scale": 10**-0.5, "windows": (WINDOW, 99, WINDOW), "score_cap": 2.0, "logit_cap": 3.0},
    ),
    "gemma3_text": (
        {
            **ALTERNATING,
            "rope_parameters": {kind: {"rope_type": "default", "rope_theta": own} for kind, own in ROTARY.items()},
        },
        {"scale": 10**-0.5, "windows": (WINDOW, 99, WINDOW), "bases": [ROTARY[kind] for kind in KINDS]},
    ),
}
"""By architecture, further attributes of a config, and what the program computes with."""


def drawn(name, key_heads, *, swapped):
    """Random parameters under the names of the library's modules."""
    random = np.random.default_rng(0)

    def draw(*shape):
        return (0.3 * random.standard_normal(shape)).astype(np.float32)

    leaves = {"embedder/input_embedding": draw(WORDS, HIDDEN), "final_norm/scale": draw(HIDDEN)}
    for layer in range(LAYERS):
        own = {"pre_attention_norm/scale": draw(HIDDEN), "pre_ffw_norm/scale": draw(HIDDEN)}
        if name != "gemma":
            own |= {"post_attention_norm/scale": draw(HIDDEN), "post_ffw_norm/scale": draw(HIDDEN)}
        if name == "gemma3_text":
            own |= {"attn/_query_norm/scale": draw(WIDTH), "attn/_key_norm/scale": draw(WIDTH)}
        if key_heads == HEADS:
            own["attn/qkv_einsum/w"] = draw(3, HEADS, HIDDEN, WIDTH)
        else:
            own["attn/q_einsum/w"] = draw(HEADS, HIDDEN, WIDTH)
            own["attn/kv_einsum/w"] = draw(2, key_heads, HIDDEN, WIDTH)
        own["attn/attn_vec_einsum/w"] = draw(HEADS, WIDTH, HIDDEN)
        own["mlp/gating_einsum"] = draw(2, WIDE, HIDDEN) if swapped else draw(2, HIDDEN, WIDE)
        own["mlp/linear"] = draw(WIDE, HIDDEN)
        leaves |= {f"layer_{layer}/{path}": leaf for path, leaf in own.items()}
    return leaves


def logits(
    leaves, *, swapped, scale=WIDTH**-0.5, windows=(99,) * LAYERS, bases=(1e4,) * LAYERS, score_cap=None, logit_cap=None
):
    """Logits of ``TOKENS`` as the library computes them."""

    def normed(states, path):
        return states / np.sqrt((states**2).mean(-1, keepdims=True) + 1e-6) * (1 + leaves[f"{path}/scale"])

    def rotated(states, base):
        turns = np.arange(len(TOKENS))[:, None] / base ** (np.arange(WIDTH // 2) * 2 / WIDTH)
        cos, sin = np.cos(turns)[:, None], np.sin(turns)[:, None]
        first, second = np.split(states, 2, axis=-1)
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)

    def capped(values, cap):
        return values if cap is None else np.tanh(values / cap) * cap

    hidden = leaves["embedder/input_embedding"][TOKENS].astype(np.float64) * HIDDEN**0.5
    for layer, (window, base) in enumerate(zip(windows, bases, strict=True)):
        at = f"layer_{layer}"
        inner = normed(hidden, f"{at}/pre_attention_norm")
        if f"{at}/attn/qkv_einsum/w" in leaves:
            query, key, value = np.einsum("td,sndh->stnh", inner, leaves[f"{at}/attn/qkv_einsum/w"])
        else:
            query = np.einsum("td,ndh->tnh", inner, leaves[f"{at}/attn/q_einsum/w"])
            key, value = np.einsum("sd,ckdh->cskh", inner, leaves[f"{at}/attn/kv_einsum/w"])
        if f"{at}/attn/_query_norm/scale" in leaves:
            query, key = normed(query, f"{at}/attn/_query_norm"), normed(key, f"{at}/attn/_key_norm")
        query, key = rotated(query, base) * scale, rotated(key, base)
        # [tokens, key heads, query heads of each, width]
        query = query.reshape(len(TOKENS), key.shape[1], -1, WIDTH)
        scores = capped(np.einsum("tkgh,skh->tkgs", query, key), score_cap)
        apart = np.arange(len(TOKENS))[:, None] - np.arange(len(TOKENS))
        scores = np.where(((apart >= 0) & (apart < window))[:, None, None], scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = np.einsum("tkgs,skh->tkgh", weights / weights.sum(-1, keepdims=True), value)
        mixed = mixed.reshape(len(TOKENS), HEADS, WIDTH)
        added = np.einsum("tnh,nhd->td", mixed, leaves[f"{at}/attn/attn_vec_einsum/w"])
        after = f"{at}/post_attention_norm"
        hidden = hidden + (normed(added, after) if f"{after}/scale" in leaves else added)
        inner = normed(hidden, f"{at}/pre_ffw_norm")
        gate, up = np.einsum("tf,nhf->nth" if swapped else "tf,nfh->nth", inner, leaves[f"{at}/mlp/gating_einsum"])
        gate = gate * (1 + np.tanh((2 / np.pi) ** 0.5 * (gate + 0.044715 * gate**3))) / 2
        added = (gate * up) @ leaves[f"{at}/mlp/linear"]
        after = f"{at}/post_ffw_norm"
        hidden = hidden + (normed(added, after) if f"{after}/scale" in leaves else added)
    return capped(normed(hidden, "final_norm") @ leaves["embedder/input_embedding"].T, logit_cap)


def flat(leaves):
    """The tree of a released file: one table of modules, each with its leaf."""
    found = {}
    for path, leaf in leaves.items():
        module, _, last = f"{path}/w".rpartition("/") if "/mlp/" in path else path.rpartition("/")
        found.setdefault(f"transformer/{module}", {})[last] = leaf
    return found


def stacked(tree, pattern):
    """The same with the layers of each place in a pattern stacked."""
    found = {}
    for module, own in tree.items():
        layer = re.fullmatch(r"transformer/layer_(\d+)/(.+)", module)
        if layer is None:
            found[module] = own
            continue
        place = f"transformer/stacked_layers/attention_type_{int(layer[1]) % pattern}/{layer[2]}"
        for last, leaf in own.items():
            found.setdefault(place, {}).setdefault(last, []).append(leaf)
    return {
        module: {last: np.stack(leaf) if isinstance(leaf, list) else leaf for last, leaf in own.items()}
        for module, own in found.items()
    }


FORMS = {
    "nested": lambda leaves: traverse_util.unflatten_dict(leaves, sep="/"),
    "flat": flat,
    "stacked": lambda leaves: stacked(flat(leaves), 2),
    "training state": lambda leaves: {
        "params": FORMS["nested"](leaves),
        "opt_state": {"count": np.int32(3)},
        "collections": {"some": np.zeros(2)},
        "step": np.int32(3),
    },
}


def write(folder, name, key_heads, tree, tiny):
    from transformers import AutoConfig

    config = {**COMMON, **VERSIONS[name][0], "num_key_value_heads": key_heads}
    AutoConfig.for_model(name, **config).save_pretrained(folder)
    tiny.processor.save_pretrained(folder)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as writer:
        writer.save(folder / "weights", args=ocp.args.PyTreeSave(tree))


@pytest.mark.torch
@pytest.mark.parametrize(
    ("name", "key_heads", "swapped", "form"),
    [
        ("gemma", 1, False, "flat"),
        ("gemma", HEADS, False, "nested"),
        ("gemma2", 2, False, "training state"),
        ("gemma2", 2, True, "flat"),
        ("gemma3_text", 1, True, "stacked"),
        ("gemma3_text", 2, True, "nested"),
    ],
)
def test_a_tree_of_gemma_computes_in_transformers_what_it_does_there(tiny, tmp_path, name, key_heads, swapped, form):
    torch = pytest.importorskip("torch", reason="PyTorch, the oracle of the parity tests, is not installed")
    from transformers import AutoModelForCausalLM

    leaves = drawn(name, key_heads, swapped=swapped)
    write(tmp_path / "theirs", name, key_heads, FORMS[form](leaves), tiny)
    models.export(models.load(str(tmp_path / "theirs")), tmp_path / "out")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        found = exported(torch.tensor(TOKENS[None])).logits[0].numpy()
    expected = logits(leaves, swapped=swapped, **VERSIONS[name][1])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_a_gemma_that_reads_images_is_refused_by_the_names_that_do_not_fit(tiny, tmp_path):
    leaves = drawn("gemma3_text", 1, swapped=True) | {"embedder/mm_input_projection/w": np.zeros((4, HIDDEN))}
    leaves["layer_1/mlp/linear"] = leaves["layer_1/mlp/linear"][1:]
    del leaves["layer_0/post_ffw_norm/scale"]
    write(tmp_path / "theirs", "gemma3_text", 1, FORMS["flat"](leaves), tiny)
    with pytest.raises(WsrError) as caught:
        wsr.load(tmp_path / "theirs")
    for told in (
        "another layout than those known of gemma3_text (our own names, Google DeepMind's gemma)",
        "for the nearest, Google DeepMind's gemma: missing layer_0/post_ffw_norm/scale",
        "unexpected embedder/mm_input_projection/w",
        "shape of layer_1/mlp/linear is (19, 24), expected (20, 24)",
    ):
        assert told in str(caught.value)
