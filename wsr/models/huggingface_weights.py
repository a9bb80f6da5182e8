"""The weight map between Hugging Face's BERT-like encoders and ours, read in both directions."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from wsr.errors import WsrError
from wsr.models.huggingface_config import MODEL_TYPES
from wsr.models.model import Model
from wsr.types import Params

# (Hugging Face module, our module, kind). {layer} runs over the layers.
_MODULES = (
    ("embeddings.word_embeddings", "embeddings/token", "embedding"),
    ("embeddings.position_embeddings", "embeddings/position", "embedding"),
    ("embeddings.token_type_embeddings", "embeddings/token_type", "embedding"),
    ("embeddings.LayerNorm", "embeddings/norm", "norm"),
    ("encoder.layer.{layer}.attention.self.query", "layers/{layer}/attention/query", "dense"),
    ("encoder.layer.{layer}.attention.self.key", "layers/{layer}/attention/key", "dense"),
    ("encoder.layer.{layer}.attention.self.value", "layers/{layer}/attention/value", "dense"),
    ("encoder.layer.{layer}.attention.output.dense", "layers/{layer}/attention/output", "dense"),
    ("encoder.layer.{layer}.attention.output.LayerNorm", "layers/{layer}/attention/norm", "norm"),
    ("encoder.layer.{layer}.intermediate.dense", "layers/{layer}/feed_forward/intermediate", "dense"),
    ("encoder.layer.{layer}.output.dense", "layers/{layer}/feed_forward/output", "dense"),
    ("encoder.layer.{layer}.output.LayerNorm", "layers/{layer}/feed_forward/norm", "norm"),
)

# kind -> (their leaf, our leaf, whether the matrix is transposed)
_LEAVES = {
    "embedding": (("weight", "embedding", False),),
    "norm": (("weight", "scale", False), ("bias", "bias", False)),
    "dense": (("weight", "kernel", True), ("bias", "bias", False)),
}

# Not part of the encoder: pooler and heads belong to a task, the buffers hold constants.
_DROPPED = re.compile(
    r"pooler\.dense\.(weight|bias)|embeddings\.(position_ids|token_type_ids)|(cls|lm_head|classifier)\..+"
)

_OLD_NAMES = {"gamma": "weight", "beta": "bias"}


def from_huggingface(model: Model, tensors: Mapping[str, np.ndarray]) -> tuple[Params, tuple[str, ...]]:
    """Returns the float32 parameters of ``model``, and the names of the tensors dropped by rule.

    Names may carry the base model's prefix ("bert.") or not, and the old gamma and beta for weight and bias.

    Raises:
        WsrError: tensors that are missing, unexpected, doubled, or of a wrong shape or dtype; all at once.
    """
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    found, dropped, problems = _canonical(model, tensors)
    leaves: list[tuple[str, jax.Array]] = []
    for theirs, ours, transposed in _table(model):
        expected = _get(shapes, ours).shape[::-1] if transposed else _get(shapes, ours).shape
        if theirs not in found:
            problems.append(f"missing {theirs}")
            continue
        name = found.pop(theirs)
        tensor = tensors[name]
        if tensor.shape != expected:
            problems.append(f"shape of {name} is {tensor.shape}, expected {expected}")
        elif not jax.numpy.issubdtype(tensor.dtype, np.floating):
            problems.append(f"dtype of {name} is {tensor.dtype}, expected a float")
        else:
            leaves.append((ours, _as_float32(tensor.T if transposed else tensor)))
    problems += [f"unexpected {name}" for name in sorted(found.values())]
    if problems:
        raise WsrError(f"weights do not fit {model.name}: {'; '.join(problems)}")
    return _nest(leaves), tuple(sorted(dropped))


def to_huggingface(model: Model, params: Params) -> dict[str, np.ndarray]:
    """Returns ``params`` under their Hugging Face names, without prefix, as float32 arrays."""
    tensors = {}
    for theirs, ours, transposed in _table(model):
        array = np.asarray(_get(params, ours), np.float32)
        tensors[theirs] = np.ascontiguousarray(array.T if transposed else array)
    return tensors


def is_dropped(model_type: str, name: str) -> bool:
    """Whether the tensor called ``name`` is known not to belong to the encoder."""
    return _DROPPED.fullmatch(name.removeprefix(f"{model_type}.")) is not None


def _canonical(model: Model, names: Iterable[str]) -> tuple[dict[str, str], list[str], list[str]]:
    """Returns today's name of each tensor -> its name in the file; the dropped names; problems."""
    model_type = MODEL_TYPES[model.name]
    found: dict[str, str] = {}
    dropped, problems = [], []
    for name in sorted(names):
        if is_dropped(model_type, name):
            dropped.append(name)
            continue
        *module, leaf = name.removeprefix(f"{model_type}.").split(".")
        today = ".".join((*module, _OLD_NAMES.get(leaf, leaf)))
        if today in found:
            problems.append(f"doubled {today} ({found[today]} and {name})")
        found[today] = name
    return found, dropped, problems


def _table(model: Model) -> Iterator[tuple[str, str, bool]]:
    for theirs, ours, kind in _MODULES:
        repeats = range(model.config["num_hidden_layers"]) if "{layer}" in theirs else (0,)
        for layer in repeats:
            for their_leaf, our_leaf, transposed in _LEAVES[kind]:
                their_name = f"{theirs.format(layer=layer)}.{their_leaf}"
                yield their_name, f"{ours.format(layer=layer)}/{our_leaf}", transposed


def _as_float32(tensor: np.ndarray) -> jax.Array:
    return jax.numpy.asarray(np.ascontiguousarray(tensor, np.float32))


def _get(params: Any, path: str) -> Any:
    for part in path.split("/"):
        params = params[part]
    return params


def _nest(leaves: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, value in leaves:
        *parents, last = path.split("/")
        inner = nested
        for part in parents:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return nested
