"""What a user holds: a population and its base; who is a member, where its centre is, how wide it is."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float64

from wsr import geometry, sampling
from wsr.data.table import overlapping
from wsr.errors import WsrError
from wsr.models.model import Model
from wsr.progress import progress
from wsr.store import Store, hash_params
from wsr.trees import flatten, stack
from wsr.types import Params


@dataclass(frozen=True, eq=False)
class Member:
    """A model of a population: its name, what it was trained on, and how to get at its weights."""

    name: str
    dataset: str
    family: str
    content_sha256: str
    """Identifies the weights: two members of equal content are the same point."""
    load: Callable[[], Params]
    load_leaf: Callable[[str], np.ndarray] | None = None
    """Reads one leaf by its path without the others; None where ``load`` hands over what is in memory."""

    def leaf(self, path: str) -> np.ndarray:
        """One leaf of the weights."""
        return self.load_leaf(path) if self.load_leaf else np.asarray(flatten(self.load())[path])


class Region:
    """A population of models fine-tuned from one base.

    Args:
      model: the architecture.
      base: the checkpoint all members were fine-tuned from.
      members: the population; a region may have no members (then its only point is the base).
      base_sha256: identifies the base.
    """

    def __init__(self, model: Model, base: Params, members: Iterable[Member], *, base_sha256: str):
        self.model, self.base, self.base_sha256 = model, base, base_sha256
        self.members = tuple(members)
        repeated = {name for name in self.names if self.names.count(name) > 1}
        if repeated:
            raise WsrError(f"region: members named twice: {', '.join(sorted(repeated))}; names must be unique")

    @classmethod
    def from_store(
        cls, store: Store, model: Model, *, names: Sequence[str] | None = None, keep_gib: float = 4.0
    ) -> "Region":
        """The population of a store, or those of its members that are named.

        Members are read when they are needed. Where all of them fit into ``keep_gib`` of memory they are then kept.
        """
        wanted = store.names() if names is None else names
        size_gib = len(wanted) * sum(leaf.nbytes for leaf in flatten(store.base()).values()) / 2**30
        members = []
        for name in wanted:
            record = store.record(name)
            read = partial(_load_encoder, store, name)
            kept = size_gib <= keep_gib
            members.append(
                Member(
                    name,
                    record.dataset,
                    record.family,
                    record.content_sha256,
                    cache(read) if kept else read,
                    None if kept else partial(store.load_leaf, name),
                )
            )
        return cls(model, store.base(), members, base_sha256=store.base_sha256)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the members, in order."""
        return tuple(member.name for member in self.members)

    @property
    def datasets(self) -> tuple[str, ...]:
        """The dataset of each member."""
        return tuple(member.dataset for member in self.members)

    @property
    def families(self) -> tuple[str, ...]:
        """The family of each member."""
        return tuple(member.family for member in self.members)

    def __len__(self) -> int:
        return len(self.members)

    def where(self, condition: Callable[[Member], bool]) -> "Region":
        """The members for which ``condition`` holds."""
        kept = [number for number, member in enumerate(self.members) if condition(member)]
        part = Region(self.model, self.base, [self.members[k] for k in kept], base_sha256=self.base_sha256)
        if "gram" in self.__dict__:  # computed already: a part's Gram matrix is a part of it
            part.__dict__["gram"] = self.gram[np.ix_(kept, kept)]
        return part

    def emptied(self) -> "Region":
        """The same base without members, to join others to."""
        return self.where(lambda member: False)

    def without_dataset(self, dataset: str) -> "Region":
        """The members that never saw ``dataset`` (or a dataset that shares its texts): what may start or judge it.

        Raises:
          WsrError: where nobody is left.
        """
        seen = overlapping(dataset)
        left = self.where(lambda member: member.dataset not in seen)
        if not left.members:
            raise WsrError(f"region: every one of its {len(self)} members was trained on {dataset}; nothing is left")
        return left

    def joined(self, extra: Iterable[Member]) -> "Region":
        """This region with more members, for example random directions."""
        return Region(self.model, self.base, (*self.members, *extra), base_sha256=self.base_sha256)

    def stacked(self) -> Params:
        """All members' weights, leaves ``[members, ...]``."""
        if not self.members:
            return jax.tree.map(lambda leaf: np.zeros((0, *leaf.shape), np.float32), self.base)
        return stack([member.load() for member in self.members])

    def params(self, coefficients: Float[np.ndarray, " members"]) -> Params:
        """The weights of one point; only members with a coefficient other than 0 are read."""
        used = np.flatnonzero(coefficients)
        chosen = Region(self.model, self.base, [self.members[k] for k in used], base_sha256=self.base_sha256)
        mixed = geometry.combine(self.base, chosen.stacked(), jnp.asarray(coefficients[used], jnp.float32))
        return jax.tree.map(np.asarray, mixed)

    @cached_property
    def gram(self) -> Float64[np.ndarray, "members members"]:
        """Inner products of all task vectors; cosines, distances and radii follow from it."""
        leaves = len(flatten(self.base))
        with progress("similarity", leaves, "leaves") as counter:
            return geometry.gram(
                self.base,
                len(self),
                lambda member, path: self.members[member].leaf(path),
                advance=counter.advance,
            )

    def similarity(self) -> Float64[np.ndarray, "members members"]:
        """Cosines between task vectors."""
        return geometry.cosine(self.gram)

    def centroid(self) -> Float[np.ndarray, " members"]:
        """Coefficients of the uniform average."""
        return sampling.centroid(len(self))[0]

    def radius(self) -> float:
        """Mean distance of the members from their centroid."""
        centre = self.centroid()
        return float(np.mean([geometry.distance(self.gram, corner, centre) for corner in np.eye(len(self))]))


def from_params(
    model: Model,
    base: Params,
    members: Mapping[str, Params],
    *,
    dataset: str = "unknown",
    family: str = "unknown",
) -> Region:
    """A region of models held in memory."""
    return Region(
        model,
        base,
        [
            Member(name, dataset, family, hash_params(params), partial(_hand_over, params))
            for name, params in members.items()
        ],
        base_sha256=hash_params(base),
    )


def _load_encoder(store: Store, name: str) -> Params:
    return store.load(name)[0]


def _hand_over(params: Params) -> Params:
    return params
