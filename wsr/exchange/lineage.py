"""Whether models have a common origin, in which order their units lie, and how one differs from the other.

Two tests look for a common origin. Both match hidden units of the feed-forward networks by their weights, and count how
often the match is the one that a common origin predicts; ``wsr.statistics.fixed_points`` has the law of the count for
matches that are uniform permutations.

- In order: unit i of one model is matched to unit i of the other. Under independent training the p-value is exact: the
  initial law does not change if the units of one model change places, and neither does training, so the match is a
  uniform permutation that is independent of all others (Zhu, Ahmed, Kuditipudi and Liang 2025, Independence tests for
  language models, arXiv 2502.12292, section 2; they use Spearman's correlation where this counts fixed points).
- In another order: the weights into a unit and the weights out of it give the same match, once the residual streams are
  matched by the leaves that carry nothing else. Here the p-value is no theorem (their section 3 says the same of its
  robust test, which compares the matches of gate and up projections); so the share of agreeing units must be large as
  well. ``python -m benchmarks.lineage`` counts the errors of both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np

from wsr.errors import WsrError
from wsr.exchange.family_tree import Relation, relations
from wsr.exchange.matching import Leaves, aligned, assigned, moved, rows_of, stream_order
from wsr.exchange.named_model import Named, named_leaves
from wsr.geometry.spectrum import numerical_rank, singular_values
from wsr.models import Checkpoint
from wsr.models.model import Model
from wsr.models.permutations import Axis, FeedForwardUnits, Permutable, permutable
from wsr.runtime.progress import progress
from wsr.statistics.fixed_points import fixed_points_p_value
from wsr.statistics.white_noise import white_noise_p_value
from wsr.store import Store

LEVEL = 0.001
"""Largest probability that a call finds a common origin among independent models, over all its pairs and tests."""
DOUBTFUL = 0.05
"""Above this p-value, two models count as independent; between this and the level, nothing is said."""
LEAST_SHARE = 0.25
"""Share of units that must agree for models in another order."""
MOST_UNITS, MOST_LAYERS = 2048, 8
"""The tests use at most so many units of so many layers: the exponent of the p-value falls with both."""
_LOW_RANK = 1e-2  # singular values below this share of the largest are rounding of a float32 difference

Origin = Literal["in order", "in another order", "independent", "cannot say"]
Change = Literal["none", "rounded", "pruned", "noise", "low rank", "trained", ""]


@dataclass(frozen=True)
class Pair:
    """What can be said of two models."""

    names: tuple[str, str]
    origin: Origin
    """Whether they have a common origin, and whether their units are in one order."""
    p_value: float
    """The smaller p-value of the two tests, times two; 1 if the models cannot be compared."""
    change: Change
    """How the second differs from the first, once its units are in the first's order; empty without a common origin."""
    distance: float | None
    """Norm of the difference, relative to the first's norm, in that order; None without a common origin."""
    relation: Relation
    """What the distances among all models say."""
    parent: str | None
    """Which of the two the other descends from; None if the weights do not tell."""
    told: str
    """The evidence in words."""

    def to_json(self) -> dict[str, Any]:
        """Returns everything as values that JSON can hold."""
        return {**vars(self), "names": list(self.names)}


@dataclass(frozen=True)
class Lineage:
    """What can be said of every pair of some models."""

    names: tuple[str, ...]
    pairs: tuple[Pair, ...]

    def __repr__(self) -> str:
        related = sum(pair.origin.startswith("in ") for pair in self.pairs)
        return (
            f"Lineage of {len(self.names)} models: {related} of {len(self.pairs)} pairs have a common origin\n"
            f"  {'; '.join(f'{a} and {b}: {pair.relation}' for pair in self.pairs[:3] for a, b in [pair.names])}"
        )

    def between(self, first: str, second: str) -> Pair:
        """Returns the pair of two models, whatever their order."""
        return next(pair for pair in self.pairs if set(pair.names) == {first, second})

    def to_json(self) -> dict[str, Any]:
        """Returns everything as values that JSON can hold."""
        return {"models": list(self.names), "pairs": [pair.to_json() for pair in self.pairs]}


def lineage(*models: Named, base: str | None = None, store: Store | None = None) -> Lineage:
    """Tests every pair of models for a common origin and says, where the weights tell, which descends from which.

    All models are in memory.

    Args:
      *models: at least two: checkpoints, registered names, Hugging Face folders, hub names or points of ``store``.
      base: the name of the model from which related models are known to descend; None: it is not known.
      store: the store whose points the names may be.

    Raises:
      WsrError: if a model cannot be read, or two have the same name.

    Example:
      >>> import wsr
      >>> base = wsr.load("tiny")
      >>> tuned = base.with_params(wsr.made_up_region(1).members[0].load())
      >>> wsr.lineage(base, tuned).pairs[0].origin
      'in order'
    """
    if len(models) < 2:
        raise WsrError(f"lineage: expected at least two models, found {len(models)}")
    names = [_called(model, number) for number, model in enumerate(models)]
    if len(set(names)) < len(names):
        raise WsrError(f"lineage: two models have the same name: {', '.join(names)}")
    if base is not None and base not in names:
        raise WsrError(f"lineage: the base {base!r} is none of the models: {', '.join(names)}")
    opened = [named_leaves(model, store) for model in models]
    return lineage_of(dict(zip(names, opened, strict=True)), base)


def lineage_of(models: dict[str, tuple[Model, Leaves]], base: str | None = None) -> Lineage:
    """Returns the lineage of models in memory.

    Args:
      models: architecture and leaves of each, by name.
      base: see ``lineage``.
    """
    pairs = list(combinations(models, 2))
    origins: dict[tuple[str, str], tuple[Origin, float, str]] = {}
    entries, each = 0, {name: sum(leaf.size for leaf in own.values()) for name, (_, own) in models.items()}
    with progress("comparing", sum(each[a] for a, _ in pairs) // 10**6, "million entries") as counter:
        for a, b in pairs:
            origins[a, b] = _origin(models[a], models[b], LEVEL / len(pairs))
            entries += each[a]
            counter.advance(entries // 10**6 - counter.done)
    leaves = _in_one_order(models, origins)
    distances = {
        pair: _distance(*(leaves[name] for name in pair)) for pair, own in origins.items() if own[0].startswith("in ")
    }
    changes = {pair: _change(*(leaves[name] for name in pair)) for pair in distances}
    known = {pair: pair[towards] for pair, (_, towards, _) in changes.items() if towards is not None}
    found = relations(list(models), distances, known, base)
    norms = {name: _norm(own) for name, own in leaves.items()}
    done = []
    for pair, (origin, p_value, told) in origins.items():
        change, _, how = changes.get(pair, ("", None, ""))
        apart = distances[pair] / (norms[pair[0]] or 1.0) if pair in distances else None
        relation, parent = found.get(pair, (_without_origin(origin), None))
        evidence = f"{told}; {how}" if how else told
        done.append(Pair(pair, origin, p_value, change, apart, relation, parent, evidence))
    return Lineage(tuple(models), tuple(done))


def in_order_p_value(first: Leaves, second: Leaves, units: Permutable) -> tuple[float, int, int]:
    """Tests whether unit i of one model belongs to unit i of the other.

    Args:
      first: a model.
      second: another of the same shapes.
      units: what may change places.

    Returns:
      The p-value, the number of units in order, and the number of units.
    """
    tested = _tested(units)
    counts = [
        _fixed(_match(first, second, (*own.into, *own.out), own.size), np.arange(min(own.size, MOST_UNITS)))
        for own in tested
    ]
    sizes = [min(own.size, MOST_UNITS) for own in tested]
    return fixed_points_p_value(sum(counts), sizes), sum(counts), sum(sizes)


def in_another_order_p_value(first: Leaves, second: Leaves, units: Permutable) -> tuple[float, int, int]:
    """Tests whether the weights into units and those out of them are matched alike.

    Args:
      first: a model.
      second: another of the same shapes.
      units: what may change places.

    Returns:
      The p-value, the number of units on which both matches agree, and the number of units.
    """
    second = moved(second, stream_order(first, second, units))
    counts = [
        _fixed(_match(first, second, own.into, own.size), _match(first, second, own.out, own.size))
        for own in _tested(units)
    ]
    sizes = [min(own.size, MOST_UNITS) for own in _tested(units)]
    return fixed_points_p_value(sum(counts), sizes), sum(counts), sum(sizes)


def _called(model: Named, number: int) -> str:
    return (model.name or f"model {number + 1}") if isinstance(model, Checkpoint) else str(model)


def _without_origin(origin: Origin) -> Relation:
    return "independent" if origin == "independent" else "cannot say"


def _tested(units: Permutable) -> Sequence[FeedForwardUnits]:
    """Returns the feed-forward networks that are tested, spread over the depth of the model."""
    count = len(units.feed_forwards)
    chosen = np.linspace(0, count - 1, min(count, MOST_LAYERS)).round().astype(int)
    return [units.feed_forwards[number] for number in np.unique(chosen)]


def _match(first: Leaves, second: Leaves, axes: Sequence[Axis], size: int) -> np.ndarray:
    """Returns the assignment of units by the cosines of their weights on some axes.

    It takes the first units of both models, which under independence are any units.
    """
    size = min(size, MOST_UNITS)
    sides = []
    for leaves in (first, second):
        rows = np.concatenate([rows_of(leaves, axis, size) for axis in axes], axis=1)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        sides.append(rows / np.where(norms > 0, norms, 1.0))
    return assigned(sides[0] @ sides[1].T)


def _fixed(match: np.ndarray, other: np.ndarray) -> int:
    return int((match == other).sum())


def _origin(first: tuple[Model, Leaves], second: tuple[Model, Leaves], level: float) -> tuple[Origin, float, str]:
    (model, ours), (_, theirs) = first, second
    if {path: leaf.shape for path, leaf in ours.items()} != {path: leaf.shape for path, leaf in theirs.items()}:
        return "cannot say", 1.0, "their shapes differ, so their units cannot be compared"
    units = permutable(model)
    if not units.feed_forwards:
        return "cannot say", 1.0, f"wsr does not know the hidden units of {model.name}"
    p_value, count, size = in_order_p_value(ours, theirs, units)
    if 2 * p_value <= level:
        return "in order", min(2 * p_value, 1.0), f"{count} of {size} hidden units match in order"
    other_p, agreeing, size = in_another_order_p_value(ours, theirs, units)
    if 2 * other_p <= level and agreeing >= LEAST_SHARE * size:
        told = f"{agreeing} of {size} hidden units match in another order, {count} in order"
        return "in another order", min(2 * other_p, 1.0), told
    smaller = min(1.0, 2 * min(p_value, other_p))
    told = f"{count} of {size} hidden units match in order, {agreeing} in another order"
    return ("independent" if smaller > DOUBTFUL else "cannot say"), smaller, told


def _in_one_order(
    models: dict[str, tuple[Model, Leaves]], origins: dict[tuple[str, str], tuple[Origin, float, str]]
) -> dict[str, Leaves]:
    """Returns the leaves of each model in the order of the first model to which it is related."""
    found = {name: leaves for name, (_, leaves) in models.items()}
    placed: set[str] = set()
    reordered: set[str] = set()
    for (a, b), (origin, _, _) in origins.items():
        if not origin.startswith("in ") or b in placed:
            continue
        placed.add(b)
        if origin == "in another order" or a in reordered:
            found[b], _ = aligned(found[a], found[b], permutable(models[b][0]), stream=True)
            reordered.add(b)
    return found


def _distance(first: Leaves, second: Leaves) -> float:
    squares = (float(np.square(leaf.astype(np.float64) - second[path]).sum()) for path, leaf in first.items())
    return float(np.sqrt(sum(squares)))


def _norm(leaves: Leaves) -> float:
    return float(np.sqrt(sum(float(np.square(leaf, dtype=np.float64).sum()) for leaf in leaves.values())))


def _change(first: Leaves, second: Leaves) -> tuple[Change, int | None, str]:
    """Returns how two models of a common origin differ, which of them (0 or 1) is the older one, and words."""
    if all(np.array_equal(leaf, second[path]) for path, leaf in first.items()):
        return "none", None, "all weights are equal"
    for older, pair in enumerate(((first, second), (second, first))):
        if (dtype := _rounded(*pair)) is not None:
            return "rounded", older, f"the weights of one are those of the other in {dtype}"
        if (share := _pruned(*pair)) is not None:
            return (
                "pruned",
                older,
                f"the weights of one are those of the other or 0 ({100 * share:.3g} % were set to 0)",
            )
    matrices = {
        path: (second[path].astype(np.float64) - leaf).reshape(leaf.shape[0], -1)
        for path, leaf in first.items()
        if leaf.ndim >= 2 and leaf.any() and min(leaf.shape[0], leaf.size // leaf.shape[0]) >= 2
    }
    changed = {path: own for path, own in matrices.items() if own.any()}
    if not changed:
        return "trained", None, "only vectors differ, such as biases"
    spectra = {path: singular_values(own) for path, own in changed.items()}
    ranks = {path: numerical_rank(own, _LOW_RANK) for path, own in spectra.items()}
    if all(4 * ranks[path] <= min(own.shape) for path, own in changed.items()):
        return "low rank", None, f"the difference has rank {min(ranks.values())} to {max(ranks.values())}"
    noise = min(white_noise_p_value(spectra[path], own.shape) for path, own in changed.items()) * len(changed)
    if noise > LEVEL and len(changed) == len(matrices):
        return "noise", None, f"every difference looks like white noise (p = {min(noise, 1.0):.3g})"
    return "trained", None, "the difference has the directions of training"


def _rounded(older: Leaves, newer: Leaves) -> str | None:
    """Returns the type in which the newer model holds the older one's weights; None if it does not."""
    import ml_dtypes

    for name, dtype in (("bfloat16", ml_dtypes.bfloat16), ("float16", np.float16)):
        if all(np.array_equal(leaf.astype(dtype).astype(np.float32), newer[path]) for path, leaf in older.items()):
            return name
    return None


def _pruned(older: Leaves, newer: Leaves) -> float | None:
    """Returns the share of the older model's weights that the newer one sets to 0; None if others change, too."""
    gone = total = 0
    for path, leaf in older.items():
        unequal = leaf != newer[path]
        if (newer[path][unequal] != 0).any():
            return None
        gone, total = gone + int(unequal.sum()), total + leaf.size
    return gone / total
