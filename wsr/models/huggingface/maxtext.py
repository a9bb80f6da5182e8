"""MaxText's layout of Llama and Qwen3, as its public code has it.

Sources: ``utils/ckpt_conversion/utils/param_mapping.py``, ``max_utils.py`` and ``layers/embeddings.py`` of MaxText.
Kernels of queries, keys, values and outputs have axes for heads and their width. Scanned layers are stacked along axis
1. Llama's query kernels are divided by the square root of the width of a head. Under the rotary scaling of Llama 3.1
the two features that rotate together lie side by side; otherwise, as in transformers, they are half a head apart.
"""

import re
from collections.abc import Callable

import jax
import numpy as np

from wsr.geometry.trees import flatten
from wsr.models.huggingface.tree_parts import Layout, Part, full_name
from wsr.models.huggingface.weights import their_tensors
from wsr.models.model import Model

_OUTSIDE = {"token": "token_embedder", "norm": "decoder/decoder_norm", "head": "decoder/logits_dense"}
_INSIDE = {
    "attention_norm": "pre_self_attention_layer_norm",
    "feed_forward_norm": "post_self_attention_layer_norm",
    **{f"attention/{part}": f"self_attention/{part}" for part in ("query", "key", "value")},
    **{f"attention/{part}_norm": f"self_attention/{part}_norm" for part in ("query", "key")},
    "attention/output": "self_attention/out",
    "feed_forward/gate": "mlp/wi_0",
    "feed_forward/up": "mlp/wi_1",
    "feed_forward/down": "mlp/wo",
}
"""MaxText's names of our modules: outside the layers, and inside one."""


def maxtext(model: Model, *, scanned: bool) -> Layout:
    """Returns MaxText's layout of a Llama or Qwen3 without biases.

    Args:
      model: the decoder.
      scanned: whether all layers are stacked, as with ``scan_layers=true``.
    """
    shapes = flatten(jax.eval_shape(model.init, jax.random.key(0)))
    found: dict[str, Part] = {}
    for theirs, ours, layout in their_tensors(model):
        module, _, leaf = ours.rpartition("/")
        shape, into = _attention(model, module.rpartition("/")[2], shapes[ours].shape) or (
            shapes[ours].shape,
            layout.back,
        )
        tensor = full_name(model, theirs)
        layer = re.fullmatch(r"layers/(\d+)/(.+)", module)
        if layer is None:
            found[f"{_OUTSIDE[module]}/{leaf}"] = Part(shape, (tensor,), into)
            continue
        place = f"decoder/layers{'' if scanned else '_' + layer[1]}/{_INSIDE[layer[2]]}/{leaf}"
        before = found[place].tensors if place in found else ()
        found[place] = Part(shape, (*before, tensor), into, 1 if scanned else None)
    return found


def _attention(
    model: Model, name: str, shape: tuple[int, ...]
) -> tuple[tuple[int, ...], Callable[[np.ndarray], np.ndarray]] | None:
    """Returns the shape of a kernel of attention and how to make a matrix of PyTorch of it; None for other layers."""
    width = model.config["head_dim"]
    interleaved = model.config["rope_parameters"]["rope_type"] == "llama3" and name in ("query", "key")
    scale = np.float32(width**0.5) if model.name == "llama" and name == "query" else None

    def heads_out(leaf: np.ndarray) -> np.ndarray:
        if interleaved:
            leaf = np.concatenate([leaf[..., ::2], leaf[..., 1::2]], axis=-1)
        if scale is not None:
            leaf = leaf.astype(np.float32) * scale
        return leaf.reshape(len(leaf), -1).T

    def heads_in(leaf: np.ndarray) -> np.ndarray:
        return leaf.reshape(-1, leaf.shape[-1]).T

    if name in ("query", "key", "value"):
        return (shape[0], shape[1] // width, width), heads_out
    return ((shape[0] // width, width, shape[1]), heads_in) if name == "output" else None
