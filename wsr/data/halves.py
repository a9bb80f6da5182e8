"""Two halves of texts or questions: one to choose models by, the other to score the chosen ones."""

from typing import TypeVar

import numpy as np
from jaxtyping import Shaped

from wsr.data.choices import Choices
from wsr.data.texts import Texts
from wsr.errors import WsrError
from wsr.runtime.seeds import generator

_Kind = TypeVar("_Kind", bound=Texts | Choices)


def halves(target: _Kind) -> tuple[_Kind, _Kind]:
    """Returns two disjoint halves of texts or questions, drawn at random but always the same.

    Equal texts, and questions with the same answers, stand in the same half.

    Args:
      target: the texts or questions.

    Raises:
      WsrError: if there are fewer than two different ones.

    Example:
      >>> import wsr
      >>> from wsr.data.halves import halves
      >>> from wsr.data.texts import load_texts
      >>> first, second = halves(load_texts("made_up_a1", wsr.load("tiny").processor, max_length=48))
      >>> len(first), len(second)
      (30, 30)
    """
    different, kind = np.unique(_identities(target), return_inverse=True)
    if len(different) < 2:
        raise WsrError(f"{target.name}: found {len(different)} different texts; two halves need at least two")
    in_first = generator(0, "halves").permutation(len(different)) < len(different) // 2
    numbers = (np.flatnonzero(in_first[kind]), np.flatnonzero(~in_first[kind]))
    return tuple(target.take(own) for own in numbers)  # type: ignore[return-value]  # two of the same kind


def _identities(target: Texts | Choices) -> Shaped[np.ndarray, " items"]:
    """A number for each text or question; equal ones have the same."""
    if isinstance(target, Choices) and target.text_hashes is not None:
        return np.minimum.reduceat(target.text_hashes, target.first_answer)
    if isinstance(target, Texts) and target.hashes_of_scored is not None:
        return target.hashes_of_scored
    return np.arange(len(target))
