"""Comparison of two groups of models that stops as soon as the answer is certain enough.

P_B is the probability that a model of group a has a lower mean loss than a model of group b
(``wsr.statistics.better``). Models and texts are evaluated in rounds of growing size until the confidence interval of
P_B excludes one half.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from wsr.data.dataset import Dataset
from wsr.engine.evaluate import Protocol, fit_draws, point_key
from wsr.engine.probe import fixed_head_loss
from wsr.engine.region_features import region_features
from wsr.engine.settings import Settings
from wsr.errors import WsrError
from wsr.region.region import Region
from wsr.statistics.better import probability_interval
from wsr.store.results import Results

MAX_ROUNDS = 5
FEWEST_TEXTS = 50
Losses = Float[np.ndarray, "models texts"]


@dataclass(frozen=True, eq=False)
class Group:
    """A group of models to compare, as points of a region.

    Example:
      >>> import numpy as np, wsr
      >>> region = wsr.made_up_region(3)
      >>> wsr.Group(region, np.eye(3)).coefficients.shape  # the members themselves
      (3, 3)
    """

    region: Region
    """The population."""
    coefficients: Float[np.ndarray, "points members"]
    """One row per model."""


@dataclass(frozen=True)
class Size:
    """Number of models of each group, and number of test texts."""

    models_a: int
    models_b: int
    texts: int


@dataclass(frozen=True)
class Look:
    """The result of one round: P_B with a confidence interval that is valid for all rounds together."""

    size: Size
    """Models and texts evaluated so far."""
    probability: float
    """Estimate of P_B."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""

    @property
    def better(self) -> Literal["a", "b"] | None:
        """The better group according to the interval; None if it contains one half."""
        return "a" if self.low > 0.5 else "b" if self.high < 0.5 else None


@dataclass(frozen=True)
class EarlyAnswer:
    """The rounds of a comparison and their cost; the last round is the answer."""

    looks: tuple[Look, ...]
    """The rounds, in order."""
    confidence: float
    """Confidence of all rounds together."""
    texts_needed: int
    """Forward passes (one text under one model) behind the last round, those of the probe split included."""
    texts_in_full: int
    """Forward passes for all models and all texts."""
    texts_read: int
    """Forward passes of this call; results cached by earlier calls cost none."""
    seconds: float
    """Duration of this call."""

    @property
    def saved(self) -> float:
        """Share of the full evaluation that was not needed."""
        return 1 - self.texts_needed / self.texts_in_full


def compare(
    a: Group,
    b: Group,
    dataset: Dataset,
    *,
    confidence: float = 0.95,
    protocol: Protocol = Protocol(),
    settings: Settings = Settings(),
    generator: np.random.Generator | None = None,
    tell: Callable[[Look], None] = lambda look: None,
) -> EarlyAnswer:
    """Compares two groups of models on a dataset's test split and stops as soon as the answer is certain enough.

    Every loss is exact. A model's probe is fitted when the model is first evaluated; no text is evaluated twice under
    the same model.

    Args:
      a: the first group.
      b: the second group.
      dataset: the target dataset.
      confidence: probability of not naming the worse group, over all rounds together.
      protocol: the classifier that is fitted to each model's features.
      settings: chunk size, memory, devices, precision and cache of results, which holds heads and losses.
      generator: draws the order of models and texts and the bootstrap resamples; None: ``numpy.random.default_rng(0)``.
      tell: called after each round.

    Raises:
      WsrError: if a group has too few models to reach the confidence; this is checked before any evaluation.

    Example:
      >>> import numpy as np, wsr
      >>> region = wsr.made_up_region(4)
      >>> data = wsr.load_dataset("made_up_a1", wsr.load("tiny").processor, max_length=48)
      >>> hull = np.random.default_rng(0).dirichlet(np.ones(4), size=4)
      >>> answer = wsr.compare(wsr.Group(region, np.eye(4)), wsr.Group(region, hull), data, confidence=0.75)
      >>> answer.looks[-1].size
      Size(models_a=4, models_b=4, texts=60)
    """
    generator = np.random.default_rng(0) if generator is None else generator
    settings = replace(settings, results=settings.results or Results.in_memory())
    scorer = _Scorer(dataset, protocol, settings)
    full = Size(len(a.coefficients), len(b.coefficients), len(dataset.splits["test"]))
    sizes = schedule(full, confidence)
    order = generator.permutation(full.texts)
    ends = [0, *sorted({size.texts for size in sizes})]
    test = dataset.splits["test"]
    parts = {end: dataset.with_split("test", test.take(order[first:end])) for first, end in pairwise(ends)}
    shuffled = [Group(group.region, generator.permutation(group.coefficients)) for group in (a, b)]
    read = 0
    began = time.perf_counter()

    def losses(size: Size) -> tuple[Float[np.ndarray, "models_a texts"], Float[np.ndarray, "models_b texts"]]:
        nonlocal read
        known = [part for end, part in parts.items() if end <= size.texts]
        both = []
        for group, models in zip(shuffled, (size.models_a, size.models_b), strict=True):
            part = Group(group.region, group.coefficients[:models])
            read += scorer.read(part, known)
            both.append(scorer.kept(part, known))
        return both[0], both[1]

    looks = look_in_rounds(losses, sizes, confidence, generator, tell)
    needed, in_full = (
        (size.models_a + size.models_b) * (size.texts + len(dataset.splits["probe"])) for size in (looks[-1].size, full)
    )
    return EarlyAnswer(looks, confidence, needed, in_full, read, time.perf_counter() - began)


def schedule(full: Size, confidence: float) -> tuple[Size, ...]:
    """Returns the sizes of the rounds, which grow by equal factors up to the full size.

    The first round has in each group the fewest models that could give an answer, and a quarter of the texts. The
    smaller group determines the number of rounds, at most ``MAX_ROUNDS``.

    Args:
      full: all models and all texts.
      confidence: confidence of all rounds together.

    Raises:
      WsrError: if not even groups that do not overlap could reach the confidence.

    Example:
      >>> from wsr.engine.early import Size, schedule
      >>> [size.models_a for size in schedule(Size(30, 30, 400), confidence=0.95)]
      [8, 11, 15, 22, 30]
    """
    if not 0.5 <= confidence < 1:
        raise WsrError(f"confidence: expected at least 0.5 and less than 1, found {confidence:g}")
    fewest = min(full.models_a, full.models_b)
    # k models per group that do not overlap bound P_B by (error / 2) ** (1 / k), see probability_interval.
    rounds = min(MAX_ROUNDS, int((1 - confidence) * 2.0 ** (fewest - 1) * 0.999999))
    if rounds < 1:
        needed = int(np.floor(np.log2(2 / (1 - confidence)))) + 1
        raise WsrError(
            f"P_B with a confidence of {confidence:g} needs {needed} models in each group even if the groups do not "
            f"overlap, found {full.models_a} and {full.models_b}; draw more points or lower the confidence"
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
    """Evaluates growing samples until the confidence interval of P_B excludes one half; the last round is the answer.

    The error probability is divided equally among the rounds (Bonferroni), which is valid however the rounds depend on
    one another. In a simulation (benchmarks/early.py) at a confidence of 0.95 with 300 runs per distribution, a group
    was named in at most 2.3 % of the runs in which neither was better, and the last interval contained P_B in at least
    97.7 %.

    Args:
      losses: returns the losses of both groups for a sample of that size.
      sizes: sizes of the rounds.
      confidence: confidence of all rounds together.
      generator: draws the bootstrap resamples.
      tell: called after each round.
    """
    looks: list[Look] = []
    for size in sizes:
        own = 1 - (1 - confidence) / len(sizes)
        looks.append(Look(size, *probability_interval(*losses(size), confidence=own, generator=generator)))
        tell(looks[-1])
        if looks[-1].better:
            break
    return tuple(looks)


@dataclass(frozen=True)
class _Scorer:
    """Evaluates heads and losses on parts of the test split that are not in the cache."""

    dataset: Dataset
    protocol: Protocol
    settings: Settings

    @property
    def results(self) -> Results:
        """Cache of heads and losses."""
        assert self.settings.results is not None
        return self.settings.results

    def read(self, group: Group, parts: list[Dataset]) -> int:
        """Evaluates what is missing from the cache and returns the number of forward passes over a text."""
        missing: dict[tuple[str, ...], list[int]] = {}
        for number, row in enumerate(group.coefficients):
            lacking = [part.content_hash for part in parts if self._key(group, row, part, "losses") not in self.results]
            if lacking and self._key(group, row, self.dataset, "head") not in self.results:
                lacking.append("probe")
            if lacking:
                missing.setdefault(tuple(lacking), []).append(number)
        splits = {part.content_hash: part.splits["test"] for part in parts} | {"probe": self.dataset.splits["probe"]}
        read = 0
        for names, numbers in missing.items():
            wanted = {name: splits[name] for name in names}
            read += len(numbers) * sum(map(len, wanted.values()))
            rows = group.coefficients[numbers]
            for places, features in region_features(group.region, rows, wanted, settings=self.settings):
                self._score(group, rows[places], features, parts)
                self.settings.advance(len(places), self.dataset.name)
        return read

    def kept(self, group: Group, parts: list[Dataset]) -> Losses:
        """Returns the losses of all models of a group on the given parts."""
        return np.stack(
            [
                np.concatenate([self.results.get(self._key(group, row, part, "losses"))["losses"] for part in parts])
                for row in group.coefficients
            ]
        )

    def _score(self, group: Group, rows: np.ndarray, features: dict, parts: list[Dataset]) -> None:
        keys = [self._key(group, row, self.dataset, "head") for row in rows]
        if "probe" in features:
            # Only the heads of this fit are used, so any texts can serve as its test split.
            known = features["probe"][: len(rows)]
            tested = self.dataset.with_split("test", self.dataset.splits["probe"])
            draws = [draw.heads for draw in fit_draws({"probe": known, "test": known}, tested, self.protocol)]
            fitted = {name: np.stack([np.asarray(heads[name]) for heads in draws], axis=1) for name in draws[0]}
            for number, key in enumerate(keys):
                self.results.put(key, **{name: leaf[number] for name, leaf in fitted.items()})
        first = self.results.get(keys[0])
        heads = {name: np.stack([self.results.get(key)[name] for key in keys]) for name in first}
        draws = [
            {name: jnp.asarray(leaf[:, draw]) for name, leaf in heads.items()} for draw in range(self.protocol.draws)
        ]
        for part in parts:
            if part.content_hash in features:
                texts, labels = features[part.content_hash][: len(rows)], part.splits["test"].labels
                losses = np.stack([np.asarray(fixed_head_loss(texts, labels, draw)) for draw in draws]).mean(axis=0)
                for row, own in zip(rows, losses, strict=True):
                    self.results.put(self._key(group, row, part, "losses"), losses=own)

    def _key(self, group: Group, row: np.ndarray, dataset: Dataset, what: str) -> str:
        return f"{point_key(group.region, row, dataset, self.protocol, self.settings.precision)}-{what}"
