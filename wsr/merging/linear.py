"""Which merge methods add up task vectors with coefficients that are known without the weights, and such merges."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from wsr.merging.averages import Row, TaskArithmetic, Uniform, Weighted, default_scale, members_weights, normalised
from wsr.merging.fusion import Passthrough
from wsr.merging.ingredients import Ingredients
from wsr.merging.method import Method

if TYPE_CHECKING:
    from wsr.exchange.adapter import Change
    from wsr.geometry.low_rank import Factors
    from wsr.store import Store


def coefficients_of(method: Method, names: tuple[str, ...]) -> Row | None:
    """Returns one coefficient for each member, if the method gives ``base + sum_k coefficient_k task_vector_k``.

    Args:
      method: the method.
      names: names of the members.

    Returns:
      The coefficients; None for a method that is not linear in the task vectors, or multiplies the base.

    Example:
      >>> import wsr
      >>> from wsr.merging.linear import coefficients_of
      >>> coefficients_of(wsr.merging.TaskArithmetic(scale=0.5), ("first", "second")).tolist()
      [0.5, 0.5]
      >>> coefficients_of(wsr.merging.Ties(), ("first", "second")) is None
      True
    """
    members = Ingredients(names, {}, None, ())
    if type(method) is Uniform:
        return normalised(members_weights(None, members))
    if type(method) is Weighted:
        weights = members_weights(method.weights, members)
        # Without a division by their sum, weights multiply the base as well.
        return normalised(weights) if method.normalise else (weights if weights.sum() == 1 else None)
    if type(method) is TaskArithmetic:
        weights = members_weights(method.weights, members)
        scale = default_scale(method.scale, members, normalise=method.normalise)
        return scale * (normalised(weights) if method.normalise else weights)
    if type(method) is Passthrough and method.scale == 1:
        return members_weights(None, members)
    return None


def change_of_merge(
    store: "Store",
    names: Sequence[str],
    methods: Callable[[str], Method],
    merged: Callable[[], Mapping[str, Any]],
    coefficients: Row | None = None,
) -> "Change":
    """Returns the change of each leaf of a merge: factors where its method is linear and all members have factors.

    Args:
      store: the store of the members.
      names: the merged members; a name that the store lacks is that of the base.
      methods: returns the method of a leaf.
      merged: returns the parameters of the merge; called only if a leaf's method is not linear.
      coefficients: one coefficient for each member, for all leaves; None: those of the methods.
    """
    from wsr.exchange.adapter import change_of_point
    from wsr.geometry.trees import flatten

    base = flatten(store.base())
    known = set(store.names())

    def row(path: str) -> dict[str, float] | None:
        found = coefficients_of(methods(path), tuple(names)) if coefficients is None else coefficients
        if found is None:
            return None
        total: dict[str, float] = {}
        for name, own in zip(names, found.tolist(), strict=True):
            if name in known:
                total[name] = total.get(name, 0.0) + own
        return total

    of_members = change_of_point(store, lambda path: row(path) or {})

    def change(path: str) -> "Factors | np.ndarray | None":
        if row(path) is not None:
            return of_members(path)
        return np.asarray(flatten(merged())[path], np.float32) - np.asarray(base[path], np.float32)

    return change
