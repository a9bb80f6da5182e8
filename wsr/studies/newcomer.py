"""What fine-tuning one target from every start came to, and how good the choices of each rule were."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from wsr.studies.start_rules import LEARNED

CENTROID, RANDOM, PRETRAINED = "centroid of all", "any start", "pretrained"
RULES = (*LEARNED, CENTROID, RANDOM, PRETRAINED)
"""The rules of ``start_rules``, and three that need no examples: always the centroid, a random start, always the
pretrained model."""
NEAR = 0.005
"""Distance of a score from the best start's, half a point, within which a choice counts as right."""


@dataclass(frozen=True, eq=False)
class Newcomer:
    """One target, fine-tuned from every start in one way on one number of examples."""

    names: tuple[str, ...]
    """Names of the starts; the pretrained model is the first, the centroid of all members the second."""
    right: Float[np.ndarray, "starts seeds texts"]
    """What each test text adds to the score after fine-tuning from each start."""
    chosen: Mapping[str, Sequence[int]]
    """For each rule that looks at examples, the start that it chooses with each seed."""
    named: Mapping[float, Sequence[Sequence[int]]]
    """For each confidence, the starts that ``wsr suggest`` names with each seed."""

    def weights(self, rule: str) -> Float[np.ndarray, "seeds starts"]:
        """Returns the probability with which a rule takes each start, for each seed."""
        starts, seeds = self.right.shape[:2]
        if rule == RANDOM:
            return np.full((seeds, starts), 1 / starts)
        fixed = {PRETRAINED: [0] * seeds, CENTROID: [1] * seeds}
        return np.eye(starts)[list(fixed.get(rule) or self.chosen[rule])]


def score_of(newcomer: Newcomer, rule: str) -> float:
    """Returns the mean score of a rule's choices over seeds and texts."""
    return float((newcomer.weights(rule).T * newcomer.right.mean(axis=2)).sum() / newcomer.right.shape[1])


def near_the_best(newcomer: Newcomer, rule: str) -> float:
    """Returns how often a rule's choice scores within ``NEAR`` of the best start, by means over the seeds."""
    means = newcomer.right.mean(axis=(1, 2))
    return float((newcomer.weights(rule) @ (means >= means.max() - NEAR)).mean())


def behind_the_best(newcomer: Newcomer, rule: str, generator: np.random.Generator) -> float:
    """Returns how far a rule's choice lies behind the best start.

    The best of many noisy scores is too high. So the best start is found on one half of the test texts and its score is
    taken on the other, and the other way round.
    """
    halves = np.array_split(generator.permutation(newcomer.right.shape[2]), 2)
    behind = []
    for chosen_on, scored_on in (halves, halves[::-1]):
        best = int(newcomer.right[:, :, chosen_on].mean(axis=(1, 2)).argmax())
        scored = newcomer.right[:, :, scored_on].mean(axis=(1, 2))
        behind.append(scored[best] - (newcomer.weights(rule) @ scored).mean())
    return float(np.mean(behind))


def equal_starts(newcomer: Newcomer, generator: np.random.Generator) -> Newcomer:
    """Returns the newcomer as if all starts were equally good: each text's outcomes are dealt to the starts anew."""
    return replace(newcomer, right=generator.permuted(newcomer.right, axis=0))


def best_is_named(newcomer: Newcomer, confidence: float) -> tuple[float, float]:
    """Returns how often the best start is among those named, and the share of starts that is named."""
    best = int(newcomer.right.mean(axis=(1, 2)).argmax())
    named = newcomer.named[confidence]
    share = np.mean([len(own) for own in named]) / len(newcomer.names)
    return float(np.mean([best in own for own in named])), float(share)
