"""The loss of a causal language model as a target beside the probe: no labels, no head of a dataset, nothing to fit.

It is taken on windows of text, packed as all texts are. The engine is that of ``wsr.engine.evaluate``: here, the one
feature of a window is its loss.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from wsr.data.texts import Texts
from wsr.engine.evaluate import EXACT
from wsr.engine.scoring import key_of, score_points
from wsr.engine.settings import Settings
from wsr.errors import WsrError
from wsr.models.layers.pooling import pool
from wsr.models.model import Model
from wsr.region.region import Region
from wsr.store.row import Row, result_row
from wsr.types import Batch, Params

if TYPE_CHECKING:
    import pandas

METRICS = ("language_model_loss", "perplexity")


@dataclass(frozen=True, eq=False)
class LanguageModelEvaluation:
    """Losses of some points on some texts."""

    region: Region
    coefficients: Float[np.ndarray, "points members"]
    texts: Texts
    losses: Float[np.ndarray, "points texts"]
    """Mean over the predicted tokens of each text, in nats a token."""

    @property
    def language_model_loss(self) -> Float[np.ndarray, " points"]:
        """Mean over the predicted tokens of all texts, in nats a token."""
        return np.average(self.losses, axis=1, weights=self.texts.predicted)

    @property
    def perplexity(self) -> Float[np.ndarray, " points"]:
        """The exponential of the loss."""
        return np.exp(self.language_model_loss)

    @property
    def by_text(self) -> Float[np.ndarray, "points texts"]:
        """Values whose mean over texts is the loss, and the spread of which is that of the loss.

        A loss over tokens is a ratio of two means over texts, and these are its linear part (Cochran 1977, 2.11).
        """
        mean = self.language_model_loss[:, None]
        return mean + self.texts.predicted / self.texts.predicted.mean() * (self.losses - mean)

    def to_frame(self) -> "pandas.DataFrame":
        """One row a point: its loss, its perplexity, and its coefficients by member."""
        import pandas

        values = dict(zip(METRICS, (self.language_model_loss, self.perplexity), strict=True))
        return pandas.DataFrame(values | dict(zip(self.region.names, self.coefficients.T, strict=True)))

    def rows(self, group: str, **more: Any) -> list[Row]:
        """One row a point and metric, in the form of ``Evaluation.rows``; ``n`` counts predicted tokens."""
        tokens = int(self.texts.predicted.sum())
        return [
            result_row(
                group,
                self.texts.name,
                metric,
                values[point],
                texts=tokens,
                how=EXACT,
                members=self.region.names,
                coefficients=row,
                **more,
            )
            for point, row in enumerate(self.coefficients)
            for metric, values in zip(METRICS, (self.language_model_loss, self.perplexity), strict=True)
        ]


def evaluate_language_model(
    region: Region,
    coefficients: Float[np.ndarray, "*points members"],
    texts: Texts,
    *,
    settings: Settings = Settings(),
) -> LanguageModelEvaluation:
    """Takes the loss of points of a region on texts, by forward passes over them.

    Args:
      region: the population; its model is a decoder with its language-model head.
      coefficients: one point, or a row for each point, over the region's members.
      texts: plain text in windows, see ``wsr.data.texts.load_texts``.
      settings: how the engine works.

    Raises:
      WsrError: the region's model is no language model, or a window is longer than it reads.
    """
    coefficients = np.atleast_2d(coefficients)
    longest = int(texts.windows.lengths.max())
    if longest > region.model.max_length:
        raise WsrError(
            f"{texts.name}: a window has {longest} tokens, {region.model.name} reads {region.model.max_length}; "
            f"load the texts with max_length={region.model.max_length} or less"
        )
    what = {"texts": texts.content_hash, "loss": "language model"}
    kept = score_points(
        with_losses(region),
        coefficients,
        [key_of(region, row, what, settings.precision) for row in coefficients],
        {"texts": texts.windows},
        lambda losses: {"losses": texts.mean_losses(np.asarray(losses["texts"])[:, :, 0])},
        settings=settings,
        note=texts.name,
    )
    return LanguageModelEvaluation(region, coefficients, texts, kept["losses"])


def with_losses(region: Region) -> Region:
    """Returns the region under a model whose only feature of a text is the mean loss of its tokens."""
    return Region(_of_losses(region.model), region.base, region.members, base_sha256=region.base_sha256)


@lru_cache(maxsize=8)  # programs are compiled once a model
def _of_losses(model: Model) -> Model:
    token_losses = model.token_losses
    if token_losses is None:
        raise WsrError(
            f"{model.name}: no language model with its head; one is gpt2, llama, qwen2 or qwen3 from a checkpoint "
            "saved as CausalLM"
        )

    def encode(params: Params, batch: Batch, dropout_key: Array | None = None) -> Float[Array, "batch 1"]:
        places = {name: jnp.asarray(batch[name]) for name in ("text_ids", "starts")}
        return pool("mean", token_losses(params, batch)[..., None], places)

    return replace(model, encode=encode, hidden=1)
