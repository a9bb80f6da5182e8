"""The best point of a region for a dataset, by gradients through ``combine``.

The probe split fits the head of a point, the validation split judges the point. The test split is not read.
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
from wsr.engine.evaluate import Protocol
from wsr.engine.probe_gradient import probed_loss_and_gradient
from wsr.engine.region_features import as_precision
from wsr.engine.settings import Precision, Settings
from wsr.errors import WsrError
from wsr.geometry.points import combine, task_vector
from wsr.models.features import refuse_other_split, split_features
from wsr.models.model import Model
from wsr.region.region import Region
from wsr.runtime.devices import fitting
from wsr.types import Params

Gradient = Callable[[], Float[np.ndarray, " members"]]

Space = Literal["hull", "free"]
STEPS = 10
LEARNING_RATES = {"hull": 0.5, "free": 0.2}


@dataclass(frozen=True, eq=False)
class LearnedCoefficients:
    """Coefficients that were learned, and the way there."""

    coefficients: Float[np.ndarray, " members"]
    """The point with the lowest validation loss of those that were visited."""
    losses: Float[np.ndarray, " visited"]
    """Mean validation loss of each point visited; the first is the centroid."""


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
    """Minimises the validation loss of a point, whose head is the optimum of the linear probe at that point.

    Adam from the centroid. A step costs about four forward passes over the probe and the validation split; memory
    holds the members, one gradient, and the activations of one batch at a time.

    Args:
      region: the population.
      dataset: its probe split fits the heads, its validation split judges.
      space: ``"hull"``, where the coefficients are a softmax and the point stays between the members, or ``"free"``,
        where each coefficient is its own.
      steps: gradients taken.
      learning_rate: of Adam, so about how far a logit of the softmax moves in a step, or in ``"free"`` a coefficient
        times the number of members; None: ``LEARNING_RATES``.
      protocol: how points are scored; the probe is the linear one.
      settings: how the engine works; one point at a time on one device. The counter advances by one a point visited,
        of which there are ``steps + 1``.
    """
    if not region.members:
        raise WsrError("learned coefficients: the region has no members to mix")
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
    """Returns ``judge(point) -> (loss, gradient)``: the mean validation loss under the probe's optimum at the point.

    ``gradient()`` is that of the whole chain, the probe's optimum included, in the coefficients of the point. Texts
    are encoded twice for it, so that activations are kept for one batch at a time.

    Raises:
      WsrError: where the probe has no optimum to differentiate.
    """
    if protocol.probe != "linear":
        raise WsrError(
            f"learned coefficients: only the linear probe has an optimum with a gradient; found {protocol.probe}"
        )
    model = region.model
    probe, validation = dataset.splits["probe"], dataset.splits["validation"]
    refuse_other_split(model, probe, validation)
    texts: AnySplit = joined([probe, validation])
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

    def judge(point: Float[Array, " members"]) -> tuple[float, Gradient]:
        params = _combine(base, members, point)
        features = split_features(model, as_precision(params, settings.precision), batches, len(texts))
        features = features.astype(jnp.float32)
        loss, slopes = probed_loss_and_gradient(
            features, probe.labels, validation.labels, classes=dataset.classes, inverse_l2=protocol.inverse_l2
        )

        def gradient() -> Float[np.ndarray, " members"]:
            total = jax.tree.map(jnp.zeros_like, params)
            for step, index in enumerate(batches.index):
                inputs = {name: array[step] for name, array in batches.inputs.items()}
                own = jnp.where(index[:, None] >= 0, slopes[index], 0.0)
                total = _pull_back(model, settings.precision)(params, inputs, own, total)
            return np.asarray(_along_members(base, members, total), np.float64)

        return loss, gradient

    return judge


@lru_cache(maxsize=8)
def _pull_back(model: Model, precision: Precision) -> Callable[[Params, dict[str, np.ndarray], Array, Params], Params]:
    """One compiled program that adds a batch's gradient in the parameters to ``total``."""

    def pull_back(
        params: Params, batch: dict[str, Array], slopes: Float[Array, "batch hidden"], total: Params
    ) -> Params:
        features, back = jax.vjp(lambda own: model.encode(as_precision(own, precision), batch), params)
        return jax.tree.map(jnp.add, total, back(slopes.astype(features.dtype))[0])

    return jax.jit(pull_back, donate_argnums=3)


_combine = jax.jit(combine)


@jax.jit
def _along_members(base: Params, members: Params, gradient: Params) -> Float[Array, " members"]:
    """The gradient in the coefficients: inner products of one in the parameters with the task vectors.

    This is ``combine``'s own transpose, without its difference of two large numbers.
    """
    products = jax.tree.map(
        lambda vectors, slope: (vectors * slope).reshape(len(vectors), -1).sum(axis=1),
        task_vector(members, base),
        gradient,
    )
    return sum(jax.tree.leaves(products), start=jnp.float32(0))
