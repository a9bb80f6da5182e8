"""The held-out loss of a linear probe as a differentiable function of the features, the fit of the probe included."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from wsr.engine.cross_validation import scale_of
from wsr.engine.probe import fit_probe, fixed_head_loss
from wsr.geometry.linear_head import HIGHEST
from wsr.types import AnyArray

Labels = Int[AnyArray, " _"] | Float[AnyArray, " _"]


def probed_loss_and_gradient(
    features: Float[AnyArray, "texts hidden"],
    probe_labels: Labels,
    labels: Labels,
    *,
    classes: int,
    inverse_l2: float | None = None,
) -> tuple[float, Float[Array, "texts hidden"]]:
    """Returns the mean held-out loss of a linear probe, and its gradient in the features of all texts.

    The gradient includes the change of the probe's optimum, by the implicit function theorem: at the optimum the
    gradient of ``fit_probe``'s convex problem is zero, so one linear system in its Hessian, solved by conjugate
    gradients, gives the derivative of the optimum (Bengio 2000, Gradient-based optimization of hyperparameters). A
    penalty that cross-validation chooses is a step function of the features: the gradient is that of the loss under the
    chosen penalty, the standardisation of the features included.

    Args:
      features: features of the texts; the probe is fitted on the first ``len(probe_labels)`` texts, the others are held
        out.
      probe_labels: labels of the texts that fit the probe.
      labels: labels of the held-out texts.
      classes: number of classes; 1 for regression.
      inverse_l2: inverse of the L2 penalty; None: chosen by cross-validation, on standardised features.
    """
    values = jnp.asarray(features)
    fit = fit_probe(values[None, : len(probe_labels)], probe_labels, classes=classes, inverse_l2=inverse_l2)
    fitted = jnp.concatenate([fit.heads["kernel"][0], fit.heads["bias"]])
    loss, gradient = _loss_and_gradient(
        values, fitted, probe_labels, labels, fit.inverse_l2[0], standardised=inverse_l2 is None
    )
    return float(loss), gradient


def _held_out_loss(
    features: Float[Array, "texts hidden"],
    fitted: Float[Array, "inputs classes"],
    probe_labels: Labels,
    labels: Labels,
    inverse_l2: Float[Array, ""],
    *,
    standardised: bool,
) -> Float[Array, ""]:
    known, held_out = features[: len(probe_labels)], features[len(probe_labels) :]
    # Subtracting a constant from all features changes the intercept only. The mean keeps float32 sums small.
    mean = jax.lax.stop_gradient(known.mean(axis=0))
    scale = scale_of(known) if standardised else jnp.ones_like(mean)
    inputs = jnp.pad((known - mean) * scale, ((0, 0), (0, 1)), constant_values=1.0)
    fixed = jax.lax.stop_gradient(scale)[:, None]
    centred = fitted.at[-1].add(jnp.matmul(mean, fitted[:-1], precision=HIGHEST))
    centred = centred.at[:-1].set(jnp.where(fixed > 0, fitted[:-1] / jnp.where(fixed > 0, fixed, 1.0), 0.0))
    weights = _optimal_weights(inputs, centred, probe_labels, inverse_l2)
    head = {"kernel": weights[None, :-1], "bias": weights[None, -1]}
    return fixed_head_loss(((held_out - mean) * scale)[None], labels, head).mean()


_loss_and_gradient = jax.jit(jax.value_and_grad(_held_out_loss), static_argnames="standardised")


def _optimal_weights(
    inputs: Float[Array, "texts inputs"],
    fitted: Float[Array, "inputs classes"],
    labels: Labels,
    inverse_l2: Float[Array, ""],
) -> Float[Array, "inputs classes"]:
    """Returns the probe's kernel, its intercept as the last row, as a differentiable function of ``inputs``.

    Its value is ``fitted``: a Newton step from the optimum has length zero, and the derivative of that step is the
    derivative of the optimum.
    """
    classes = fitted.shape[1]
    # A class without a text keeps the constants that fit_probe gives it.
    present = (labels[:, None] == np.arange(classes)).any(axis=0) if classes > 1 else np.ones(1, bool)
    # fit_probe's two classes share one weight vector w, with columns -w/2 and w/2: half |w|^2 is all of |kernel|^2.
    penalty = 0.5 if classes > 2 else 1.0

    def logits_of(weights: Array, inputs: Array) -> Array:
        return jnp.where(present, jnp.matmul(inputs, weights, precision=HIGHEST), -jnp.inf)

    def objective(weights: Array, inputs: Array) -> Array:
        logits = logits_of(weights, inputs)
        if classes == 1:
            data = jnp.square(logits[:, 0] - labels).sum()
        else:
            chances = jax.nn.log_softmax(logits, axis=-1)
            data = -jnp.take_along_axis(chances, labels[:, None], axis=-1).sum()
            # Adding one number to all intercepts leaves the loss unchanged, which would make the Hessian singular; this
            # term makes them sum to 0, as fit_probe's do.
            data += len(labels) * jnp.square(jnp.where(present, weights[-1], 0.0).sum())
        return inverse_l2 * data + penalty * jnp.square(weights[:-1]).sum()

    fixed = jax.lax.stop_gradient(inputs)
    slope = jax.grad(objective)
    hessian = jax.linearize(lambda weights: slope(weights, fixed), fitted)[1]
    chance = jax.nn.softmax(logits_of(fitted, fixed), axis=-1)
    # The Hessian averaged over classes; for one or two classes it is the Hessian itself up to a factor.
    curvature = (chance * (1 - chance)).mean(axis=-1, keepdims=True) if classes > 1 else 1.0
    metric = inverse_l2 * jnp.matmul((fixed * curvature).T, fixed, precision=HIGHEST)
    ridge = jnp.ones(len(metric)).at[-1].set(0.0) + 1e-6 * jnp.diagonal(metric)
    factor = jax.scipy.linalg.cho_factor(metric + jnp.diag(ridge))
    precondition = partial(jax.scipy.linalg.cho_solve, factor)
    step = jax.scipy.sparse.linalg.cg(hessian, slope(fitted, inputs), tol=1e-6, maxiter=200, M=precondition)[0]
    return fitted - jnp.where(present, step, 0.0)
