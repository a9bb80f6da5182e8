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
from wsr.models import cuts, features
from wsr.models.model import Model
from wsr.models.precision import Precision, computing_in, rounded
from wsr.planning.published import CONFIGS
from wsr.runtime.devices import member_mesh
from wsr.training.lora import adapted
from wsr.training.program import state_shardings, training_program

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
LLAMA_7B = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "head_dim": 128,
    "intermediate_size": 11008,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}
"""The sizes of Llama 2 with 7 billion parameters."""
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
      name: "minilm", "roberta-base", "modernbert-base", "llama-1b" or "llama-7b".
      layers: number of layers; None: all.
    """
    if name in CONFIGS:
        architecture, config = CONFIGS[name]
    else:
        architecture, sizes = {
            "llama-1b": ("llama", LLAMA),
            "llama-7b": ("llama", LLAMA_7B),
            "modernbert-base": ("modernbert", MODERNBERT),
        }[name]
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
    stacked = _cut(base, mesh, points * mesh.shape["points"])
    return features._encoder(model, mesh).lower(stacked, _batch(mesh, mesh.shape["texts"], rows, length, slots))


def evaluation_bytes(model: Model, parts: int) -> int:
    """Returns the bytes that evaluation in bfloat16 takes on each of the chips that share a model, without activations.

    They are those of the base, one member and one point in float32, and of the point in bfloat16.

    Args:
      model: the architecture.
      parts: number of chips that share a model.
    """
    parameters = _parameters(model)
    rounded_copy = jax.eval_shape(partial(rounded, precision="bfloat16", platform="tpu"), parameters)
    return 3 * cuts.bytes_on_each(parameters, parts) + cuts.bytes_on_each(rounded_copy, parts)


def mixing(model: Model, mesh: Mesh, *, points: int, models: int = 1, begun: bool = True) -> Any:
    """Returns the lowered program that adds models to ``points`` points a device.

    Args:
      model: the architecture.
      mesh: the devices.
      points: points a device.
      models: number of models that one program adds.
      begun: whether they are added to points; if not, the points begin with them.
    """
    together = points * mesh.shape["points"]
    factors = _shape(mesh, (together, models), np.float32, "points")
    parameters = _parameters(model)
    member = _cut(parameters, mesh)
    places = geometry._places_of(member, factors.sharding)
    mixed = _cut(parameters, mesh, together) if begun else None
    return geometry._added.lower(mixed, (member,) * models, factors, places)


def probing(mesh: Mesh, *, points: int, texts: int, hidden: int, classes: int) -> Any:
    """Returns the lowered program that fits a probe at each of ``points`` points, divided over the mesh's points."""
    inputs = _shape(mesh, (points, texts, hidden), np.float32, "points")
    labels, strength = _shape(mesh, (texts,), np.int32, None), _shape(mesh, (), np.float32, None)
    program = logistic.programs_of(logistic._fit).together
    if mesh.shape["points"] > 1:
        program = logistic._on_each_device(logistic._fit, mesh, "points", 2)
    return program.lower(inputs, labels, strength, classes=classes)


def training(
    model: Model, mesh: Mesh, *, members: int, batch: int, rows: int, length: int, precision: Precision
) -> Any:
    """Returns the lowered step that trains ``members`` members a device, each with ``batch`` texts in ``rows`` rows."""
    shapes = {"batch": batch, "rows": rows, "length": length}
    groups = member_mesh(mesh.size, devices=list(mesh.devices.flat))
    program = training_program(computing_in(model, precision, "tpu"), False, True, groups)
    together = members * mesh.size
    return _lowered_step(program, flatten(_parameters(model)), {}, model.hidden, groups, together, **shapes)


def lora(model: Model, mesh: Mesh, *, batch: int, rows: int, length: int, rank: int) -> Any:
    """Returns the lowered step that trains LoRA of every matrix of the layers, one member on each group of chips.

    Args:
      model: the architecture.
      mesh: the devices, with the axes ``members`` and ``model``.
      batch: texts of a step.
      rows: rows that hold them.
      length: tokens of a row.
      rank: rank of the factors.
    """
    frozen, factors = flatten(_parameters(model)), {}
    for path, leaf in frozen.items():
        if path.startswith("layers/") and path.endswith("/kernel"):
            factors[f"low_rank/{path}/a"] = jax.ShapeDtypeStruct((leaf.shape[0], rank), leaf.dtype)
            factors[f"low_rank/{path}/b"] = jax.ShapeDtypeStruct((rank, leaf.shape[1]), leaf.dtype)
    program = training_program(adapted(model, 1.0), False, False, mesh)
    shapes = {"batch": batch, "rows": rows, "length": length}
    return _lowered_step(program, factors, _cut(frozen, mesh), model.hidden, mesh, mesh.shape["members"], **shapes)


def _lowered_step(
    program: Any,
    trained: Any,
    frozen: Any,
    hidden: int,
    mesh: Mesh,
    members: int,
    *,
    batch: int,
    rows: int,
    length: int,
) -> Any:
    stacked = partial(jax.tree.map, lambda leaf: jax.ShapeDtypeStruct((members, *leaf.shape), leaf.dtype))
    head = {"kernel": jnp.zeros((hidden, 2)), "bias": jnp.zeros(2)}
    weights = {"encoder": stacked(trained), "head": stacked(head)}
    state = {
        "weights": weights,
        "adam": jax.eval_shape(jax.vmap(optax.scale_by_adam().init), weights),
        "failed_step": jax.ShapeDtypeStruct((members,), np.int32),
        "running": jax.ShapeDtypeStruct((members,), np.bool_),
    }
    state = jax.tree.map(
        lambda leaf, own: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=own),
        state,
        state_shardings(state, mesh),
    )
    key = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), members))
    own = {
        "encoder_rate": ((members, 1), np.float32),
        "head_rate": ((members, 1), np.float32),
        "weight_decay": ((members,), np.float32),
        "steps": ((members,), np.int32),
        "classes": ((members,), np.int32),
        "dropout_key": (key.shape, key.dtype),
    }
    inputs = dict.fromkeys(_TOKENS, ((members, 1, 1, rows, length), np.int32)) | {
        "starts": ((members, 1, 1, batch), np.int32)
    }
    plan = {
        "inputs": {name: _shape(mesh, shape, kind, "members") for name, (shape, kind) in inputs.items()},
        "labels": _shape(mesh, (members, 1, 1, batch), np.int32, "members"),
    }
    arguments = {name: _shape(mesh, shape, kind, "members") for name, (shape, kind) in own.items()}
    step = _shape(mesh, (), np.int32, None)
    return program.lower(state, frozen, plan, arguments, step, step)


_TOKENS = ("token_ids", "token_types", "positions", "text_ids")


def _parameters(model: Model) -> Any:
    return jax.eval_shape(model.init, jax.random.key(0))


def _batch(mesh: Mesh, parts: int, rows: int, length: int, slots: int) -> dict[str, Any]:
    batch = {name: _shape(mesh, (parts, rows, length), np.int32, "texts") for name in _TOKENS}
    return batch | {"starts": _shape(mesh, (parts, slots), np.int32, "texts")}


def _cut(params: Any, mesh: Mesh, points: int | None = None) -> Any:
    """Returns the shapes of one model's parameters or of those of some points, cut as the engine cuts them."""
    axes, first = ((), ()) if points is None else (("points",), (points,))
    return jax.tree.map(
        lambda leaf, own: jax.ShapeDtypeStruct((*first, *leaf.shape), leaf.dtype, sharding=own),
        params,
        cuts.shardings(params, mesh, *axes),
    )


def _shape(mesh: Mesh, shape: tuple[int, ...], dtype: Any, axis: str | None) -> jax.ShapeDtypeStruct:
    spec = PartitionSpec(axis) if axis else PartitionSpec()
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))
