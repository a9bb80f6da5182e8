"""Points of a store by name, and their weights one leaf at a time, so that no model is whole in memory."""

from collections.abc import Callable, Mapping

import numpy as np

from wsr.errors import WsrError, nearest_names
from wsr.geometry.points import combine_in_blocks
from wsr.geometry.trees import flatten
from wsr.store import Store


def named_point(store: Store, text: str, members: list[str]) -> dict[str, float]:
    """Returns the coefficients of a point, by member.

    Args:
      store: the store.
      text: ``base``, ``centroid``, the name of a member, or a list of coefficients such as ``name=0.5,other=0.5``.
      members: names of the members whose average is ``centroid``.

    Raises:
      WsrError: if ``text`` is none of these.
    """
    names = store.names()
    if text in names:
        return {text: 1.0}
    if text == "base":
        return {}
    if text == "centroid":
        return dict.fromkeys(members, 1 / len(members))
    if "=" not in text:
        raise WsrError(
            f"point {text!r}: expected a member of {store.path}, base, centroid, or name=0.5,other=0.5; "
            f"nearest: {nearest_names(text, ['base', 'centroid', *names])}"
        )
    coefficients: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.rpartition("=")
        if name not in names:
            raise WsrError(f"point {text!r}: no member is called {name!r}; nearest: {nearest_names(name, names)}")
        if name in coefficients:
            raise WsrError(f"point {text!r}: {name} is listed twice")
        try:
            coefficients[name] = float(number)
        except ValueError:
            raise WsrError(f"point {text!r}: the coefficient of {name} is not a number: {number!r}") from None
        if not np.isfinite(coefficients[name]):
            raise WsrError(f"point {text!r}: the coefficient of {name} is {number}; expected a finite number")
    return {name: own for name, own in coefficients.items() if own}


def open_point(store: Store, coefficients: Mapping[str, float]) -> Callable[[str], np.ndarray]:
    """Returns ``leaf(path)``, which computes one leaf of a point from the members with a nonzero coefficient.

    Args:
      store: the store.
      coefficients: coefficients of the point, by member.
    """
    base = flatten(store.base())
    row = np.array(list(coefficients.values()), np.float64)

    def leaf(path: str) -> np.ndarray:
        members = ({"leaf": store.load_leaf(name, path)} for name in coefficients)
        return np.asarray(combine_in_blocks({"leaf": base[path]}, members, row)["leaf"])

    return leaf
