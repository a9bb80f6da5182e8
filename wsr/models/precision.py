"""The precision of an encoder: which of its parameters are rounded to bfloat16.

A layer multiplies in the precision of its own kernel and sums in float32 (``wsr.models.layers.dense.product``), so the
parameters alone decide. On accelerators all parameters are rounded, and hidden states take half the bytes. A CPU has
matrix products in bfloat16 and nothing else, so there only the kernels are rounded, and hidden states stay in float32.
"""

from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import jax
from jaxtyping import Array, Float

from wsr.models.model import Model
from wsr.types import AnyArray, Batch, Params

Precision = Literal["float32", "bfloat16"]
_CPU = Path("/proc/cpuinfo")


def rounded(params: Params, precision: Precision, platform: str) -> Params:
    """Returns the parameters with which an encoder computes in ``precision``.

    Args:
      params: parameters in float32, of one point or of several.
      precision: ``"float32"`` or ``"bfloat16"``.
      platform: where the encoder runs: ``"cpu"``, ``"gpu"`` or ``"tpu"``.
    """
    if precision == "float32":
        return params

    def leaf(path: jax.tree_util.KeyPath, array: AnyArray) -> AnyArray:
        return array.astype(precision) if platform != "cpu" or path[-1].key == "kernel" else array

    return jax.tree_util.tree_map_with_path(leaf, params)


def quickest() -> Precision:
    """Returns the precision in which a CPU multiplies fastest: bfloat16 if it has instructions for it, else float32.

    Where another device computes it returns float32, because nothing has been measured there.
    """
    if jax.default_backend() != "cpu":
        return "float32"
    found = _CPU.read_text(encoding="utf-8") if _CPU.exists() else ""
    has = {"avx512_bf16", "amx_bf16"} & set(found.split())
    return "bfloat16" if has else "float32"


@lru_cache(maxsize=8)
def computing_in(model: Model, precision: Precision, platform: str) -> Model:
    """Returns a model that takes parameters in float32 and computes in ``precision``; its gradients are float32.

    Args:
      model: the architecture.
      precision: ``"float32"`` or ``"bfloat16"``.
      platform: where the model runs: ``"cpu"``, ``"gpu"`` or ``"tpu"``.
    """
    if precision == "float32":
        return model
    within = partial(rounded, precision=precision, platform=platform)

    def encode(params: Params, batch: Batch, dropout_key: Array | None = None) -> Float[Array, "batch hidden"]:
        return model.encode(within(params), batch, dropout_key=dropout_key)

    return replace(model, encode=encode)


def meaning(precision: Precision, platform: str) -> str:
    """Returns what ``precision`` means on a platform, for the keys of kept results; empty for float32 on a CPU.

    Two results whose meanings differ are not comparable digit by digit. Accelerators multiply float32 in a lower
    precision by default: TPUs in one pass of bfloat16, recent NVIDIA GPUs in TF32.

    Args:
      precision: ``"float32"`` or ``"bfloat16"``.
      platform: where the encoder runs.
    """
    if precision == "bfloat16":
        what = "kernels" if platform == "cpu" else "all parameters"
        return f"products of bfloat16 {what}, summed in float32"
    return "" if platform == "cpu" else f"float32 as the {platform} multiplies it by default"
