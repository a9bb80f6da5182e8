"""Comparison of two groups of models that stops as soon as the answer is certain enough.

P_B is the probability that a model of group a has a lower mean loss than a model of group b
(``wsr.statistics.better``). Models and texts are evaluated in rounds of growing size until the confidence interval of
P_B excludes one half. The interval counts sources, which are datasets, or members of one dataset, and not models: see
``wsr.statistics.sources``.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from wsr.data.dataset import Dataset
from wsr.engine.evaluate import Protocol, fit_draws, point_key
from wsr.engine.probe import fixed_head_loss
from wsr.engine.region_features import for_each_chunk
from wsr.engine.settings import Settings
from wsr.errors import WsrError
from wsr.region.region import Region
from wsr.statistics.better import probability_better
from wsr.statistics.sources import Sources, by_source
from wsr.store.results import Results

MAX_ROUNDS = 5
FEWEST_TEXTS = 50
Losses = Float[np.ndarray, "*draws models texts"]


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

    @property
    def sources(self) -> Sources:
        """The datasets of the members behind the models; the members themselves if all are of one dataset.

        A model's share in a member is its coefficient, without the sign, over the sum of all. The base itself (a row of
        zeros) is a source of its own.
        """
        sizes = np.abs(np.asarray(self.coefficients, np.float64))
        used = np.flatnonzero(sizes.any(axis=0))
        datasets = [self.region.datasets[k] for k in used]
        kind = "dataset" if len(set(datasets)) > 1 else "member"
        names = datasets if kind == "dataset" else [self.region.names[k] for k in used]
        shares = by_source(names, sizes[:, used])
        names = list(dict.fromkeys(names))
        if not sizes.any(axis=1).all():
            names.append("base")
            shares = np.concatenate([shares, ~sizes.any(axis=1, keepdims=True)], axis=1)
        return Sources(tuple(names), shares / shares.sum(axis=1, keepdims=True), kind)


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
    reason: str = ""
    """Why there is no interval, in which case ``low`` is 0 and ``high`` 1: a group comes from too few sources."""

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

    The groups must come from enough sources: with fewer than three the last look gives P_B and says why there is no
    interval. ``sources_needed`` says from how many on a clear difference is certain.

    Raises:
      WsrError: if the confidence is not at least 0.5 and less than 1.

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
    order = generator.permutation(full.texts)
    shuffled = [_in_turn(group, generator) for group in (a, b)]
    sources = (shuffled[0].sources, shuffled[1].sources)
    sizes = schedule(full, sources, confidence)
    ends = [0, *sorted({size.texts for size in sizes})]
    test = dataset.splits["test"]
    parts = {end: dataset.with_split("test", test.take(order[first:end])) for first, end in pairwise(ends)}
    read = 0
    began = time.perf_counter()

    def losses(
        size: Size,
    ) -> tuple[Float[np.ndarray, "*draws models_a texts"], Float[np.ndarray, "*draws models_b texts"]]:
        nonlocal read
        known = [part for end, part in parts.items() if end <= size.texts]
        both = []
        for group, models in zip(shuffled, (size.models_a, size.models_b), strict=True):
            part = Group(group.region, group.coefficients[:models])
            read += scorer.read(part, known)
            both.append(scorer.kept(part, known))
        return both[0], both[1]

    looks = look_in_rounds(losses, sizes, sources, confidence, generator, tell)
    needed, in_full = (
        (size.models_a + size.models_b) * (size.texts + len(dataset.splits["probe"])) for size in (looks[-1].size, full)
    )
    return EarlyAnswer(looks, confidence, needed, in_full, read, time.perf_counter() - began)


def sources_needed(confidence: float) -> int:
    """Returns the fewest sources of each group that allow an answer if the groups do not overlap.

    Args:
      confidence: confidence of the answer.

    Example:
      >>> from wsr.engine.early import sources_needed
      >>> sources_needed(0.95), sources_needed(0.8)
      (6, 4)
    """
    # k sources per group that do not overlap bound P_B by (error / 2) ** (1 / k), see probability_better.
    return int(np.floor(np.log2(2 / (1 - confidence)) + 1e-9)) + 1


def schedule(full: Size, sources: tuple[Sources, Sources], confidence: float) -> tuple[Size, ...]:
    """Returns the sizes of the rounds, which grow by equal factors up to the full size.

    The first round has in each group the fewest models that could give an answer, one from each source, and a quarter
    of the texts. The group with fewer sources determines the number of rounds, at most ``MAX_ROUNDS``; if it has too
    few for an answer between groups that do not overlap, the only round is the full size.

    Args:
      full: all models and all texts.
      sources: the sources of both groups.
      confidence: confidence of all rounds together.

    Raises:
      WsrError: if the confidence is not at least 0.5 and less than 1.

    Example:
      >>> from wsr.engine.early import Size, schedule
      >>> from wsr.statistics.sources import Sources
      >>> models = Sources.independent(30, "a"), Sources.independent(30, "b")
      >>> [size.models_a for size in schedule(Size(30, 30, 400), models, confidence=0.95)]
      [8, 11, 15, 22, 30]
    """
    if not 0.5 <= confidence < 1:
        raise WsrError(f"confidence: expected at least 0.5 and less than 1, found {confidence:g}")
    fewest = min(len(own.names) for own in sources)
    rounds = min(MAX_ROUNDS, int((1 - confidence) * 2.0 ** (fewest - 1) * 0.999999))
    if rounds < 2:
        return (full,)
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
    sources: tuple[Sources, Sources],
    confidence: float,
    generator: np.random.Generator,
    tell: Callable[[Look], None] = lambda look: None,
) -> tuple[Look, ...]:
    """Evaluates growing samples until the confidence interval of P_B excludes one half; the last round is the answer.

    The error probability is divided equally among the rounds (Bonferroni), which is valid however the rounds depend on
    one another. benchmarks/early.py and benchmarks/coverage.py simulate how often a wrong group is named.

    Args:
      losses: returns the losses of both groups for a sample of that size.
      sizes: sizes of the rounds.
      sources: sources of all models of both groups, in the order in which the models are added.
      confidence: confidence of all rounds together.
      generator: draws the bootstrap resamples.
      tell: called after each round.
    """
    looks: list[Look] = []
    for size in sizes:
        own = 1 - (1 - confidence) / len(sizes)
        found = probability_better(
            *losses(size),
            sources_a=sources[0].first(size.models_a),
            sources_b=sources[1].first(size.models_b),
            confidence=own,
            generator=generator,
        )
        looks.append(Look(size, found.probability, found.low, found.high, found.reason))
        tell(looks[-1])
        if looks[-1].better:
            break
    return tuple(looks)


def _in_turn(group: Group, generator: np.random.Generator) -> Group:
    """Returns the models in random order, one of each source in turn, so that few models have many sources."""
    rows = generator.permutation(group.coefficients)
    nearest = Group(group.region, rows).sources.shares.argmax(axis=1)
    turn = [int((nearest[:place] == own).sum()) for place, own in enumerate(nearest)]
    return Group(group.region, rows[np.argsort(turn, kind="stable")])


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
            score = partial(self._score, group, rows, parts)
            for_each_chunk(group.region, rows, wanted, score, settings=self.settings)
        return read

    def kept(self, group: Group, parts: list[Dataset]) -> Losses:
        """Returns the losses of all models of a group on the given parts, for each draw of probe texts."""
        by_model = [
            [self.results.get(self._key(group, row, part, "losses"))["losses"] for part in parts]
            for row in group.coefficients
        ]
        return np.stack([np.concatenate(own, axis=1) for own in by_model], axis=1)

    def _score(self, group: Group, rows: np.ndarray, parts: list[Dataset], places: list[int], features: dict) -> None:
        """Scores and saves a chunk: the rows at these places."""
        rows = rows[places]
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
                losses = np.stack([np.asarray(fixed_head_loss(texts, labels, draw)) for draw in draws], axis=1)
                for row, own in zip(rows, losses, strict=True):
                    self.results.put(self._key(group, row, part, "losses"), losses=own)
        self.settings.advance(len(places), self.dataset.name)

    def _key(self, group: Group, row: np.ndarray, dataset: Dataset, what: str) -> str:
        return f"{point_key(group.region, row, dataset, self.protocol, self.settings.precision)}-{what}"
