"""The ranking of merge methods: means over populations of accuracy and rank, with intervals over populations and texts.

Each resample draws populations and, for each dataset, test texts; all models of all populations share the texts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from wsr.statistics.difference import holm
from wsr.statistics.interval import Interval
from wsr.statistics.ranks import mean_over_populations, ranks
from wsr.statistics.resampling import counts
from wsr.studies.merged_populations import CENTROID, Cost, Scored

RESAMPLES = 1000
PRETRAINED, INDIVIDUAL, BEST_MEMBER = "pretrained", "individual members", "best member"
COMPARED = (PRETRAINED, INDIVIDUAL, BEST_MEMBER)
"""Models that are no merges: the base, each dataset's own members, and the one member chosen for all datasets."""
Texts = Mapping[str, Float[np.ndarray, "draws texts"]]
Draws = Float[np.ndarray, " draws"]


@dataclass(frozen=True, eq=False)
class Drawn:
    """The scores of one population's models, as observed and in each resample of the test texts."""

    scored: Scored
    accuracy: Mapping[str, Draws]
    """Accuracy of each method, and of the models in ``COMPARED``."""
    normalised: Mapping[str, Draws]


@dataclass(frozen=True, eq=False)
class Ranking:
    """The methods on the populations of one kind, or of all kinds."""

    kind: str
    populations: int
    accuracy: Mapping[str, Interval]
    """Accuracy of each method that merged all of these populations, and of the models in ``COMPARED``."""
    normalised: Mapping[str, Interval]
    rank: Mapping[str, Interval]
    minus_centroid: Mapping[str, Interval]
    """Accuracy minus the centroid's; not of the centroid itself."""
    p_values: Mapping[str, float]
    """p-value of each difference from the centroid, corrected for the number of methods by Holm's procedure."""
    minus_best: Mapping[str, Interval]
    """Accuracy minus that of the best member."""
    helped: Mapping[str, float]
    """Share of the populations in which the merge beats the best member."""
    costs: Mapping[str, Cost]
    """Means over the populations, rounded."""

    @property
    def methods(self) -> list[str]:
        """The methods, best mean rank first."""
        return sorted(self.rank, key=lambda name: (self.rank[name].value, -self.accuracy[name].value))


def drawn_scores(found: Sequence[Scored], generator: np.random.Generator) -> list[Drawn]:
    """Returns the scores of each population's models in resamples of the test texts.

    Args:
      found: the populations.
      generator: source of the resamples.
    """
    texts: dict[str, np.ndarray] = {}
    for own in found:
        for name, right in own.individual.items():
            if name not in texts:
                drawn = counts(len(right), RESAMPLES, generator)
                texts[name] = np.concatenate([np.ones((1, len(right))), drawn]) / len(right)
    return [_drawn(own, texts) for own in found]


def ranking(kind: str, drawn: Sequence[Drawn], generator: np.random.Generator) -> Ranking:
    """Returns the methods that merged all of some populations, with their means over these.

    Args:
      kind: what the populations are.
      drawn: their scores.
      generator: source of the resamples of populations.
    """
    methods = [name for name in drawn[0].scored.methods if all(name in own.scored.methods for own in drawn)]
    groups = [*COMPARED, *methods]
    # Every mean sees the same resamples of populations.
    seed = int(generator.integers(2**63))

    def means(values: Float[np.ndarray, "populations draws groups"]) -> list[Interval]:
        return mean_over_populations(values, generator=np.random.default_rng(seed))

    # Rounded, so that equal shares of texts have a difference of 0.
    accuracy = np.stack([np.stack([own.accuracy[name] for name in groups], axis=1) for own in drawn]).round(12)
    normalised = np.stack([np.stack([own.normalised[name] for name in groups], axis=1) for own in drawn])
    merges = accuracy[:, :, len(COMPARED) :]
    minus_best = merges - accuracy[:, :, [groups.index(BEST_MEMBER)]]
    others = [name for name in methods if name != CENTROID]
    minus_centroid: dict[str, Interval] = {}
    if CENTROID in methods and others:
        rest = merges[:, :, [methods.index(name) for name in others]]
        minus_centroid = dict(zip(others, means(rest - merges[:, :, [methods.index(CENTROID)]]), strict=True))
    costs = {name: [own.scored.costs[name] for own in drawn] for name in methods}
    return Ranking(
        kind,
        len(drawn),
        dict(zip(groups, means(accuracy), strict=True)),
        dict(zip(groups, means(normalised), strict=True)),
        dict(zip(methods, means(ranks(merges)), strict=True)),
        minus_centroid,
        _adjusted(minus_centroid),
        dict(zip(methods, means(minus_best), strict=True)),
        dict(zip(methods, (minus_best[:, 0] > 0).mean(axis=0).tolist(), strict=True)),
        {
            name: Cost(round(np.mean([c.options for c in own])), round(np.mean([c.texts for c in own])))
            for name, own in costs.items()
        },
    )


def _drawn(own: Scored, texts: Texts) -> Drawn:
    accuracy = {name: own.accuracy(name, texts) for name in (PRETRAINED, *own.methods)}
    normalised = {name: own.normalised(name, texts) for name in (PRETRAINED, *own.methods)}
    accuracy[INDIVIDUAL] = np.mean([texts[name] @ right for name, right in own.individual.items()], axis=0)
    normalised[INDIVIDUAL] = np.ones(1 + RESAMPLES)
    accuracy[BEST_MEMBER] = own.accuracy(own.best_member, texts)
    normalised[BEST_MEMBER] = own.normalised(own.best_member, texts)
    return Drawn(own, accuracy, normalised)


def _adjusted(differences: Mapping[str, Interval]) -> dict[str, float]:
    """p-values of normal differences with these 95 % intervals, by Holm."""
    from scipy.stats import norm

    if not differences:
        return {}
    p_values = []
    for own in differences.values():
        error = (own.high - own.low) / 2 / norm.ppf(0.975)
        p_values.append(float(2 * norm.sf(abs(own.value) / error)) if error > 0 else float(own.value == 0))
    return dict(zip(differences, holm(p_values).tolist(), strict=True))
