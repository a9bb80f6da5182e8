"""The layout of Gemma 1 to 3 in Google DeepMind's library ``gemma``.

Sources: ``gm/nn/_modules.py``, ``gm/nn/_layers.py`` and ``gm/ckpts/_compat.py`` of that library. Kernels of attention
have axes for heads and their width. Queries, keys and values lie in one leaf if each query head has a key head of its
own; otherwise keys and values do. Gate and up lie in one leaf, [2, hidden, wide], in newer models [2, wide, hidden].
Released files lay the tree flat (``transformer/layer_0/attn/q_einsum``), and some stack the layers of each place in the
pattern of local and global layers.
"""

import re
from collections.abc import Callable

import jax
import numpy as np

from wsr.geometry.trees import flatten
from wsr.models.huggingface.tree_parts import Layout, Leaves, Part, full_name
from wsr.models.huggingface.weights import their_tensors
from wsr.models.model import Model

GEMMAS = ("gemma", "gemma2", "gemma3_text")
_STACKED = re.compile(r"stacked_layers/attention_type_(\d+)/(.+)")
_NORMS = {
    "attention_norm": "pre_attention_norm",
    "attention_output_norm": "post_attention_norm",
    "feed_forward_norm": "pre_ffw_norm",
    "feed_forward_output_norm": "post_ffw_norm",
    "attention/query_norm": "attn/_query_norm",
    "attention/key_norm": "attn/_key_norm",
}
"""The library's names of our norms in a layer."""


def nested(leaves: Leaves) -> Leaves:
    """Returns the leaves of a released file under the names of the library's modules, layer by layer."""
    found: dict[str, np.ndarray] = {}
    places = [int(match[1]) for match in map(_STACKED.search, leaves) if match]
    pattern = max(places, default=0) + 1
    for path, leaf in leaves.items():
        path = re.sub(r"(mlp/(?:gating_einsum|linear))/w$", r"\1", path.removeprefix("transformer/"))
        match = _STACKED.fullmatch(path)
        if match is None:
            found[path] = leaf
            continue
        for number, own in enumerate(leaf):
            found[f"layer_{number * pattern + int(match[1])}/{match[2]}"] = own
    return found


def deepmind_gemma(model: Model, *, swapped: bool) -> Layout:
    """Returns the library's layout of a Gemma without biases and with a tied head.

    Args:
      model: the decoder.
      swapped: whether gate and up are [2, wide, hidden], as in models since Gemma 2 9B.
    """
    shapes = flatten(jax.eval_shape(model.init, jax.random.key(0)))
    found: dict[str, Part] = {}
    for theirs, ours, _ in their_tensors(model):
        path, shape, into, stacked = _place(model, ours.rpartition("/")[0], shapes[ours].shape, swapped)
        before = found[path].tensors if path in found else ()
        found[path] = Part(shape, (*before, full_name(model, theirs)), into, 0 if stacked else None)
    return found


def _place(
    model: Model, module: str, shape: tuple[int, ...], swapped: bool
) -> tuple[str, tuple[int, ...], Callable[[np.ndarray], np.ndarray], bool]:
    """Returns where a module's leaf lies, its shape there, what makes a tensor of PyTorch of it, and if it is stacked.

    Args:
      model: the decoder.
      module: our path of the module.
      shape: our shape of its leaf.
      swapped: see ``deepmind_gemma``.
    """
    layer = re.fullmatch(r"layers/(\d+)/(.+)", module)
    if layer is None:
        return {"token": "embedder/input_embedding", "norm": "final_norm/scale"}[module], shape, _same, False
    at, inside = f"layer_{layer[1]}", layer[2]
    if inside in _NORMS:
        return f"{at}/{_NORMS[inside]}/scale", shape, _same, False
    name = inside.rpartition("/")[2]
    if name in ("gate", "up"):
        return f"{at}/mlp/gating_einsum", shape[::-1] if swapped else shape, _same if swapped else _transposed, True
    if name == "down":
        return f"{at}/mlp/linear", shape, _transposed, False
    heads, key_heads = model.config["num_attention_heads"], model.config["num_key_value_heads"]
    if name == "output":
        return f"{at}/attn/attn_vec_einsum/w", (heads, shape[0] // heads, shape[1]), _heads_in, False
    own = heads if name == "query" else key_heads
    split = (own, shape[0], shape[1] // own)
    if heads == key_heads:
        return f"{at}/attn/qkv_einsum/w", split, _heads_out, True
    return f"{at}/attn/{'q' if name == 'query' else 'kv'}_einsum/w", split, _heads_out, name != "query"


def _same(leaf: np.ndarray) -> np.ndarray:
    return leaf


def _transposed(leaf: np.ndarray) -> np.ndarray:
    return leaf.T


def _heads_out(leaf: np.ndarray) -> np.ndarray:
    """[heads, hidden, width] to a matrix of PyTorch."""
    return leaf.transpose(0, 2, 1).reshape(-1, leaf.shape[1])


def _heads_in(leaf: np.ndarray) -> np.ndarray:
    """[heads, width, hidden] to a matrix of PyTorch."""
    return leaf.reshape(-1, leaf.shape[-1]).T
