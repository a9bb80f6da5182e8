"""The compiled training loop of a group of members.

Everything in which members differ (dataset, seed, hyperparameters, data size) is an argument of the program, so one
compilation serves all groups of the same shapes. A member whose loss or gradient becomes non-finite stops at that step
and does not affect the others.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec, SingleDeviceSharding
from jaxtyping import Array, Float, Int

from wsr.geometry.linear_head import logits
from wsr.geometry.trees import nest, stack
from wsr.models import cuts
from wsr.models.model import Model
from wsr.runtime import seeds
from wsr.training.job import Job
from wsr.types import AnyArray, Head

_HEAD = 2**31 - 1  # what the key of the encoder's dropout is folded with for that of the head


@lru_cache(maxsize=8)
def training_program(encoder: Model, regression: bool, dropout: bool, mesh: Mesh | None = None) -> Callable:
    """Returns the compiled loop over the steps from ``first`` up to ``last``, which are arguments of the program too.

    Args:
      encoder: the encoder to train through, see ``group_batches``.
      regression: whether the loss is the squared error; else it is cross-entropy.
      dropout: whether dropout is applied.
      mesh: devices over which the members are cut, along its axis ``members``; None: one device. Devices communicate
        only with those that share a member, along the axis ``model``.
    """

    def member_step(state: dict, frozen: dict, plan: dict, own: dict, step: Int[Array, ""]) -> tuple[dict, Array]:
        pieces = jax.tree.map(lambda leaf: leaf[step], (plan["inputs"], plan["labels"]))
        key = jax.random.fold_in(own["dropout_key"], step) if dropout else None

        def loss_of(weights: dict, piece: tuple[dict, Array], key: Array | None) -> Array:
            batch, labels = piece
            features = encoder.encode(nest(frozen | weights["encoder"]), batch, dropout_key=key)
            of_head = None if key is None else jax.random.fold_in(key, _HEAD)
            return loss_of_outputs(features, weights["head"], labels, own["classes"], regression, dropout_key=of_head)

        loss, gradient = _mean_over_pieces(jax.value_and_grad(loss_of), state["weights"], pieces, key)
        direction, adam = optax.scale_by_adam().update(gradient, state["adam"])
        rate = {"encoder": own["encoder_rate"][step], "head": own["head_rate"][step]}
        moved = {
            part: jax.tree.map(
                partial(_descend, rate=rate[part], decay=own["weight_decay"]),
                state["weights"][part],
                direction[part],
            )
            for part in ("encoder", "head")
        }
        finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(gradient))
        active = state["running"] & (step < own["steps"])
        keep = partial(jax.tree.map, lambda new, old: jnp.where(active & finite, new, old))
        return {
            "weights": keep(moved, state["weights"]),
            "adam": keep(adam, state["adam"]),
            "failed_step": jnp.where(active & ~finite, step, state["failed_step"]),
            "running": state["running"] & (finite | ~active),
        }, loss

    def segment(
        state: dict, frozen: dict, plan: dict, own: dict, first: Int[Array, ""], last: Int[Array, ""]
    ) -> tuple[dict, Array]:
        members, steps, *_ = plan["labels"].shape

        def body(step: Int[Array, ""], carry: tuple[dict, Array]) -> tuple[dict, Array]:
            state, losses = carry
            state, loss = each(state, frozen, plan, own, step)
            return state, losses.at[:, step].set(loss)

        each = jax.vmap(member_step, in_axes=(0, None, 0, 0, None))
        if members == 1:
            each = _alone(member_step)
        elif dropout and jax.random.key_impl(own["dropout_key"]) == "rbg":
            each = _one_by_one(member_step)
        return jax.lax.fori_loop(first, last, body, (state, jnp.full((members, steps), jnp.nan)))

    along_members = over_devices(segment, mesh, of_members=(0, 2, 3), arguments=6)
    if mesh is None or mesh.size == 1:
        return jax.jit(along_members, donate_argnums=0)

    def placed(state: dict, *rest: Any) -> tuple[dict, Array]:
        state, losses = along_members(state, *rest)
        # As it came in, or the next call would be compiled again.
        return jax.lax.with_sharding_constraint(state, state_shardings(state, mesh)), losses

    return jax.jit(placed, donate_argnums=0)


def over_devices(program: Callable, mesh: Mesh | None, *, of_members: Sequence[int], arguments: int) -> Callable:
    """Returns a program that each device of the mesh runs on its own members.

    Args:
      program: takes and returns arrays of a group of members.
      mesh: devices with the axis ``members``; None: one device.
      of_members: numbers of the arguments whose first axis is the members; each device holds the others whole.
      arguments: number of arguments.
    """
    if mesh is None or mesh.size == 1:
        return program
    cut, whole = PartitionSpec("members"), PartitionSpec()
    specs = tuple(cut if number in of_members else whole for number in range(arguments))
    # The axis model is left to the compiler, as in wsr.models.features.
    by_hand = {"members"} if mesh.shape["model"] > 1 else set(mesh.axis_names)
    return jax.shard_map(program, mesh=mesh, in_specs=specs, out_specs=cut, axis_names=by_hand, check_vma=False)


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """Returns where each array of a group's state lies; its first axis is the members.

    Args:
      state: the state, see ``initial_state``.
      mesh: devices with the axes ``members`` and ``model``.
    """
    if mesh.size == 1:  # as the program returns them, or its second call would be compiled again
        return jax.tree.map(lambda _: SingleDeviceSharding(mesh.devices.item()), state)
    of_one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), state)
    return cuts.shardings(of_one, mesh, "members")


def _alone(member_step: Callable) -> Callable:
    """Returns the step of a group of one, without vmap, which costs time on a CPU."""

    def step(state: dict, frozen: dict, plan: dict, own: dict, step: Int[Array, ""]) -> tuple[dict, Array]:
        first = partial(jax.tree.map, lambda leaf: leaf[0])
        return jax.tree.map(lambda leaf: leaf[None], member_step(first(state), frozen, first(plan), first(own), step))

    return step


def _one_by_one(member_step: Callable) -> Callable:
    """Returns the step of a group whose members take it one after another.

    Under vmap, rbg draws the bits of all members from the key of the first: a member's would depend on its neighbours.
    """

    def step(state: dict, frozen: dict, plan: dict, own: dict, step: Int[Array, ""]) -> tuple[dict, Array]:
        return jax.lax.map(lambda member: member_step(member[0], frozen, *member[1:], step), (state, plan, own))

    return step


def _mean_over_pieces(
    loss_and_gradient: Callable, weights: dict, pieces: tuple[dict, Array], key: Array | None
) -> tuple[Array, dict]:
    """Returns the loss of a batch and its gradient, one piece after another: memory holds one piece's activations."""
    count = len(pieces[1])
    if count == 1:
        return loss_and_gradient(weights, jax.tree.map(lambda leaf: leaf[0], pieces), key)

    def add(total: tuple[Array, dict], numbered: tuple[Array, tuple[dict, Array]]) -> tuple[tuple[Array, dict], None]:
        number, piece = numbered
        own_key = None if key is None else jax.random.fold_in(key, number)
        found = loss_and_gradient(weights, piece, own_key)
        return jax.tree.map(
            lambda total, own: total + own / count, total, found
        ), None  # pieces have equally many texts

    nothing = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, weights))
    return jax.lax.scan(add, nothing, (jnp.arange(count), pieces))[0]


def loss_of_outputs(
    features: Float[AnyArray, "batch hidden"],
    head: Head,
    labels: Array,
    classes: Int[Array, ""],
    regression: bool,
    *,
    dropout_key: Array | None = None,
) -> Float[Array, ""]:
    """Returns the mean loss of a batch: cross-entropy in nats, or the squared error for regression.

    Args:
      features: of each text.
      head: ``kernel [hidden, classes]`` and ``bias [classes]``, possibly padded to more classes.
      labels: of each text.
      classes: number of classes without padding.
      regression: whether the labels are values.
      dropout_key: if given, dropout is applied in a head with a dense layer.
    """
    outputs = outputs_of(features, head, classes, dropout_key=dropout_key)
    return losses_of_texts(outputs, labels, regression).mean()


def outputs_of(
    features: Float[AnyArray, "batch hidden"], head: Head, classes: Int[Array, ""], *, dropout_key: Array | None = None
) -> Float[Array, "batch padded_classes"]:
    """Returns the outputs of a head that may be padded to more classes; see ``loss_of_outputs`` for the arguments."""
    outputs = logits(features, head, dropout_key=dropout_key)
    # Heads of a group are padded to the largest number of classes; the padding gets no probability.
    return jnp.where(jnp.arange(outputs.shape[1]) < classes, outputs, -1e9)


def losses_of_texts(
    outputs: Float[Array, "batch padded_classes"], labels: Array, regression: bool
) -> Float[Array, " batch"]:
    """Returns the loss of each text: cross-entropy in nats, or the squared error for regression."""
    if regression:
        return jnp.square(outputs[:, 0] - labels)
    return optax.softmax_cross_entropy_with_integer_labels(outputs, labels)


def predictions(outputs: Float[Array, "batch padded_classes"], regression: bool) -> Array:
    """Returns what a head predicts: the class of each text, or its value for regression."""
    return outputs[:, 0] if regression else outputs.argmax(axis=1)


def _descend(weight: Array, direction: Array, *, rate: Array, decay: Array) -> Array:
    """Returns the weight after AdamW's step (Loshchilov and Hutter 2019); vectors have no weight decay."""
    return weight - rate * (direction + (decay * weight if weight.ndim > 1 else 0.0))


def initial_state(
    trainable: Sequence[Mapping[str, AnyArray]], heads: Sequence[Mapping[str, np.ndarray]], mesh: Mesh
) -> dict[str, Any]:
    """Returns the state of a group before its first step, on its devices; none ever holds more than its own part.

    Args:
      trainable: the arrays to train of each member, by path, in host memory.
      heads: the initial head of each member.
      mesh: devices with the axes ``members`` and ``model``.
    """
    members = len(heads)
    weights = {"encoder": stack(trainable), "head": stack(heads)}
    state = {
        "weights": weights,
        "adam": jax.eval_shape(jax.vmap(optax.scale_by_adam().init), weights),
        "failed_step": np.full(members, -1, np.int32),
        "running": np.ones(members, bool),
    }

    def place(leaf: Any, sharding: Any) -> Array:
        if isinstance(leaf, jax.ShapeDtypeStruct):  # Adam's moments and its count of steps
            return jnp.zeros(leaf.shape, leaf.dtype, device=sharding)
        return jax.device_put(leaf, sharding)

    return jax.tree.map(place, state, state_shardings(state, mesh))


def hyperparameters(jobs: Sequence[Job], steps: int) -> dict[str, np.ndarray]:
    """Returns the arguments of the program in which members differ, each with the members as its first axis."""
    schedule = np.stack([job.learning_rates(steps) for job in jobs])
    encoder = np.array([job.recipe.learning_rate for job in jobs])
    of_heads = [job.recipe.head_learning_rate for job in jobs]
    head = np.array([rate if own is None else own for rate, own in zip(encoder, of_heads, strict=True)])
    rng = None if jobs[0].recipe.dropout_rng == "threefry" else jobs[0].recipe.dropout_rng
    keys = jnp.stack([seeds.stream(job.seed, *job.stream, "dropout", generator=rng) for job in jobs])
    return {
        "encoder_rate": (schedule * encoder[:, None]).astype(np.float32),
        "head_rate": (schedule * head[:, None]).astype(np.float32),
        "weight_decay": np.array([job.recipe.weight_decay for job in jobs], np.float32),
        "steps": np.array([job.steps for job in jobs], np.int32),
        "classes": np.array([job.dataset.classes for job in jobs], np.int32),
        "dropout_key": keys,
    }
