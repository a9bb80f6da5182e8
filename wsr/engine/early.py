"""Which of two groups of models is better, to a wanted confidence, from no more forward passes than that takes.

P_B is the probability that a model of group a has a lower mean loss than one of group b
(``wsr.statistics.compare``). Models and texts are read in rounds, a few of each at first, until its interval excludes
one half.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from jaxtyping import Float

from wsr.data.dataset import Dataset
from wsr.engine.evaluate import Protocol, fit_on, point_key
from wsr.engine.probe import fixed_head_loss
from wsr.engine.region_features import region_features
from wsr.errors import WsrError
from wsr.region.region import Region
from wsr.store.results import Points

MAX_ROUNDS = 5
FEWEST_TEXTS = 50
Losses = Float[np.ndarray, "models texts"]


@dataclass(frozen=True, eq=False)
class Group:
    """Models to compare, as points of a region."""

    region: Region
    coefficients: Float[np.ndarray, "points members"]


@dataclass(frozen=True)
class Size:
    """How many models of either group and how many test texts."""

    models_a: int
    models_b: int
    texts: int


@dataclass(frozen=True)
class Look:
    """What one round saw: P_B with an interval that holds in all rounds together."""

    size: Size
    probability: float
    low: float
    high: float

    @property
    def better(self) -> Literal["a", "b"] | None:
        """The group that the interval says is better."""
        return "a" if self.low > 0.5 else "b" if self.high < 0.5 else None


@dataclass(frozen=True)
class EarlyAnswer:
    """The rounds, the last of which is the answer, and what they cost."""

    looks: tuple[Look, ...]
    confidence: float
    texts_needed: int
    """Forward passes over a text that the last look rests on, those of the probe split included."""
    texts_in_full: int
    """The same for all models and all texts."""
    texts_read: int
    """What was read now: what earlier runs left among the points is not read again."""
    seconds: float

    @property
    def saved(self) -> float:
        """Share of the full evaluation that was not needed."""
        return 1 - self.texts_needed / self.texts_in_full


def early_answer(
    a: Group,
    b: Group,
    dataset: Dataset,
    *,
    confidence: float = 0.95,
    protocol: Protocol | None = None,
    points: Points | None = None,
    generator: np.random.Generator,
    tell: Callable[[Look], None] = lambda look: None,
) -> EarlyAnswer:
    """Compares two groups on a dataset's test split and stops when the answer is sure.

    Every loss is exact. A model's probe is fitted when the model is first read, and a text is read once a model.

    Args:
      a, b: the groups; their models and the test texts are read in an order that ``generator`` draws.
      dataset: the target.
      confidence: of not naming the wrong group, all rounds together.
      protocol: how points are scored; None: as ``evaluate`` does.
      points: where heads and losses are kept; what is there is not evaluated again.
      generator: of the order, and of the resamples.
      tell: called after each round.

    Raises:
      WsrError: where a group has too few models for any answer; nothing is evaluated then.
    """
    protocol, points = protocol or Protocol(), points or Points.in_memory()
    full = Size(len(a.coefficients), len(b.coefficients), len(dataset.splits["test"]))
    sizes = schedule(full, confidence)
    order = generator.permutation(full.texts)
    ends = [0, *sorted({size.texts for size in sizes})]
    test = dataset.splits["test"]
    parts = {end: dataset.with_split("test", test.take(order[first:end])) for first, end in pairwise(ends)}
    shuffled = [Group(group.region, generator.permutation(group.coefficients)) for group in (a, b)]
    read = 0
    began = time.perf_counter()

    def losses(size: Size) -> tuple[Losses, Losses]:
        nonlocal read
        known = [part for end, part in parts.items() if end <= size.texts]
        both = []
        for group, models in zip(shuffled, (size.models_a, size.models_b), strict=True):
            part = Group(group.region, group.coefficients[:models])
            read += _read(part, dataset, known, protocol, points)
            both.append(_kept(part, known, protocol, points))
        return both[0], both[1]

    looks = look_in_rounds(losses, sizes, confidence, generator, tell)
    needed, in_full = (
        (size.models_a + size.models_b) * (size.texts + len(dataset.splits["probe"])) for size in (looks[-1].size, full)
    )
    return EarlyAnswer(looks, confidence, needed, in_full, read, time.perf_counter() - began)


def schedule(full: Size, confidence: float) -> tuple[Size, ...]:
    """Returns the sizes of the rounds, growing by equal factors to the full size.

    The first round has just the models that could give an answer, in each group, and a quarter of the texts. There are
    as many rounds as the smaller group bears, at most ``MAX_ROUNDS``.

    Raises:
      WsrError: where not even groups that do not overlap would give an answer.
    """
    if not 0.5 <= confidence < 1:
        raise WsrError(f"confidence: expected at least 0.5 and less than 1, found {confidence:g}")
    fewest = min(full.models_a, full.models_b)
    # k models a group that do not overlap bound P_B by (error / 2) ** (1 / k), see probability_interval.
    rounds = min(MAX_ROUNDS, int((1 - confidence) * 2.0 ** (fewest - 1) * 0.999999))
    if rounds < 1:
        needed = int(np.floor(np.log2(2 / (1 - confidence)))) + 1
        raise WsrError(
            f"P_B to a confidence of {confidence:g}: needs {needed} models in each group even where the groups do not "
            f"overlap, found {full.models_a} and {full.models_b}; draw more points or ask for less"
        )
    first_models = int(np.floor(np.log2(2 * rounds / (1 - confidence)))) + 1
    first_texts = min(full.texts, max(FEWEST_TEXTS, full.texts // 4))

    def grown(first: int, last: int, number: int) -> int:
        return round(first * (last / first) ** (number / (rounds - 1)))

    return (
        *(
            Size(
                grown(first_models, full.models_a, number),
                grown(first_models, full.models_b, number),
                grown(first_texts, full.texts, number),
            )
            for number in range(rounds - 1)
        ),
        full,
    )


def look_in_rounds(
    losses: Callable[[Size], tuple[Losses, Losses]],
    sizes: tuple[Size, ...],
    confidence: float,
    generator: np.random.Generator,
    tell: Callable[[Look], None] = lambda look: None,
) -> tuple[Look, ...]:
    """Looks at growing samples until the interval of P_B excludes one half; the last look is the answer.

    The error is shared out equally over the rounds (Bonferroni), which holds however the looks depend on one another.
    In a simulation (benchmarks/early.py), at a confidence of 0.95 and with 300 runs a law, a group was named in at most
    2.3 % of the runs where neither was better, and the last interval held P_B in at least 97.7 %.
    """
    looks: list[Look] = []
    for size in sizes:
        own = 1 - (1 - confidence) / len(sizes)
        looks.append(Look(size, *probability_interval(*losses(size), confidence=own, generator=generator)))
        tell(looks[-1])
        if looks[-1].better:
            break
    return tuple(looks)


def probability_interval(
    losses_a: Float[np.ndarray, "models_a texts"],
    losses_b: Float[np.ndarray, "models_b texts"],
    *,
    confidence: float,
    generator: np.random.Generator,
) -> tuple[float, float, float]:
    """Returns P_B, ties as half, and the ends of an interval that is honest for few models and for few texts.

    It is Clopper and Pearson's interval of a share of n comparisons, at an effective number n of independent ones (Korn
    and Graubard 1998). Without overlap n is the number k of models of the smaller group: so many pairs have no model in
    common, and no two laws with P_B one half are apart in more than ``2 ** -k`` of all draws. With overlap n comes from
    the variance over models (Brunner and Munzel 2000), with their degrees of freedom, between k and what groups of one
    law have; no law's variance is above that of k pairs (Hoeffding 1963). The variance over texts, by the Bayesian
    bootstrap (Rubin 1981), makes n smaller.
    """
    from scipy.stats import beta, norm, t

    error = 1 - confidence
    models_a, models_b = len(losses_a), len(losses_b)
    # Equal models must tie whatever the order of summation: each distinct row is averaged once.
    rows, which = np.unique(np.concatenate([losses_a, losses_b]).astype(np.float64), axis=0, return_inverse=True)
    which = which.reshape(-1)
    means = rows.mean(axis=1)[which]
    probability = float(_probability(means[None], models_a)[0])
    placed_a, placed_b = _placements(means[:models_a], means[models_a:])

    pairs = float(min(models_a, models_b))
    of_a, of_b = placed_a.var(ddof=1) / models_a, placed_b.var(ddof=1) / models_b
    if of_a + of_b > 0:
        freedom = (of_a + of_b) ** 2 / (of_a**2 / (models_a - 1) + of_b**2 / (models_b - 1))
        student = (norm.ppf(1 - error / 2) / t.ppf(1 - error / 2, freedom)) ** 2
        seen = probability * (1 - probability) / (of_a + of_b) * student
        pairs = float(np.clip(seen, pairs, 3 * models_a * models_b / (models_a + models_b)))

    # Enough resamples for the tail that the interval is about.
    weights = generator.standard_exponential((int(np.ceil(10 / error)), rows.shape[1]))
    drawn = ((weights / weights.sum(axis=1, keepdims=True)) @ rows.T)[:, which]
    of_texts = _probability(drawn, models_a)
    most = of_texts.mean() * (1 - of_texts.mean())
    pairs = 1 / (1 / pairs + (of_texts.var() / most if most > 0 else 0.0))

    won, lost = pairs * probability, pairs * (1 - probability)
    low = float(beta.ppf(error / 2, won, lost + 1)) if won > 0 else 0.0
    high = float(beta.ppf(1 - error / 2, won + 1, lost)) if lost > 0 else 1.0
    return probability, low, high


def _probability(means: Float[np.ndarray, "draws models"], models_a: int) -> Float[np.ndarray, " draws"]:
    """P_B, ties as half, from the ranks of the first group among all (Mann and Whitney 1947)."""
    from scipy.stats import rankdata

    models_b = means.shape[1] - models_a
    ranks = rankdata(means, axis=1)[:, :models_a].sum(axis=1)
    return 1 - (ranks - models_a * (models_a + 1) / 2) / (models_a * models_b)


def _placements(
    a: Float[np.ndarray, " models_a"], b: Float[np.ndarray, " models_b"]
) -> tuple[Float[np.ndarray, " models_a"], Float[np.ndarray, " models_b"]]:
    """The share of models of b that are above each model of a, and of models of a below each model of b."""
    above = (a[:, None] < b) + 0.5 * (a[:, None] == b)
    return above.mean(axis=1), above.mean(axis=0)


def _read(group: Group, dataset: Dataset, parts: list[Dataset], protocol: Protocol, points: Points) -> int:
    """Evaluates what is not among the points yet: heads, and losses on parts of the test split; returns texts read."""
    missing: dict[tuple[str, ...], list[int]] = {}
    for number, row in enumerate(group.coefficients):
        lacking = [part.content_hash for part in parts if _loss_key(group, row, part, protocol) not in points]
        if lacking and _head_key(group, row, dataset, protocol) not in points:
            lacking.append("probe")
        if lacking:
            missing.setdefault(tuple(lacking), []).append(number)
    splits = {part.content_hash: part.splits["test"] for part in parts} | {"probe": dataset.splits["probe"]}
    read = 0
    for names, numbers in missing.items():
        wanted = {name: splits[name] for name in names}
        read += len(numbers) * sum(map(len, wanted.values()))
        rows = group.coefficients[numbers]
        for places, features in region_features(
            group.region,
            rows,
            wanted,
            rows=protocol.rows,
            row_length=protocol.row_length,
            precision=protocol.precision,
        ):
            _score(group, rows[places], features, dataset, parts, protocol, points)
    return read


def _score(
    group: Group,
    rows: np.ndarray,
    features: dict,
    dataset: Dataset,
    parts: list[Dataset],
    protocol: Protocol,
    points: Points,
) -> None:
    keys = [_head_key(group, row, dataset, protocol) for row in rows]
    if "probe" in features:
        # Of the fit only the heads are wanted: any texts do for the test split.
        known = features["probe"][: len(rows)]
        tested = dataset.with_split("test", dataset.splits["probe"])
        fitted = fit_on({"probe": known, "test": known}, tested, protocol).heads
        for number, key in enumerate(keys):
            points.put(key, **{name: np.asarray(leaf[number]) for name, leaf in fitted.items()})
    heads = {name: np.stack([points.get(key)[name] for key in keys]) for name in points.get(keys[0])}
    for part in parts:
        if part.content_hash in features:
            losses = fixed_head_loss(features[part.content_hash][: len(rows)], part.splits["test"].labels, heads)
            for row, own in zip(rows, np.asarray(losses), strict=True):
                points.put(_loss_key(group, row, part, protocol), losses=own)


def _kept(group: Group, parts: list[Dataset], protocol: Protocol, points: Points) -> Losses:
    return np.stack(
        [
            np.concatenate([points.get(_loss_key(group, row, part, protocol))["losses"] for part in parts])
            for row in group.coefficients
        ]
    )


def _loss_key(group: Group, row: np.ndarray, part: Dataset, protocol: Protocol) -> str:
    return f"{point_key(group.region, row, part, protocol)}-losses"


def _head_key(group: Group, row: np.ndarray, dataset: Dataset, protocol: Protocol) -> str:
    return f"{point_key(group.region, row, dataset, protocol)}-head"
