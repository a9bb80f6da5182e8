"""LoRA adapters of points and of merges: exact sums of factors, or a truncated SVD whose error is measured."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import numpy as np

from wsr.errors import WsrError
from wsr.geometry.low_rank import Factors, LowRank, OpenLowRank
from wsr.geometry.trees import flatten
from wsr.geometry.truncation import concatenated, lowered, squared_distance, truncated
from wsr.models.huggingface.heads import ClassifierHead
from wsr.models.huggingface.peft_write import places
from wsr.models.model import Model
from wsr.store import Store

Change = Callable[[str], Factors | np.ndarray | None]
"""Returns the change of the leaf at a path: factors, the difference from the base, or None if it equals the base."""


@dataclass(frozen=True, eq=False)
class Adapter:
    """The low-rank factors of a task vector, and how much of the task vector they lose."""

    task_vector: LowRank
    """Factors of each leaf that changes."""
    error: float
    """Length of the lost part, relative to the task vector; 0 if the factors are exact."""
    worst: str
    """Path of the leaf that loses most, relative to its own change; empty if the factors are exact."""
    worst_error: float
    """The relative error of that leaf."""

    def __repr__(self) -> str:
        return f"Adapter of {len(self.task_vector)} leaves\n  {self}"

    def __str__(self) -> str:
        ranks = sorted({own.a.shape[1] for own in self.task_vector.values() if own.a.shape != (1, 1)})
        rank = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
        if not self.worst:
            return f"{rank}, exact: relative error 0 of the task vector"
        return (
            f"{rank}: relative error {self.error:.4g} of the task vector; "
            f"of single leaves at most {self.worst_error:.4g} ({self.worst})"
        )


def adapter_of(
    model: Model,
    change: Change,
    *,
    rank: int | None = None,
    share: float | None = None,
    head: ClassifierHead | None = None,
    hint: str = "",
) -> Adapter:
    """Returns the adapter of a task vector, which is read leaf by leaf.

    Args:
      model: the model.
      change: the change of each leaf.
      rank: largest rank of a matrix; None: no limit.
      share: share of the Frobenius norm of each matrix that is kept at least, by the smallest rank that does.
      head: head of the adapted class.
      hint: text for the message if the task vector is no sum of factors.

    Raises:
      WsrError: if an exact adapter is wanted (no ``rank`` and no ``share``) and a leaf has no factors, or PEFT's
        adapters cannot hold it; or if no matrix changes.
    """
    where = places(model, head)
    kept: dict[str, Factors] = {}
    squares: dict[str, float] = {}
    errors: dict[str, float] = {}
    for path in _paths(model):
        own, place = change(path), where.get(path)
        if own is None or (isinstance(own, np.ndarray) and not own.any()):
            continue
        squares[path], errors[path] = _squared(own), 0.0
        if place is not None and place.kind == "vector":
            kept[path] = own if isinstance(own, Factors) else Factors(np.ones((1, 1), np.float32), own[None])
        elif isinstance(own, Factors) and place is not None and share is None and own.a.shape[1] <= (rank or np.inf):
            kept[path] = own
        elif rank is None and share is None:
            why = "is no module that PEFT adapts" if place is None else "has no low-rank factors"
            raise WsrError(f"no exact adapter: {path} {why}{hint}; choose the largest rank with --rank")
        else:
            found = _closest(own, rank, share) if place is not None else None
            errors[path] = squares[path] if found is None else squared_distance(_dense(own), found)
            if found is not None:
                kept[path] = found
    relative = {path: float(np.sqrt(errors[path] / squares[path])) for path in squares if squares[path]}
    if not any(where[path].kind in ("matrix", "table") for path in kept) or not relative:
        raise WsrError("no adapter to write: no matrix differs from the base's")
    worst = max(relative, key=relative.__getitem__)
    whole = float(np.sqrt(sum(errors.values()) / sum(squares.values())))
    return Adapter(kept, whole, worst if relative[worst] else "", relative[worst])


def change_of_point(store: Store, coefficients: Callable[[str], Mapping[str, float]]) -> Change:
    """Returns the change of a point of a store: factors where all its members have them.

    Args:
      store: the store.
      coefficients: returns the coefficient of each member at a leaf; those that are zero play no part.
    """
    vectors: dict[str, Callable[[str], Callable[[int, np.ndarray], None]]] = {}
    shapes = {path: np.shape(leaf) for path, leaf in flatten(store.base()).items()}

    def change(path: str) -> Factors | np.ndarray | None:
        row = {name: own for name, own in coefficients(path).items() if own}
        for name in row:
            vectors.setdefault(name, store.open_task_vector(name))
        opened = [vectors[name] for name in row]
        factored = [own for own in opened if isinstance(own, OpenLowRank)]
        if len(factored) == len(opened):
            found = [(own.factors(path), at) for own, at in zip(factored, row.values(), strict=True)]
            there = [(own, at) for own, at in found if own is not None]
            if len(there) == 1 and there[0][1] == 1:
                return there[0][0]
            return concatenated([own for own, _ in there], [at for _, at in there]) if there else None
        total = np.zeros(int(np.prod(shapes[path])), np.float64)
        piece = np.empty(total.size, np.float32)
        for own, at in zip(opened, row.values(), strict=True):
            own(path)(0, piece)
            total += at * piece
        return total.astype(np.float32).reshape(shapes[path])

    return change


def _paths(model: Model) -> list[str]:
    return list(flatten(jax.eval_shape(model.init, jax.random.key(0))))


def _closest(change: Factors | np.ndarray, rank: int | None, share: float | None) -> Factors | None:
    if isinstance(change, Factors):
        return lowered(change, rank=rank, share=share)
    return truncated(change, rank=rank, share=share)


def _dense(change: Factors | np.ndarray) -> np.ndarray:
    return np.asarray(change.a) @ np.asarray(change.b) if isinstance(change, Factors) else change


def _squared(change: Factors | np.ndarray) -> float:
    """Returns the squared length of a change, in float64."""
    if isinstance(change, np.ndarray):
        return float(np.square(change, dtype=np.float64).sum())
    a, b = (np.asarray(own, np.float64) for own in change)
    return float(((a.T @ a) * (b @ b.T)).sum())
