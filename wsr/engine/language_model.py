"""Evaluation of causal language models by their own loss, without labels or a probe.

The loss is measured on windows of text, packed as for any other evaluation. The machinery is that of
``wsr.engine.evaluate``; here the only feature of a window is its loss.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from wsr.data.dataset import Split
from wsr.data.texts import Texts
from wsr.engine.evaluate import EXACT
from wsr.engine.point_rows import PointRows
from wsr.engine.scoring import key_of, score_points
from wsr.engine.settings import Settings
from wsr.errors import WsrError
from wsr.models.layers.pooling import pool
from wsr.models.model import Model
from wsr.region.region import Region
from wsr.types import Batch, Params


@dataclass(frozen=True, eq=False)
class LanguageModelEvaluation(PointRows):
    """Language-model losses of some points on some texts."""

    region: Region
    """The population."""
    coefficients: Float[np.ndarray, "points members"]
    """One row per point."""
    texts: Texts
    """The texts."""
    losses: Float[np.ndarray, "points texts"]
    """Mean loss over the predicted tokens of each text, in nats per token."""
    how: tuple[str, ...]
    """How each point was scored: ``exact``, or by a surrogate with its degree and error."""

    @property
    def name(self) -> str:
        """Name of the texts."""
        return self.texts.name

    @property
    def numbers(self) -> Float[np.ndarray, "points texts"]:
        """The numbers from which all others follow: the losses."""
        return self.losses

    @property
    def outputs(self) -> Float[np.ndarray, "points texts 1"]:
        """What polynomials follow, see ``wsr.engine.objective``: the losses."""
        return self.losses[..., None]

    @property
    def language_model_loss(self) -> Float[np.ndarray, " points"]:
        """Mean loss of each point over the predicted tokens of all texts, in nats per token."""
        return np.average(self.losses, axis=1, weights=self.texts.predicted)

    @property
    def perplexity(self) -> Float[np.ndarray, " points"]:
        """Exponential of the loss of each point."""
        return np.exp(self.language_model_loss)

    @property
    def by_text(self) -> Float[np.ndarray, "points texts"]:
        """Values per text whose mean is the loss and whose spread gives the loss's standard error.

        The loss over tokens is a ratio of two means over texts; these values are its linearisation (Cochran 1977,
        2.11).
        """
        mean = self.language_model_loss[:, None]
        return mean + self.texts.predicted / self.texts.predicted.mean() * (self.losses - mean)

    def __repr__(self) -> str:
        best = int(self.language_model_loss.argmin())
        return (
            f"{type(self).__name__} of {len(self.losses)} points on {self.name}, {len(self.texts)} texts: loss "
            f"{self.language_model_loss.min():.4f} to {self.language_model_loss.max():.4f} nats per token\n"
            f"  best point {best}: perplexity {self.perplexity[best]:.4f}"
        )

    @property
    def values(self) -> dict[str, Float[np.ndarray, " points"]]:
        """Loss and perplexity of each point, by name."""
        return {"language_model_loss": self.language_model_loss, "perplexity": self.perplexity}

    @property
    def told(self) -> dict[str, Any]:
        """What every row of results says: as ``texts``, the number of predicted tokens."""
        return {"texts": int(self.texts.predicted.sum())}


def evaluate_language_model(
    region: Region,
    coefficients: Float[np.ndarray, "*points members"],
    texts: Texts,
    *,
    settings: Settings = Settings(),
) -> LanguageModelEvaluation:
    """Evaluates points of a region by their language-model loss on texts.

    Args:
      region: the population; its model is a decoder with its language-model head.
      coefficients: one point or one row per point; one column per member, in the order of ``region.members``.
      texts: plain text in windows, see ``wsr.data.texts.load_texts``.
      settings: chunk size, memory, devices, precision and cache of results.

    Raises:
      WsrError: if the region's model is not a language model, or a window is longer than the model's context.

    Example:
      >>> import jax, pathlib, tempfile, wsr
      >>> from wsr.data.texts import load_texts
      >>> from wsr.models.gpt2 import EXAMPLE
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "notes.txt"
      >>> length = path.write_text("a text without a label")
      >>> texts = load_texts(path, wsr.load("tiny").processor, max_length=24)
      >>> model = wsr.models.build("gpt2", {**EXAMPLE, "vocab_size": 108})
      >>> region = wsr.from_params(model, model.init(jax.random.key(0)), {"other": model.init(jax.random.key(1))})
      >>> wsr.evaluate_language_model(region, region.centroid(), texts).losses.shape
      (1, 1)
    """
    coefficients = np.atleast_2d(coefficients)
    losses = score_windows(
        with_losses(region),
        coefficients,
        texts.windows,
        texts.mean_losses,
        name=texts.name,
        saved="losses",
        what={"texts": texts.content_hash, "loss": "language model"},
        settings=settings,
    )
    return LanguageModelEvaluation(region, coefficients, texts, losses, (EXACT,) * len(coefficients))


def score_windows(
    region: Region,
    coefficients: Float[np.ndarray, "points members"],
    windows: Split,
    turn: Callable[[Float[np.ndarray, "points windows"]], Float[np.ndarray, "points _"]],
    *,
    name: str,
    saved: str,
    what: Mapping[str, object],
    settings: Settings,
) -> Float[np.ndarray, "points _"]:
    """Returns a score made of one number per window, for each point; results are kept.

    Args:
      region: the population; its model has that number as its only feature.
      coefficients: one row per point.
      windows: the windows.
      turn: turns the numbers of windows into what is kept of a point.
      name: what the windows are of, for messages.
      saved: name under which a point's result is saved.
      what: everything else that the result depends on.
      settings: chunk size, memory, devices, precision and cache of results.

    Raises:
      WsrError: if a window is longer than the model's context.
    """
    longest, most = int(windows.lengths.max()), region.model.max_length
    if longest > most:
        raise WsrError(
            f"{name}: a window has {longest} tokens, {region.model.name} reads at most {most}; load it with "
            f"max_length={most} or less (on the command line --max_length={most})"
        )
    kept = score_points(
        region,
        coefficients,
        [key_of(region, row, what, settings.precision) for row in coefficients],
        {"windows": windows},
        lambda found: {saved: turn(np.asarray(found["windows"])[:, :, 0])},
        settings=settings,
        note=name,
    )
    return kept[saved]


def with_losses(region: Region) -> Region:
    """Returns the same region with a model whose only feature of a window is the mean loss of its tokens.

    Args:
      region: the population; its model is a decoder with its language-model head.

    Raises:
      WsrError: if the region's model is not a language model.
    """
    return region.with_model(_of_losses(region.model))


def require_token_losses(model: Model) -> Callable[[Params, Batch], Float[Array, "rows length"]]:
    """Returns the model's ``token_losses``.

    Args:
      model: the architecture.

    Raises:
      WsrError: if it is not a language model with its head.
    """
    if model.token_losses is None:
        raise WsrError(
            f"{model.name}: not a language model with its head; use a decoder, such as gpt2, llama or gemma, from a "
            "checkpoint saved as CausalLM, or t5_seq2seq from one saved as T5ForConditionalGeneration"
        )
    return model.token_losses


@lru_cache(maxsize=8)  # programs are compiled once per model
def _of_losses(model: Model) -> Model:
    token_losses = require_token_losses(model)
    if model.encoder_decoder:
        raise WsrError(f"{model.name}: predicts answers to questions, not texts; score it on choices (--loss=choices)")

    def encode(params: Params, batch: Batch, dropout_key: Array | None = None) -> Float[Array, "batch 1"]:
        places = {name: jnp.asarray(batch[name]) for name in ("text_ids", "starts")}
        return pool("mean", token_losses(params, batch)[..., None], places)

    return replace(model, encode=encode, hidden=1)
