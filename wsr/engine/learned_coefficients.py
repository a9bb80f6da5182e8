"""The best point of a region for a dataset, found by gradients through ``combine``.

The probe split fits the head of a point and the validation split gives its loss. The test split is not read.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from wsr.data.dataset import AnySplit, Dataset, joined
from wsr.data.packing import evaluation_batches, row_length_for
from wsr.engine.evaluate import Protocol, probe_draws
from wsr.engine.probe_gradient import probed_loss_and_gradient
from wsr.engine.settings import Settings
from wsr.errors import WsrError
from wsr.geometry.points import combine, task_vector
from wsr.models.features import refuse_unfit, split_features
from wsr.models.model import Model
from wsr.models.precision import computing_in
from wsr.region.region import Region
from wsr.runtime.devices import fitting
from wsr.types import Params

Gradient = Callable[[], Float[np.ndarray, " members"]]

Space = Literal["hull", "free"]
STEPS = 10
LEARNING_RATES = {"hull": 0.5, "free": 0.2}


@dataclass(frozen=True, eq=False)
class LearnedCoefficients:
    """Learned coefficients, and the loss at each step of the search."""

    coefficients: Float[np.ndarray, " members"]
    """The visited point with the lowest validation loss."""
    losses: Float[np.ndarray, " visited"]
    """Mean validation loss of each visited point; the first is the centroid."""


def learn_coefficients(
    region: Region,
    dataset: Dataset,
    *,
    space: Space = "hull",
    steps: int = STEPS,
    learning_rate: float | None = None,
    protocol: Protocol = Protocol(),
    settings: Settings = Settings(),
) -> LearnedCoefficients:
    """Finds the point with the lowest validation loss under its optimal linear probe, by Adam from the centroid.

    A step costs about four forward passes over the probe and the validation split. Memory holds the members, one
    gradient, and the activations of one batch.

    Args:
      region: the population.
      dataset: its probe split fits the heads, its validation split gives the loss.
      space: ``"hull"``: the coefficients are a softmax, so the point stays in the convex hull of the members;
        ``"free"``: each coefficient is free.
      steps: number of gradient steps.
      learning_rate: learning rate of Adam: about how far a step moves each softmax logit, or with ``"free"`` each
        coefficient times the number of members; None: ``LEARNING_RATES``.
      protocol: the classifier; it must be the linear probe.
      settings: memory, precision and counter; one point is evaluated at a time, on one device. The counter advances
        once per visited point, ``steps + 1`` times.

    Returns:
      The best visited point and the loss of every visited point.

    Raises:
      WsrError: if the region has no members, or the probe is not the linear one.

    Example:
      >>> import wsr
      >>> from wsr.engine.learned_coefficients import learn_coefficients
      >>> data = wsr.load_dataset("made_up_a1", wsr.load("tiny").processor, max_length=48)
      >>> learned = learn_coefficients(wsr.made_up_region(3), data, steps=2)
      >>> learned.losses.shape, round(float(learned.coefficients.sum()), 3)
      ((3,), 1.0)
    """
    if not region.members:
        raise WsrError("learned coefficients: the region has no members")
    judge = validation_loss(region, dataset, protocol, settings)
    count = len(region)
    to_point: Callable[[Array], Array] = jax.nn.softmax if space == "hull" else lambda scaled: scaled / count
    variables = jnp.zeros(count) if space == "hull" else jnp.ones(count)
    optimizer = optax.adam(learning_rate or LEARNING_RATES[space])
    moments = optimizer.init(variables)
    points, losses = [], []
    for step in range(steps + 1):
        point, pull_back = jax.vjp(to_point, variables)
        loss, gradient = judge(point)
        points.append(np.asarray(point, np.float64))
        losses.append(loss)
        settings.advance(1, f"validation loss {loss:.4f}")
        if step < steps:
            updates, moments = optimizer.update(pull_back(jnp.asarray(gradient()))[0], moments)
            variables = optax.apply_updates(variables, updates)
    return LearnedCoefficients(points[int(np.argmin(losses))], np.array(losses))


def validation_loss(
    region: Region, dataset: Dataset, protocol: Protocol = Protocol(), settings: Settings = Settings()
) -> Callable[[Float[Array, " members"]], tuple[float, Gradient]]:
    """Returns a function that computes a point's mean validation loss under its optimal probe, and its gradient.

    The function is ``judge(point) -> (loss, gradient)``; calling ``gradient()`` gives the derivative in the point's
    coefficients, the change of the optimal probe included. It encodes the texts a second time, so that memory holds the
    activations of one batch.

    Args:
      region: the population.
      dataset: its probe split fits the heads, its validation split gives the loss.
      protocol: the classifier; it must be the linear probe.
      settings: memory and precision.

    Raises:
      WsrError: if the protocol's probe is not the linear one.
    """
    if protocol.probe != "linear":
        raise WsrError(
            f"learned coefficients: expected the linear probe, whose optimum has a gradient; found {protocol.probe}"
        )
    model = region.model
    probe, validation = dataset.splits["probe"], dataset.splits["validation"]
    refuse_unfit(model, probe, validation)
    texts: AnySplit = joined([probe, validation])
    draws = [np.arange(len(probe))[own] for own in probe_draws(probe.labels, protocol.draws)]
    row_length = row_length_for(settings.row_length, texts)
    batches = evaluation_batches(texts, rows=settings.rows, row_length=row_length, packed=model.packed)
    model_bytes = sum(4 * leaf.size for leaf in jax.tree.leaves(region.base))
    # The members, the base, the point, its gradient, and one more model while the gradient grows.
    fitting(
        1,
        lambda points: (len(region) + 4 * points) * model_bytes,
        what="learned points",
        memory_budget_gib=settings.memory_budget_gib,
    )
    base, members = jax.device_put(region.base), jax.device_put(region.stacked())
    computing = computing_in(model, settings.precision, jax.default_backend())

    def judge(point: Float[Array, " members"]) -> tuple[float, Gradient]:
        params = _combine(base, members, point)
        features = split_features(computing, params, batches, len(texts))
        features = features.astype(jnp.float32)
        loss, slopes = 0.0, jnp.zeros_like(features)
        for own in draws:
            read = np.concatenate([own, np.arange(len(probe), len(texts))])
            held_out, slope = probed_loss_and_gradient(
                features[read],
                probe.labels[own],
                validation.labels,
                classes=dataset.classes,
                inverse_l2=protocol.inverse_l2,
            )
            loss, slopes = loss + held_out / len(draws), slopes.at[read].add(slope / len(draws))

        def gradient() -> Float[np.ndarray, " members"]:
            total = jax.tree.map(jnp.zeros_like, params)
            for step, index in enumerate(batches.index):
                inputs = {name: array[step] for name, array in batches.inputs.items()}
                own = jnp.where(index[:, None] >= 0, slopes[index], 0.0)
                total = _pull_back(computing)(params, inputs, own, total)
            return np.asarray(_along_members(base, members, total), np.float64)

        return loss, gradient

    return judge


@lru_cache(maxsize=8)
def _pull_back(model: Model) -> Callable[[Params, dict[str, np.ndarray], Array, Params], Params]:
    """Returns a compiled program that adds a batch's gradient in the parameters to ``total``."""

    def pull_back(
        params: Params, batch: dict[str, Array], slopes: Float[Array, "batch hidden"], total: Params
    ) -> Params:
        features, back = jax.vjp(lambda own: model.encode(own, batch), params)
        return jax.tree.map(jnp.add, total, back(slopes.astype(features.dtype))[0])

    return jax.jit(pull_back, donate_argnums=3)


_combine = jax.jit(combine)


@jax.jit
def _along_members(base: Params, members: Params, gradient: Params) -> Float[Array, " members"]:
    """Returns the gradient in the coefficients: inner products of the gradient in the parameters with the task vectors.

    This is the transpose of ``combine``, computed without the difference of two large numbers.
    """
    products = jax.tree.map(
        lambda vectors, slope: (vectors * slope).reshape(len(vectors), -1).sum(axis=1),
        task_vector(members, base),
        gradient,
    )
    return sum(jax.tree.leaves(products), start=jnp.float32(0))
