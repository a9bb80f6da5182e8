"""Parents, children and siblings among models of a common origin, by the distances between their weights.

Independent trainings move weights in nearly orthogonal directions, because there are so many. So if X lies on the way
from A to C in the tree of descent, the angle at X between A and C is nearly right. At A and C it is then smaller. All
three angles are small between siblings whose parent is not among the models, and also between a parent and children
whose data were alike: without a known base, nothing is said of these. The rule takes the smallest tree that fits: it
assumes no missing model between two unless a third one shows it. Angles do not tell which end of an edge is older: that
takes a base that is known, or a copy whose direction is known. A model has one parent at most, so one known edge can
settle others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Literal

Relation = Literal[
    "same weights", "parent and child", "siblings", "ancestor and descendant", "related", "independent", "cannot say"
]
RIGHT = 0.2
"""A cosine up to this one counts as a right angle: the model lies between the others."""
SHARP = 0.35
"""A cosine from this one on counts as a sharp angle: it does not."""

Two = tuple[str, str]


def relations(
    names: Sequence[str], distances: Mapping[Two, float], known: Mapping[Two, str], base: str | None = None
) -> dict[Two, tuple[Relation, str | None]]:
    """Returns the relation of each pair with a common origin, and which of the two is the parent or ancestor.

    Args:
      names: all models.
      distances: norm of the difference of each pair with a common origin, in the order of ``names``.
      known: the older model of pairs for which it is known otherwise.
      base: the oldest model, if it is known.

    Returns:
      The relation and the older model, or None where the distances do not tell it.

    Example:
      Two models that were fine-tuned from one base: the angle at the base is right.

      >>> from wsr.exchange.family_tree import relations
      >>> found = relations("abc", {("a", "b"): 1.0, ("a", "c"): 1.0, ("b", "c"): 2**0.5}, {}, base="a")
      >>> found["a", "b"], found["b", "c"]
      (('parent and child', 'a'), ('siblings', None))
    """
    apart = {**distances, **{(b, a): own for (a, b), own in distances.items()}}
    # Models of equal weights are one model.
    first = {name: next(own for own in names if own == name or apart.get((own, name)) == 0) for name in names}
    merged = {(first[a], first[c]): own for (a, c), own in apart.items() if first[a] != first[c]}
    older = {(first[a], first[c]): first[own] for (a, c), own in known.items() if first[a] != first[c]}
    tree = _Tree(tuple(dict.fromkeys(first.values())), merged, older, first.get(base) if base else None)
    found: dict[Two, tuple[Relation, str | None]] = {}
    for a, c in distances:
        relation, oldest = tree.relation(first[a], first[c]) if first[a] != first[c] else ("same weights", None)
        found[a, c] = relation, next((name for name in (a, c) if oldest is not None and first[name] == oldest), None)
    return found


@dataclass(frozen=True)
class _Tree:
    names: tuple[str, ...]
    apart: Mapping[Two, float]
    """Distances of all pairs with a common origin, both ways round."""
    older: Mapping[Two, str]
    base: str | None

    def relation(self, a: str, c: str) -> tuple[Relation, str | None]:
        if c in self.neighbours[a]:
            return "parent and child", next((x for x, y in ((a, c), (c, a)) if self.parents.get(y) == x), None)
        for old, young in ((a, c), (c, a)):
            if old == self.base or old in self._ancestors(young):
                return "ancestor and descendant", old
        parent = self.parents.get(a)
        if parent is not None and parent == self.parents.get(c):
            return "siblings", None
        if self.base is not None and not self.between[a, c] and self._sharp(a, c, self.base):
            return "siblings", None
        return "related", None

    @cached_property
    def cosines(self) -> dict[tuple[str, str, str], float]:
        """Cosine of the angle at the first model between the two others."""
        found = {}
        for x in self.names:
            for a, c in combinations([name for name in self.names if (x, name) in self.apart], 2):
                if (a, c) in self.apart:
                    near, far, across = self.apart[x, a], self.apart[x, c], self.apart[a, c]
                    found[x, a, c] = found[x, c, a] = (near**2 + far**2 - across**2) / (2 * near * far)
        return found

    @cached_property
    def between(self) -> dict[Two, set[str]]:
        """Models on the way from one to another."""
        return {(a, c): {x for x in self.names if self._in_the_middle(x, a, c)} for a, c in self.apart}

    @cached_property
    def neighbours(self) -> dict[str, set[str]]:
        """Models with no other between them, if a third one, a copy or the base shows that they are one step apart."""
        inner = set().union(*self.between.values()) | ({self.base} if self.base else set())
        found: dict[str, set[str]] = {name: set() for name in self.names}
        for a, c in self.apart:
            shown = a in inner or c in inner or (a, c) in self.older or (c, a) in self.older
            if shown and not self.between[a, c] and not self._through_a_missing_one(a, c):
                found[a].add(c)
        return found

    @cached_property
    def parents(self) -> dict[str, str]:
        """The parent of each model for which it is known."""
        found = {(c if old == a else a): old for (a, c), old in self.older.items() if c in self.neighbours[a]}
        queue = [*([self.base] if self.base else []), *found]
        while queue:
            name = queue.pop()
            for other in self.neighbours[name] - {found.get(name), self.base, *found}:
                found[other] = name
                queue.append(other)
        return found

    def _ancestors(self, name: str) -> list[str]:
        found: list[str] = []
        while (up := self.parents.get(name)) is not None and up not in found:
            found.append(up)
            name = up
        return found

    def _in_the_middle(self, x: str, a: str, c: str) -> bool:
        """Returns whether the angle at a model is right, and the largest of the triangle with two others.

        Next to a model and a copy that hardly differs, both angles are nearly right.
        """
        own = self.cosines.get((x, a, c), 1.0)
        return own <= RIGHT and own <= min(self.cosines[a, x, c], self.cosines[c, x, a])

    def _through_a_missing_one(self, a: str, c: str) -> bool:
        """Returns whether a third model branches off between two where no model is."""
        return not self.between[a, c] and any(self._sharp(a, c, other) for other in self.names)

    def _sharp(self, a: str, c: str, other: str) -> bool:
        """Returns whether neither of two models lies between the other and a third."""
        return self.cosines.get((a, c, other), 0.0) >= SHARP and self.cosines.get((c, a, other), 0.0) >= SHARP
