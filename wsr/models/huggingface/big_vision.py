"""big_vision's layout of a ViT with a class token (``models/vit.py`` of big_vision, pooled by ``tok``).

Kernels of attention have axes for heads and their width. Positions are added before the class token comes in, so the
token has none; files of its predecessors (vision_transformer, AugReg) have one, and other numbers in module names.
big_vision computes with the tanh approximation of GELU and an epsilon of 1e-6: a config.json with ``"hidden_act":
"gelu_pytorch_tanh"`` and ``"layer_norm_eps": 1e-6`` gives its hidden states.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from wsr.models.huggingface.tree_parts import Layout, Leaves, Part

_OLD_NAMES = (
    (r"^Transformer/(posembed_input/)?pos_embedding$", "pos_embedding"),
    (r"/MultiHeadDotProductAttention_1/", "/MultiHeadDotProductAttention_0/"),
    (r"(?<=encoderblock_)(\d+)/LayerNorm_2/", r"\1/LayerNorm_1/"),
    (r"/MlpBlock_3/", "/MlpBlock_0/"),
)
"""Names of big_vision's predecessors."""


def renamed(leaves: Leaves) -> Leaves:
    """Returns the leaves of a file under the names of today's big_vision."""
    found = {}
    for path, leaf in leaves.items():
        for pattern, replacement in _OLD_NAMES:
            path = re.sub(pattern, replacement, path)
        found[path] = leaf
    return found


def head_of(leaves: Leaves) -> tuple[Leaves, dict[str, np.ndarray]]:
    """Returns the leaves of the encoder, and the tensors of its head by their names in PyTorch."""
    names = {"head": "classifier", "pre_logits": "pooler.dense"}
    inside, head = {}, {}
    for path, leaf in leaves.items():
        module, _, last = path.rpartition("/")
        if module in names and (last, leaf.ndim) in (("kernel", 2), ("bias", 1)):
            head[f"{names[module]}.{'weight' if last == 'kernel' else last}"] = leaf.T
        else:
            inside[path] = leaf
    return inside, head


def big_vision(config: Mapping[str, Any], *, class_positions: int) -> Layout:
    """Returns big_vision's layout of a ViT with a class token.

    Args:
      config: of the ViT.
      class_positions: 1 if the class token has a position of its own, else 0.
    """
    hidden, wide, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    side, per_head = config["patch_size"], hidden // heads
    patches = (config["image_size"] // side) ** 2

    def transposed(leaf: np.ndarray) -> np.ndarray:
        return leaf.T

    def same(leaf: np.ndarray) -> np.ndarray:
        return leaf

    def positions(leaf: np.ndarray) -> np.ndarray:
        return leaf if class_positions else np.pad(leaf, ((0, 0), (1, 0), (0, 0)))

    found: dict[str, Part] = {}

    def dense(path: str, name: str, inputs: int, outputs: int) -> None:
        found[f"{path}/kernel"] = Part((inputs, outputs), (f"{name}.weight",), transposed)
        found[f"{path}/bias"] = Part((outputs,), (f"{name}.bias",), same)

    def norm(path: str, name: str) -> None:
        found[f"{path}/scale"] = Part((hidden,), (f"{name}.weight",), same)
        found[f"{path}/bias"] = Part((hidden,), (f"{name}.bias",), same)

    found["cls"] = Part((1, 1, hidden), ("embeddings.cls_token",), same)
    shape = (1, patches + class_positions, hidden)
    found["pos_embedding"] = Part(shape, ("embeddings.position_embeddings",), positions)
    name = "embeddings.patch_embeddings.projection"
    convolution = (side, side, config["num_channels"], hidden)
    found["embedding/kernel"] = Part(convolution, (f"{name}.weight",), lambda leaf: leaf.transpose(3, 2, 0, 1))
    found["embedding/bias"] = Part((hidden,), (f"{name}.bias",), same)
    for layer in range(config["num_hidden_layers"]):
        path, name = f"Transformer/encoderblock_{layer}", f"encoder.layer.{layer}"
        norm(f"{path}/LayerNorm_0", f"{name}.layernorm_before")
        attention = f"{path}/MultiHeadDotProductAttention_0"
        for part in ("query", "key", "value"):
            module = f"{name}.attention.attention.{part}"
            kernel = Part((hidden, heads, per_head), (f"{module}.weight",), lambda leaf: leaf.reshape(len(leaf), -1).T)
            found[f"{attention}/{part}/kernel"] = kernel
            if config["qkv_bias"]:
                bias = Part((heads, per_head), (f"{module}.bias",), lambda leaf: leaf.reshape(-1))
                found[f"{attention}/{part}/bias"] = bias
        module = f"{name}.attention.output.dense"
        kernel = Part((heads, per_head, hidden), (f"{module}.weight",), lambda leaf: leaf.reshape(-1, leaf.shape[-1]).T)
        found[f"{attention}/out/kernel"] = kernel
        found[f"{attention}/out/bias"] = Part((hidden,), (f"{module}.bias",), same)
        norm(f"{path}/LayerNorm_1", f"{name}.layernorm_after")
        dense(f"{path}/MlpBlock_0/Dense_0", f"{name}.intermediate.dense", hidden, wide)
        dense(f"{path}/MlpBlock_0/Dense_1", f"{name}.output.dense", wide, hidden)
    norm("Transformer/encoder_norm", "layernorm")
    return found
