"""LoRA (Hu et al. 2021): adds ``alpha / rank * a @ b`` to some matrices of a frozen encoder.

The factors are leaves beside the encoder's parameters. Each step adds their product to the matrix before the forward
pass, so that LoRA works for any architecture. Unlike the paper's code it cannot apply dropout to the inputs of a layer.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import numpy as np
from jaxtyping import Array, Float

from wsr.errors import WsrError
from wsr.geometry.linear_head import matmul
from wsr.geometry.low_rank import Factors, LowRank
from wsr.geometry.trees import flatten, nest
from wsr.models.model import Model
from wsr.runtime import seeds
from wsr.training.job import Job, Recipe
from wsr.types import AnyArray, Batch, Params

_BESIDE = "low_rank"
"""Key of the factors in the parameters of an ``adapted`` model: low_rank/<path of the leaf>/a and b."""


def initial_factors(job: Job, leaves: Mapping[str, AnyArray]) -> dict[str, np.ndarray]:
    """Returns a member's freshly initialised factors, by path.

    ``a [inputs, rank]`` is uniform within ``1 / sqrt(inputs)``, as in the paper's code (the paper says Gaussian), and
    drawn from the random stream (dataset, seed, "lora", leaf). ``b [rank, outputs]`` is 0, so a member starts at the
    base.

    Args:
      job: the member.
      leaves: the encoder's parameters, by path.

    Raises:
      WsrError: ``lora_targets`` matches no leaf, or one that is not a matrix or smaller than ``lora_rank``.
    """
    factors = {}
    for path in _targets(job.recipe, leaves):
        (inputs, outputs), rank = leaves[path].shape, job.recipe.lora_rank
        bound = 1 / np.sqrt(inputs)
        drawn = seeds.generator(job.seed, *job.stream, "lora", path).uniform(-bound, bound, (inputs, rank))
        factors[f"{_BESIDE}/{path}/a"] = drawn.astype(np.float32)
        factors[f"{_BESIDE}/{path}/b"] = np.zeros((rank, outputs), np.float32)
    return factors


@lru_cache(maxsize=4)
def adapted(model: Model, scale: float) -> Model:
    """Returns a model whose parameters also hold factors; it adds ``scale * a @ b`` to the matrices before encoding."""

    def encode(params: Params, batch: Batch, dropout_key: Array | None = None) -> Float[Array, "batch hidden"]:
        leaves = flatten({key: part for key, part in params.items() if key != _BESIDE})
        for path, factors in _by_leaf(flatten(params[_BESIDE])).items():
            # At full precision, because TPUs and recent GPUs would otherwise multiply in a lower one.
            product = matmul(factors.a, factors.b)
            leaves[path] = leaves[path] + scale * product
        return model.encode(nest(leaves), batch, dropout_key=dropout_key)

    return replace(model, encode=encode)


def trained_factors(recipe: Recipe, weights: Mapping[str, AnyArray]) -> LowRank:
    """Returns the task vector that a member's trained factors form, with the scale multiplied in."""
    prefix, scale = f"{_BESIDE}/", np.float32(recipe.lora_scale)
    found = _by_leaf({path.removeprefix(prefix): leaf for path, leaf in weights.items()})
    return {path: Factors(np.asarray(own.a), scale * np.asarray(own.b)) for path, own in found.items()}


def _by_leaf(flat: Mapping[str, AnyArray]) -> dict[str, Factors]:
    paths = sorted({path.rpartition("/")[0] for path in flat})
    return {path: Factors(flat[f"{path}/a"], flat[f"{path}/b"]) for path in paths}


def _targets(recipe: Recipe, leaves: Mapping[str, AnyArray]) -> list[str]:
    what = f"lora_targets={recipe.lora_targets!r}"
    try:
        chosen = [path for path in leaves if re.fullmatch(recipe.lora_targets, path)]
    except re.error as error:
        raise WsrError(f"{what} is not a valid regular expression: {error}") from error
    matrices = [path for path, leaf in leaves.items() if leaf.ndim == 2]
    if not chosen:
        raise WsrError(f"{what} matches no leaf; matrices are, for example, {', '.join(matrices[-6:])}")
    wrong = [
        f"{path} is {list(leaves[path].shape)}"
        for path in chosen
        if leaves[path].ndim != 2 or min(leaves[path].shape) < recipe.lora_rank
    ]
    if wrong:
        raise WsrError(
            f"{what}: expected matrices with both sides at least lora_rank = {recipe.lora_rank}, but {'; '.join(wrong)}"
        )
    return chosen
