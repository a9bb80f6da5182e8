"""Evaluation of decoders on questions with several answers and on preferences, by log-likelihoods, without generating.

The loss of a question is the cross-entropy of its right answer under the softmax of the answers' log-likelihoods. For
a preferred and a rejected answer that is the loss of the Bradley-Terry model, whose strengths are the log-likelihoods.
"""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from wsr.data.choices import Choices
from wsr.engine.evaluate import EXACT
from wsr.engine.language_model import require_token_losses, score_windows
from wsr.engine.point_rows import PointRows
from wsr.engine.settings import Settings
from wsr.models.layers.pooling import pool
from wsr.models.model import Model
from wsr.region.region import Region
from wsr.types import Batch, Params

_ABSENT = -1e9  # log-likelihood in place of an answer, for questions with fewer answers than others


@dataclass(frozen=True, eq=False)
class ChoiceEvaluation(PointRows):
    """Log-likelihoods of the answers to some questions at some points."""

    region: Region
    """The population."""
    coefficients: Float[np.ndarray, "points members"]
    """One row per point."""
    choices: Choices
    """The questions."""
    log_likelihoods: Float[np.ndarray, "points answers"]
    """Log-likelihood of each answer after its question, in nats."""
    how: tuple[str, ...]
    """How each point was scored: ``exact``, or by a surrogate with its degree and error."""

    @property
    def name(self) -> str:
        """Name of the questions."""
        return self.choices.name

    @property
    def numbers(self) -> Float[np.ndarray, "points answers"]:
        """The numbers from which all others follow: the log-likelihoods."""
        return self.log_likelihoods

    @property
    def outputs(self) -> Float[np.ndarray, "points questions others"]:
        """What polynomials follow, see ``wsr.engine.objective``: log-likelihoods less that of the first answer."""
        values, starts = self.log_likelihoods, self.choices.first_answer
        counts = np.diff(starts, append=values.shape[1])
        place = np.arange(counts.max())
        wide = np.minimum(starts[:, None] + place, values.shape[1] - 1)
        outputs = values[:, wide] - values[:, starts][..., None]
        return np.where(place < counts[:, None], outputs, _ABSENT)[..., 1:]

    @cached_property
    def losses(self) -> Float[np.ndarray, "points questions"]:
        """Cross-entropy of each question's right answer, in nats."""
        starts, right = self.choices.first_answer, self.choices.right
        counts = np.diff(starts, append=self.log_likelihoods.shape[1])
        highest = np.maximum.reduceat(self.log_likelihoods, starts, axis=1)
        shares = np.exp(self.log_likelihoods - np.repeat(highest, counts, axis=1))
        return np.log(np.add.reduceat(shares, starts, axis=1)) + highest - self.log_likelihoods[:, right]

    @property
    def choice_loss(self) -> Float[np.ndarray, " points"]:
        """Mean loss of each point over questions, in nats."""
        return self.losses.mean(axis=1)

    @property
    def accuracy(self) -> Float[np.ndarray, " points"]:
        """Share of questions whose right answer has the highest log-likelihood: ``acc`` of lm-evaluation-harness."""
        return self._chosen(self.log_likelihoods).mean(axis=1)

    @property
    def accuracy_per_character(self) -> Float[np.ndarray, " points"]:
        """The same with log-likelihoods divided by the answers' characters: ``acc_norm`` of lm-evaluation-harness."""
        return self._chosen(self.log_likelihoods / self.choices.characters).mean(axis=1)

    def _chosen(self, values: Float[np.ndarray, "points answers"]) -> Bool[np.ndarray, "points questions"]:
        """Returns whether the right answer has the highest value; of equal ones the first counts."""
        starts, right = self.choices.first_answer, self.choices.right
        ends = np.append(starts[1:], values.shape[1])
        best = [start + values[:, start:end].argmax(axis=1) for start, end in zip(starts, ends, strict=True)]
        return np.stack(best, axis=1) == right

    @property
    def by_text(self) -> Float[np.ndarray, "points questions"]:
        """Loss of each question."""
        return self.losses

    @property
    def values(self) -> dict[str, Float[np.ndarray, " points"]]:
        """Loss and both accuracies of each point, by name."""
        return {
            "choice_loss": self.choice_loss,
            "accuracy": self.accuracy,
            "accuracy_per_character": self.accuracy_per_character,
        }

    def __repr__(self) -> str:
        best = int(self.choice_loss.argmin())
        return (
            f"{type(self).__name__} of {len(self.losses)} points on {self.choices.name}, {len(self.choices)} "
            f"questions: choice loss {self.choice_loss.min():.4f} to {self.choice_loss.max():.4f}\n"
            f"  best point {best}: accuracy {self.accuracy[best]:.4f}"
        )

    @property
    def told(self) -> dict[str, Any]:
        """What every row of results says: as ``texts``, the number of questions."""
        return {"texts": len(self.choices)}


def evaluate_choices(
    region: Region,
    coefficients: Float[np.ndarray, "*points members"],
    choices: Choices,
    *,
    settings: Settings = Settings(),
) -> ChoiceEvaluation:
    """Evaluates points of a region by the log-likelihoods of the answers to questions.

    Args:
      region: the population; its model is a decoder with its language-model head.
      coefficients: one point or one row per point; one column per member, in the order of ``region.members``.
      choices: the questions, see ``wsr.data.choices.load_choices``.
      settings: chunk size, memory, devices, precision and cache of results.

    Raises:
      WsrError: if the region's model is not a language model, or a question with an answer is longer than its context.

    Example:
      >>> import jax, pathlib, tempfile, wsr
      >>> from wsr.data.choices import load_choices
      >>> from wsr.models.gpt2 import EXAMPLE
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "preferences.jsonl"
      >>> length = path.write_text('{"prompt": "1 + 1 =", "chosen": "2", "rejected": "3"}')
      >>> questions = load_choices(path, wsr.load("tiny").processor, max_length=24)
      >>> model = wsr.models.build("gpt2", {**EXAMPLE, "vocab_size": 108})
      >>> region = wsr.from_params(model, model.init(jax.random.key(0)), {"other": model.init(jax.random.key(1))})
      >>> wsr.evaluate_choices(region, region.centroid(), questions).log_likelihoods.shape
      (1, 2)
    """
    coefficients = np.atleast_2d(coefficients)
    log_likelihoods = score_windows(
        with_answer_losses(region),
        coefficients,
        choices.windows,
        choices.log_likelihoods,
        name=choices.name,
        saved="log_likelihoods",
        what={"choices": choices.content_hash, "loss": "log-likelihood"},
        settings=settings,
    )
    return ChoiceEvaluation(region, coefficients, choices, log_likelihoods, (EXACT,) * len(coefficients))


def with_answer_losses(region: Region) -> Region:
    """Returns the same region with a model whose only feature of a window is the loss of its answer, divided by the
    window's number of tokens.

    Args:
      region: the population; its model is a decoder with its language-model head.

    Raises:
      WsrError: if the region's model is not a language model.
    """
    return region.with_model(_of_answers(region.model))


@lru_cache(maxsize=8)  # programs are compiled once per model
def _of_answers(model: Model) -> Model:
    token_losses = require_token_losses(model)

    def encode(params: Params, batch: Batch, dropout_key: Array | None = None) -> Float[Array, "batch 1"]:
        places = {name: jnp.asarray(batch[name]) for name in ("text_ids", "starts")}
        return pool("mean", (token_losses(params, batch) * batch["token_types"])[..., None], places)

    return replace(model, encode=encode, hidden=1)
