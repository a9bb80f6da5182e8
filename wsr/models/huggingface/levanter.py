"""levanter's layout of GPT-2 and Llama.

Sources: ``models/gpt2.py``, ``models/llama.py`` and ``layers/attention.py`` of levanter, ``nn/linear.py`` and
``nn/scan.py`` of haliax. Names and the order of elements are those of PyTorch. Matrices of attention have axes for
heads and their width, and all layers are stacked along axis 0 unless ``scan_layers`` is off.
"""

import re

import jax
import numpy as np

from wsr.geometry.trees import flatten
from wsr.models.huggingface.tree_parts import Layout, Part, full_name
from wsr.models.huggingface.weights import their_tensors
from wsr.models.model import Model

LEVANTER_MODELS = ("gpt2", "llama")
_OUTSIDE = {
    "wte": "embeddings/token_embeddings",
    "wpe": "embeddings/position_embeddings",
    "ln_f": "transformer/ln_f",
    "embed_tokens": "embeddings/token_embeddings",
    "norm": "transformer/norm",
    "lm_head": "lm_head",
}
"""levanter's names of the modules of PyTorch outside the layers."""


def levanter(model: Model, *, stacked: bool) -> Layout:
    """Returns levanter's layout of a GPT-2, or of a Llama without biases.

    Args:
      model: the decoder.
      stacked: whether all layers are stacked, as with ``scan_layers=true``.
    """
    shapes = flatten(jax.eval_shape(model.init, jax.random.key(0)))
    found: dict[str, Part] = {}
    for theirs, ours, layout in their_tensors(model):
        whole = layout.back(np.broadcast_to(np.float32(0), shapes[ours].shape)).shape
        tensor, (module, _, leaf) = full_name(model, theirs), theirs.rpartition(".")
        layer = re.fullmatch(r"(?:h|layers)\.(\d+)\.(.+)", module)

        def reshaped(array: np.ndarray, whole: tuple[int, ...] = whole) -> np.ndarray:
            return array.reshape(whole)

        if layer is None:
            found[f"{_OUTSIDE[module]}/{leaf}"] = Part(whole, (tensor,), reshaped)
            continue
        layers = "transformer/" + ("blocks" if model.name == "gpt2" else "layers")
        at = f"{layers}/stacked" if stacked else f"{layers}/blocks/{layer[1]}"
        path = f"{at}/{layer[2].replace('.', '/')}/{leaf}"
        before = found[path].tensors if path in found else ()
        shape = _split(model, layer[2], leaf) or whole
        found[path] = Part(shape, (*before, tensor), reshaped, 0 if stacked else None)
    return found


def _split(model: Model, module: str, leaf: str) -> tuple[int, ...] | None:
    """Returns the shape of a leaf of attention with axes for heads and their width; None for other leaves."""
    config = model.config
    if model.name == "gpt2":
        hidden, heads = config["n_embd"], config["n_head"]
        width = hidden // heads
        if module == "attn.c_attn":
            return (hidden, 3, heads, width) if leaf == "weight" else (3, heads, width)
        return (heads, width, hidden) if (module, leaf) == ("attn.c_proj", "weight") else None
    hidden, heads, width = config["hidden_size"], config["num_attention_heads"], config["head_dim"]
    key_heads = config["num_key_value_heads"]
    return {
        "self_attn.q_proj": (key_heads, heads // key_heads, width, hidden),
        "self_attn.k_proj": (key_heads, width, hidden),
        "self_attn.v_proj": (key_heads, width, hidden),
        "self_attn.o_proj": (hidden, heads, width),
    }.get(module)
