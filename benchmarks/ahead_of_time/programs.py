"""The programs of the engine for encoders of public sizes, lowered for a mesh of absent devices."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from wsr import models
from wsr.engine import logistic
from wsr.geometry import points as geometry
from wsr.geometry.trees import flatten
from wsr.models import features
from wsr.models.model import Model
from wsr.models.precision import Precision, computing_in, rounded
from wsr.planning.published import CONFIGS
from wsr.training.program import training_program

LLAMA = {
    "vocab_size": 128256,
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "intermediate_size": 8192,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
"""The sizes of Llama 3.2 with 1 billion parameters."""
MODERNBERT = {
    "vocab_size": 50368,
    "hidden_size": 768,
    "num_hidden_layers": 22,
    "num_attention_heads": 12,
    "intermediate_size": 1152,
    "max_position_embeddings": 8192,
    "local_attention": 128,
}
"""The sizes of ModernBERT-base."""


def encoder(name: str, layers: int | None = None) -> Model:
    """Returns an encoder of a public size.

    Args:
      name: "minilm", "roberta-base", "modernbert-base" or "llama-1b".
      layers: number of layers; None: all.
    """
    if name in CONFIGS:
        architecture, config = CONFIGS[name]
    else:
        architecture, sizes = {"llama-1b": ("llama", LLAMA), "modernbert-base": ("modernbert", MODERNBERT)}[name]
        config = {**models.architectures()[architecture].example, **sizes}
    config = {**config, "num_hidden_layers": layers or config["num_hidden_layers"]}
    if "layer_types" in config:
        kinds = config["layer_types"]
        config["layer_types"] = [kinds[number % len(kinds)] for number in range(config["num_hidden_layers"])]
    return models.build(architecture, config)


def operations(model: Model, tokens: int, text_length: float) -> float:
    """Returns the operations of a forward pass on real tokens: products with kernels, and attention within texts."""
    shapes = jax.tree_util.tree_leaves_with_path(jax.eval_shape(model.init, jax.random.key(0)))
    kernels = sum(leaf.size for path, leaf in shapes if path[-1].key == "kernel" and path[0].key != "head")
    layers = model.config["num_hidden_layers"]
    return tokens * (2 * kernels + 4 * layers * model.hidden * text_length)


def encoding(model: Model, mesh: Mesh, *, points: int, rows: int, length: int, precision: Precision, slots: int) -> Any:
    """Returns the lowered program that encodes one batch of rows at ``points`` points a device."""
    base = jax.eval_shape(partial(rounded, precision=precision, platform="tpu"), _parameters(model))
    stacked = _like(base, mesh, "points", points * mesh.shape["points"])
    return features._encoder(model, mesh).lower(stacked, _batch(mesh, mesh.shape["texts"], rows, length, slots))


def mixing(model: Model, mesh: Mesh, *, points: int) -> Any:
    """Returns the lowered program that adds one member to ``points`` points a device."""
    together = points * mesh.shape["points"]
    factors = _shape(mesh, (together,), np.float32, "points")
    parameters = _parameters(model)
    return geometry._added.lower(_like(parameters, mesh, "points", together), _like(parameters, mesh, None), factors)


def probing(mesh: Mesh, *, points: int, texts: int, hidden: int, classes: int) -> Any:
    """Returns the lowered program that fits a probe at each of ``points`` points."""
    inputs = _shape(mesh, (points, texts, hidden), np.float32, None)
    labels, strength = _shape(mesh, (texts,), np.int32, None), _shape(mesh, (), np.float32, None)
    return logistic.programs_of(logistic._fit).together.lower(inputs, labels, strength, classes=classes)


def training(
    model: Model, mesh: Mesh, *, members: int, batch: int, rows: int, length: int, precision: Precision
) -> Any:
    """Returns the lowered step that trains ``members`` members, each with ``batch`` texts in ``rows`` rows."""
    stacked = partial(jax.tree.map, lambda leaf: jax.ShapeDtypeStruct((members, *leaf.shape), leaf.dtype))
    head = {"kernel": jnp.zeros((model.hidden, 2)), "bias": jnp.zeros(2)}
    weights = {"encoder": stacked(flatten(_parameters(model))), "head": stacked(head)}
    state = {
        "weights": weights,
        "adam": jax.eval_shape(jax.vmap(optax.scale_by_adam().init), weights),
        "failed_step": jax.ShapeDtypeStruct((members,), np.int32),
        "running": jax.ShapeDtypeStruct((members,), np.bool_),
    }
    key = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), members))
    own = {
        "encoder_rate": ((members, 1), np.float32),
        "head_rate": ((members, 1), np.float32),
        "weight_decay": ((members,), np.float32),
        "steps": ((members,), np.int32),
        "classes": ((members,), np.int32),
    }
    arguments = {name: _shape(mesh, shape, kind, None) for name, (shape, kind) in own.items()}
    arguments["dropout_key"] = _shape(mesh, key.shape, key.dtype, None)
    inputs = dict.fromkeys(_TOKENS, ((members, 1, 1, rows, length), np.int32)) | {
        "starts": ((members, 1, 1, batch), np.int32)
    }
    plan = {
        "inputs": {name: _shape(mesh, shape, kind, None) for name, (shape, kind) in inputs.items()},
        "labels": _shape(mesh, (members, 1, 1, batch), np.int32, None),
    }
    program: Any = training_program(computing_in(model, precision, "tpu"), False, True)
    step = _shape(mesh, (), np.int32, None)
    return program.lower(_like(state, mesh, None), {}, plan, arguments, step, step)


_TOKENS = ("token_ids", "token_types", "positions", "text_ids")


def _parameters(model: Model) -> Any:
    return jax.eval_shape(model.init, jax.random.key(0))


def _batch(mesh: Mesh, parts: int, rows: int, length: int, slots: int) -> dict[str, Any]:
    batch = {name: _shape(mesh, (parts, rows, length), np.int32, "texts") for name in _TOKENS}
    return batch | {"starts": _shape(mesh, (parts, slots), np.int32, "texts")}


def _like(tree: Any, mesh: Mesh, axis: str | None, first: int | None = None) -> Any:
    stacked = () if first is None else (first,)
    return jax.tree.map(lambda leaf: _shape(mesh, (*stacked, *leaf.shape), leaf.dtype, axis), tree)


def _shape(mesh: Mesh, shape: tuple[int, ...], dtype: Any, axis: str | None) -> jax.ShapeDtypeStruct:
    spec = PartitionSpec(axis) if axis else PartitionSpec()
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))
