"""Rotary positions: rotate pairs of query and key features by an angle that grows with the position.

Source: Su et al. 2021, RoFormer; feature i is paired with feature i + width / 2, as in GPT-NeoX and transformers.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from wsr.errors import WsrError

SCALINGS: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
"""The supported values of ``rope_type``, and the parameters that each needs besides ``rope_theta``."""


def frequencies(what: str, parameters: Mapping[str, Any], width: int) -> tuple[float, ...]:
    """Returns the angle, in radians, by which each pair of a head's features rotates from one position to the next.

    The angle of pair ``i`` is ``rope_theta ** (-2 i / width)``. The scaling "linear" divides every angle by ``factor``.
    "llama3" (Llama 3.1) divides those that rotate less than ``low_freq_factor`` times within the original context,
    leaves those that rotate more than ``high_freq_factor`` times, and interpolates linearly in between.

    Args:
      what: names the architecture in errors.
      parameters: the attribute ``rope_parameters`` of a transformers 5 config.
      width: number of features of a head.

    Raises:
      WsrError: an unknown scaling, missing or superfluous parameters, or an odd ``width``.
    """
    _check(what, parameters, width)
    unscaled = float(parameters["rope_theta"]) ** (-np.arange(0, width, 2) / width)
    scaling = parameters["rope_type"]
    if scaling == "default":
        return tuple(unscaled.tolist())
    if scaling == "linear":
        return tuple((unscaled / parameters["factor"]).tolist())
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    turns = parameters["original_max_position_embeddings"] * unscaled / (2 * np.pi)
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return tuple((unscaled * (kept + (1 - kept) / parameters["factor"])).tolist())


def angles(positions: Int[Array, "rows length"], each: tuple[float, ...]) -> Float[Array, "tokens half_width"]:
    """Returns the rotation angle, in radians, of every pair of features of every token."""
    return positions.reshape(-1, 1).astype(jnp.float32) * jnp.asarray(each, jnp.float32)[None]


def rotate(
    features: Float[Array, "tokens features"], by: Float[Array, "tokens half_width"], heads: int
) -> Float[Array, "tokens features"]:
    """Rotates the features of each head, which lie side by side, by the angles ``by``."""
    pairs = features.reshape(len(features), heads, 2, by.shape[-1])
    first, second = pairs[:, :, 0], pairs[:, :, 1]
    cosine, sine = jnp.cos(by)[:, None], jnp.sin(by)[:, None]
    turned = jnp.stack([first * cosine - second * sine, second * cosine + first * sine], axis=2)
    return turned.reshape(features.shape).astype(features.dtype)


def _check(what: str, parameters: Mapping[str, Any], width: int) -> None:
    scaling = str(parameters.get("rope_type"))
    if scaling not in SCALINGS:
        raise WsrError(
            f"{what} config: unknown rope_type = {scaling!r} in rope_parameters; known: {', '.join(SCALINGS)}"
        )
    # Older files call rope_type "type"; transformers keeps both.
    given = {name: value for name, value in parameters.items() if name not in ("rope_type", "type")}
    needed = ("rope_theta", *SCALINGS[scaling])
    wrong = [f"missing {name}" for name in needed if not isinstance(given.get(name), int | float)]
    wrong += [f"unknown {name} = {value!r}" for name, value in given.items() if name not in needed]
    if wrong:
        raise WsrError(f"{what} config: rope_parameters of type {scaling}: {', '.join(wrong)}")
    if width % 2:
        raise WsrError(f"{what} config: rotary positions need an even number of features in a head, found {width}")
