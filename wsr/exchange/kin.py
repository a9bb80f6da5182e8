"""What one model is to another, in a few words, as the lineage of both and of the base they descend from shows it."""

from collections.abc import Mapping

import numpy as np

from wsr.exchange.lineage import Pair, lineage_of
from wsr.geometry.trees import flatten
from wsr.models import Checkpoint
from wsr.types import Params

BASE = "(base)"
"""Name of the base among models."""
COPY, UNKNOWN = "renamed copy", "cannot say"
_COPIES = {"rounded": "rounded copy", "pruned": "pruned copy", "noise": "noised copy"}
_INVERSE = {"parent": "child", "ancestor": "descendant"}


def kin_among(models: Mapping[str, Params], base: Checkpoint) -> dict[tuple[str, str], str]:
    """Returns what each model is to each other one; all of them are in memory.

    Args:
      models: parameters by name, of the architecture of the base; none is called ``BASE``.
      base: what related models descend from; in the result it is called ``BASE``.

    Returns:
      For names ``(a, b)``, what ``b`` is to ``a``.

    Example:
      >>> import wsr
      >>> from wsr.exchange.kin import BASE, kin_among
      >>> kin = kin_among({"tuned": wsr.made_up_region(1).members[0].load()}, wsr.load("tiny"))
      >>> kin["tuned", BASE], kin[BASE, "tuned"]
      ('original of this noised copy', 'noised copy')
    """
    leaves = {
        name: {path: np.asarray(leaf) for path, leaf in flatten(params).items()}
        for name, params in {BASE: base.params, **models}.items()
    }
    pairs = lineage_of({name: (base.model, own) for name, own in leaves.items()}, BASE).pairs
    return {(pair.names[1 - at], name): kin(pair, name) for pair in pairs for at, name in enumerate(pair.names)}


def kin(pair: Pair, name: str) -> str:
    """Returns what one model of a pair is to the other.

    Args:
      pair: what is known of both.
      name: the model.
    """
    older = None if pair.parent is None else pair.parent == name
    if pair.relation == "same weights":
        return COPY if pair.origin == "in order" else "copy with its units in another order"
    if pair.relation == "parent and child" and pair.change in _COPIES:
        copy = _COPIES[pair.change]
        return f"{copy} or its original" if older is None else f"original of this {copy}" if older else copy
    if pair.relation in ("parent and child", "ancestor and descendant"):
        old = pair.relation.split()[0]
        return f"{old} or {_INVERSE[old]}" if older is None else old if older else _INVERSE[old]
    return {"siblings": "sibling", "independent": "not related"}.get(pair.relation, pair.relation)
