"""Trees of other JAX programs: MaxText's and plain ones in Orbax checkpoints, big_vision's in archives of NumPy.

The oracles are programs written here as MaxText and big_vision compute, in NumPy and with flax's own layers.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import linen, traverse_util
from incoming_folders import near, write
from orbax.checkpoint import v1
from safetensors.numpy import load_file

import wsr
from wsr import models
from wsr.cli import main
from wsr.data.image_processor import ImageProcessor
from wsr.errors import WsrError
from wsr.geometry.trees import flatten

HEADS, KEY_HEADS, WIDTH, HIDDEN, WIDE, LAYERS, WORDS = 4, 2, 6, 24, 32, 2, 112
DECODER = {
    "initializer_range": 0.2,
    "vocab_size": WORDS,
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KEY_HEADS,
    "head_dim": WIDTH,
    "intermediate_size": WIDE,
    "max_position_embeddings": 64,
}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 100.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 2.0}
LLAMA3 |= {"original_max_position_embeddings": 16}
DEFAULT = {"rope_type": "default", "rope_theta": 100.0}
CASES = {
    "llama": ("llama", {"rope_parameters": DEFAULT}),
    "llama 3.1": ("llama", {"rope_parameters": LLAMA3}),
    "tied llama": ("llama", {"rope_parameters": DEFAULT, "tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"rope_parameters": DEFAULT, "tie_word_embeddings": False}),
}


# MaxText


def maxtext_params(name, tied, seed=0):
    """Random parameters as MaxText has them, unscanned."""
    random = np.random.default_rng(seed)

    def draw(*shape):
        return (0.3 * random.standard_normal(shape)).astype(np.float32)

    layer = {
        "pre_self_attention_layer_norm": {"scale": 1 + draw(HIDDEN)},
        "post_self_attention_layer_norm": {"scale": 1 + draw(HIDDEN)},
        "self_attention": {
            "query": {"kernel": lambda: draw(HIDDEN, HEADS, WIDTH)},
            "key": {"kernel": lambda: draw(HIDDEN, KEY_HEADS, WIDTH)},
            "value": {"kernel": lambda: draw(HIDDEN, KEY_HEADS, WIDTH)},
            "out": {"kernel": lambda: draw(HEADS, WIDTH, HIDDEN)},
        },
        "mlp": {
            "wi_0": {"kernel": lambda: draw(HIDDEN, WIDE)},
            "wi_1": {"kernel": lambda: draw(HIDDEN, WIDE)},
            "wo": {"kernel": lambda: draw(WIDE, HIDDEN)},
        },
    }
    if name == "qwen3":
        layer["self_attention"] |= {part: {"scale": 1 + draw(WIDTH)} for part in ("query_norm", "key_norm")}

    def drawn(node):
        return jax.tree.map(lambda leaf: leaf() if callable(leaf) else leaf + draw(*leaf.shape) / 10, node)

    decoder = {f"layers_{number}": drawn(layer) for number in range(LAYERS)}
    decoder |= {"decoder_norm": {"scale": 1 + draw(HIDDEN)}}
    if not tied:
        decoder["logits_dense"] = {"kernel": draw(HIDDEN, WORDS)}
    return {"token_embedder": {"embedding": draw(WORDS, HIDDEN)}, "decoder": decoder}


def scanned(params):
    """The same parameters with all layers stacked along axis 1."""
    decoder = {name: own for name, own in params["decoder"].items() if not name.startswith("layers_")}
    layers = [params["decoder"][f"layers_{number}"] for number in range(LAYERS)]
    decoder["layers"] = jax.tree.map(lambda *own: np.stack(own, axis=1), *layers)
    return {**params, "decoder": decoder}


def maxtext_logits(params, name, tokens, turns, side_by_side):
    """Logits as MaxText computes them: no scale of scores, its own places of the rotated pairs (``turns``, angles)."""

    def normed(hidden, scale):
        return hidden / np.sqrt((hidden**2).mean(-1, keepdims=True) + 1e-6) * scale

    def rotated(states):
        cos, sin = np.cos(turns)[:, None], np.sin(turns)[:, None]
        if side_by_side:
            one, two = states[..., ::2], states[..., 1::2]
            return np.stack([one * cos - two * sin, two * cos + one * sin], axis=-1).reshape(states.shape)
        one, two = np.split(states, 2, axis=-1)
        return np.concatenate([one * cos - two * sin, two * cos + one * sin], axis=-1)

    decoder = params["decoder"]
    hidden = params["token_embedder"]["embedding"][tokens].astype(np.float64)
    for number in range(LAYERS):
        layer = decoder[f"layers_{number}"]
        inner, attention = normed(hidden, layer["pre_self_attention_layer_norm"]["scale"]), layer["self_attention"]
        query, key, value = (
            np.einsum("se,ehd->shd", inner, attention[part]["kernel"]) for part in ("query", "key", "value")
        )
        if name == "qwen3":  # whose queries are scaled after their norm
            query = normed(query, attention["query_norm"]["scale"]) / WIDTH**0.5
            key = normed(key, attention["key_norm"]["scale"])
        key, value = (np.repeat(part, HEADS // KEY_HEADS, axis=1) for part in (rotated(key), value))
        scores = np.einsum("qhd,khd->hqk", rotated(query), key)
        scores = np.where(np.tril(np.ones((len(tokens), len(tokens)), bool)), scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = np.einsum("hqk,khd->qhd", weights / weights.sum(-1, keepdims=True), value)
        hidden = hidden + np.einsum("qhd,hde->qe", mixed, attention["out"]["kernel"])
        inner, mlp = normed(hidden, layer["post_self_attention_layer_norm"]["scale"]), layer["mlp"]
        gate = inner @ mlp["wi_0"]["kernel"]
        hidden = hidden + (gate / (1 + np.exp(-gate)) * (inner @ mlp["wi_1"]["kernel"])) @ mlp["wo"]["kernel"]
    hidden = normed(hidden, decoder["decoder_norm"]["scale"])
    head = decoder["logits_dense"]["kernel"] if "logits_dense" in decoder else params["token_embedder"]["embedding"].T
    return hidden @ head


def angles(rope, length):
    """Angles of the pairs at each position, as MaxText has them: Llama 3.1 has the scaling of its authors' code."""
    each = rope["rope_theta"] ** (-np.arange(0, WIDTH, 2) / WIDTH)
    if rope["rope_type"] == "llama3":
        old, low, high = rope["original_max_position_embeddings"], rope["low_freq_factor"], rope["high_freq_factor"]
        slow, turns = [], 2 * np.pi / each
        for angle, wave in zip(each, turns, strict=True):
            smooth = (old / wave - low) / (high - low)
            between = (1 - smooth) * angle / rope["factor"] + smooth * angle
            slow.append(angle if wave < old / high else angle / rope["factor"] if wave > old / low else between)
        each = np.array(slow)
    return np.arange(length)[:, None] * each[None]


def write_config(folder, name, changes, tiny):
    from transformers import AutoConfig

    AutoConfig.for_model(name, **{**DECODER, **changes}).save_pretrained(folder)
    tiny.processor.save_pretrained(folder)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch, the oracle of the parity tests, is not installed")


@pytest.mark.torch
@pytest.mark.parametrize(
    ("case", "stacked"),
    [
        ("llama", True),
        ("llama 3.1", False),
        ("llama 3.1", True),
        ("tied llama", False),
        ("qwen3", False),
        ("qwen3", True),
    ],
)
def test_a_maxtext_tree_computes_in_transformers_what_it_does_in_maxtext(torch, tiny, tmp_path, case, stacked):
    from transformers import AutoModelForCausalLM

    name, changes = CASES[case]
    params = maxtext_params(name, changes.get("tie_word_embeddings", False))
    write_config(tmp_path / "maxtext", name, changes, tiny)
    tree = {"params": {"params": scanned(params) if stacked else params}, "opt_state": {}, "step": np.int32(3)}
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as writer:
        writer.save(tmp_path / "maxtext" / "0" / "items", args=ocp.args.PyTreeSave(tree))
    read = models.load(str(tmp_path / "maxtext"))
    models.export(read, tmp_path / "out")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    tokens = np.array([5, 17, 40, 33, 8, 21, 9, 3, 71])
    with torch.no_grad():
        found = theirs(torch.tensor(tokens[None])).logits[0].numpy()
    rope = changes["rope_parameters"]
    turns = angles(rope, len(tokens))
    expected = maxtext_logits(params, name, tokens, turns, side_by_side=rope["rope_type"] == "llama3")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    other = maxtext_logits(params, name, tokens, turns, side_by_side=rope["rope_type"] != "llama3")
    assert np.abs(other - expected).max() > 1e-2


# Plain trees, and how Orbax writes


@pytest.mark.parametrize("writer", ["OCDBT", "files", "version 1"])
def test_a_plain_tree_of_our_names_is_read_from_every_form_of_orbax(tiny, tmp_path, writer):
    folder = write(tiny, tmp_path / "plain", 1)
    (folder / "model.safetensors").unlink()
    tree = jax.tree.map(np.asarray, near(tiny.params, 1))
    if writer == "version 1":
        v1.save(folder / "weights", tree)
    else:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=writer == "OCDBT")) as saver:
            saver.save(folder / "weights", args=ocp.args.PyTreeSave({"params": tree, "step": np.int32(1)}))
    found = flatten(wsr.load(folder).params)
    assert found.keys() == flatten(tree).keys()
    for path, leaf in flatten(tree).items():
        np.testing.assert_array_equal(found[path], leaf, err_msg=path)


@pytest.mark.long
def test_a_tree_of_eight_devices_is_read_on_one_and_imported_exported_and_merged(tiny, tmp_path):
    folder = write(tiny, tmp_path / "eight", 1)
    expected = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    np.savez(tmp_path / "leaves.npz", **{path: np.asarray(own) for path, own in flatten(near(tiny.params, 1)).items()})
    script = Path(__file__).with_name("orbax_on_eight.py")
    place = folder / "checkpoints"
    subprocess.run([sys.executable, script, tmp_path / "leaves.npz", place], check=True, capture_output=True)
    assert "_sharding" in {file.name for file in (place / "7" / "items").iterdir()}
    assert main(["import", str(folder), f"--store={tmp_path / 'store'}", "--base=tiny", "--dataset=a"]) == 0
    assert main(["export", "eight", f"--store={tmp_path / 'store'}", f"--to={tmp_path / 'out'}"]) == 0
    exported = load_file(tmp_path / "out" / "model.safetensors")
    for name, own in expected.items():
        np.testing.assert_array_equal(exported[name], own, err_msg=name)
    write(tiny, tmp_path / "other", 2)
    merged = [{"model": str(own), "parameters": {"weight": 1}} for own in (folder, tmp_path / "other")]
    (tmp_path / "recipe.yaml").write_text(json.dumps({"merge_method": "linear", "models": merged}))
    assert main(["merge", f"--recipe={tmp_path / 'recipe.yaml'}", f"--to={tmp_path / 'merged'}"]) == 0
    other, merged = (load_file(tmp_path / name / "model.safetensors") for name in ("other", "merged"))
    for name, own in expected.items():
        np.testing.assert_allclose(merged[name], (own + other[name]) / 2, atol=1e-6, err_msg=name)
    # A chunk of an array may not be another file of this machine.
    chunk = next((place / "7" / "items" / "d").iterdir())
    chunk.rename(tmp_path / "elsewhere")
    chunk.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WsrError, match="links out of the folder are not followed: checkpoints/7/items/d/"):
        wsr.load(folder)
    # One of several steps has to be chosen.
    shutil.copytree(place / "7", place / "8")
    with pytest.raises(WsrError, match=r"several trees of weights: checkpoints/7/items, checkpoints/8/items; keep one"):
        wsr.load(folder)


def test_unknown_layouts_are_refused_by_the_names_that_do_not_fit(tiny, tmp_path):
    params = maxtext_params("llama", tied=False)
    write_config(tmp_path / "gemma", "llama", {"rope_parameters": DEFAULT}, tiny)
    layer = params["decoder"]["layers_0"]
    layer["pre_ffw_norm"] = layer.pop("post_self_attention_layer_norm")
    layer["mlp"]["wo"]["kernel"] = layer["mlp"]["wo"]["kernel"][1:]
    v1.save(tmp_path / "gemma" / "weights", params)
    with pytest.raises(WsrError) as caught:
        wsr.load(tmp_path / "gemma")
    for told in (
        "another layout than those known of llama (our own names, MaxText, unscanned, MaxText, scanned, "
        "levanter, stacked, levanter, layer by layer)",
        "for the nearest, MaxText, unscanned: missing decoder/layers_0/post_self_attention_layer_norm/scale",
        "unexpected decoder/layers_0/pre_ffw_norm/scale",
        "shape of decoder/layers_0/mlp/wo/kernel is (31, 24), expected (32, 24)",
    ):
        assert told in str(caught.value)
    (tmp_path / "gemma" / "weights" / "state" / "manifest.ocdbt").write_bytes(b"no manifest")
    with pytest.raises(WsrError, match="not readable as an Orbax tree") as caught:
        wsr.load(tmp_path / "gemma")
    assert "\n" not in str(caught.value)


# big_vision


class Block(linen.Module):
    """A layer of big_vision's ViT."""

    wide: int
    heads: int

    @linen.compact
    def __call__(self, hidden):
        inner = linen.LayerNorm(name="LayerNorm_0")(hidden)
        name = "MultiHeadDotProductAttention_0"
        hidden = hidden + linen.MultiHeadDotProductAttention(num_heads=self.heads, name=name)(inner, inner)
        inner = linen.LayerNorm(name="LayerNorm_1")(hidden)
        return hidden + Mlp(self.wide, name="MlpBlock_0")(inner)


class Mlp(linen.Module):
    """Its feed-forward network."""

    wide: int

    @linen.compact
    def __call__(self, hidden):
        wide = linen.gelu(linen.Dense(self.wide, name="Dense_0")(hidden))
        return linen.Dense(hidden.shape[-1], name="Dense_1")(wide)


class Layers(linen.Module):
    """Its layers and the norm after them."""

    depth: int
    wide: int
    heads: int

    @linen.compact
    def __call__(self, hidden):
        for number in range(self.depth):
            hidden = Block(self.wide, self.heads, name=f"encoderblock_{number}")(hidden)
        return linen.LayerNorm(name="encoder_norm")(hidden)


class BigVision(linen.Module):
    """A ViT pooled by its class token, with big_vision's names: positions come before the token."""

    @linen.compact
    def __call__(self, images):
        patches = linen.Conv(16, (4, 4), strides=(4, 4), padding="VALID", name="embedding")(images)
        hidden = patches.reshape(len(images), -1, 16)
        hidden = hidden + self.param("pos_embedding", linen.initializers.normal(0.5), (1, 9, 16))
        token = self.param("cls", linen.initializers.normal(0.5), (1, 1, 16))
        hidden = jnp.concatenate([jnp.tile(token, (len(images), 1, 1)), hidden], axis=1)
        hidden = Layers(2, 32, 4, name="Transformer")(hidden)
        return linen.Dense(3, name="head")(hidden[:, 0]), hidden


@pytest.fixture(scope="module")
def big_vision():
    """Random parameters, images, and the logits and hidden states of the images."""
    images = np.random.default_rng(0).standard_normal((2, 12, 12, 3)).astype(np.float32)
    params = BigVision().init(jax.random.key(0), images)["params"]
    random = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: leaf + 0.2 * random.standard_normal(leaf.shape).astype(np.float32), params)
    logits, states = BigVision().apply({"params": params}, images)
    flat = {"/".join(path): np.asarray(leaf) for path, leaf in traverse_util.flatten_dict(params).items()}
    return flat, images, np.asarray(logits), np.asarray(states)


def write_vit(folder):
    from transformers import ViTConfig

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
    labels = {"id2label": {0: "x", 1: "y", 2: "z"}, "architectures": ["ViTForImageClassification"]}
    config = ViTConfig(
        **sizes, image_size=12, patch_size=4, hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6, **labels
    )
    config.save_pretrained(folder)
    ImageProcessor(12, (0.5,) * 3, (0.5,) * 3).save_pretrained(folder)


def old_names(flat):
    """The same file with the names and the positions of big_vision's predecessors."""
    found = {}
    for path, leaf in flat.items():
        path = path.replace("MultiHeadDotProductAttention_0", "MultiHeadDotProductAttention_1")
        path = path.replace("MlpBlock_0", "MlpBlock_3").replace("LayerNorm_1", "LayerNorm_2")
        found[path.replace("pos_embedding", "Transformer/posembed_input/pos_embedding")] = leaf
    place = "Transformer/posembed_input/pos_embedding"
    found[place] = np.concatenate([0.25 * np.ones((1, 1, 16), np.float32), found[place]], axis=1)
    found["cls"] = found["cls"] - 0.25
    return found


@pytest.mark.torch
@pytest.mark.parametrize("form", ["today's", "predecessor's", "training state"])
def test_an_archive_of_big_vision_has_its_hidden_states(torch, big_vision, tmp_path, form):
    from transformers import ViTModel

    flat, images, _, states = big_vision
    write_vit(tmp_path / "vit")
    leaves = {"today's": flat, "predecessor's": old_names(flat)}.get(form) or {
        **{f"params/{path}": leaf for path, leaf in flat.items()},
        "opt/0/count": np.int32(7),
    }
    np.savez(tmp_path / "vit" / "vit_b16.npz", **leaves)
    read = models.load(str(tmp_path / "vit"))
    found = read.model.encode(read.params, {"pixel_values": images})
    np.testing.assert_allclose(found, states[:, 0], rtol=0, atol=1e-4)
    models.export(read, tmp_path / "out")
    theirs = ViTModel.from_pretrained(tmp_path / "out", add_pooling_layer=False).eval()
    with torch.no_grad():
        again = theirs(torch.tensor(images.transpose(0, 3, 1, 2))).last_hidden_state.numpy()
    np.testing.assert_allclose(again, states, rtol=0, atol=1e-4)


@pytest.mark.torch
def test_a_member_of_big_vision_keeps_its_classifier(torch, big_vision, tmp_path):
    from transformers import ViTForImageClassification

    flat, images, logits, _ = big_vision
    write_vit(tmp_path / "base")
    base = {path: leaf.astype("bfloat16").astype(np.float32) for path, leaf in flat.items() if "head" not in path}
    np.savez(tmp_path / "base" / "model.npz", **base)
    write_vit(tmp_path / "member")
    np.savez(tmp_path / "member" / "model.npz", **flat)
    command = ["import", str(tmp_path / "member"), f"--base={tmp_path / 'base'}", "--dataset=a"]
    assert main([*command, f"--store={tmp_path / 'store'}"]) == 0
    store = f"--store={tmp_path / 'store'}"
    assert main(["export", "member", "--head", store, f"--to={tmp_path / 'out'}"]) == 0
    theirs = ViTForImageClassification.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        found = theirs(torch.tensor(images.transpose(0, 3, 1, 2))).logits.numpy()
    np.testing.assert_allclose(found, logits, rtol=0, atol=1e-4)


def test_archives_of_other_models_and_pickles_are_refused(big_vision, tmp_path):
    flat, *_ = big_vision
    write_vit(tmp_path / "vit")
    pooled = {path: leaf for path, leaf in flat.items() if path != "cls"}
    np.savez(tmp_path / "vit" / "model.npz", **pooled, **{"MAPHead_0/probe": np.ones((1, 1, 16), np.float32)})
    with pytest.raises(WsrError, match=r"nearest, big_vision: missing cls; unexpected MAPHead_0/probe"):
        models.load(str(tmp_path / "vit"))
    np.savez(tmp_path / "vit" / "model.npz", cls=np.array([{"a": 1}], dtype=object))
    with pytest.raises(WsrError, match=r"model\.npz: not readable as an archive of arrays: Object arrays"):
        models.load(str(tmp_path / "vit"))
    # Half precision, as NumPy writes it.
    half = {path: leaf.astype("bfloat16") for path, leaf in flat.items()}
    np.savez(tmp_path / "vit" / "model.npz", **half)
    found = models.load(str(tmp_path / "vit")).params["class_token"]["embedding"]
    np.testing.assert_array_equal(np.asarray(found), half["cls"][0].astype(np.float32))
