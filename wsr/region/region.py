"""What a user holds: a population and its base; who is a member, where its centre is, how wide it is."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Float, Float64

from wsr.data.table import overlapping
from wsr.errors import WsrError
from wsr.geometry import gram as grams
from wsr.geometry import points, sampling
from wsr.geometry.similarity import OpenLeaf, gram_matrix, in_memory
from wsr.geometry.trees import flatten, stack
from wsr.models.model import Model
from wsr.statistics.clustering import tsne
from wsr.store import Store, hash_params
from wsr.types import Params

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False, repr=False)
class Member:
    """A model of a population: its name, what it was trained on, and how to get at its weights."""

    name: str
    dataset: str
    family: str
    content_sha256: str
    """Identifies the weights: two members of equal content are the same point."""
    load: Callable[[], Params]
    open_task_vector: Callable[[], OpenLeaf] | None = None
    """Reads the task vector from disk in pieces; None where ``load`` hands over what is in memory."""

    def __repr__(self) -> str:
        return f"Member {self.name}: dataset {self.dataset}, family {self.family}\n  content {self.content_sha256[:12]}"


class Region:
    """A population of models fine-tuned from one base.

    Example:
      >>> import wsr
      >>> region = wsr.made_up_region(3)
      >>> region.centroid().round(3).tolist()
      [0.333, 0.333, 0.333]
      >>> region.where(lambda member: member.name != "m1").names
      ('m0', 'm2')

    Args:
      model: the architecture.
      base: the checkpoint all members were fine-tuned from.
      members: the population; a region may have no members (then its only point is the base).
      base_sha256: identifies the base.
      store: where the members come from; it keeps inner products of task vectors from one process to the next.
      gram: inner products of all task vectors, if they are known already.
    """

    def __init__(
        self,
        model: Model,
        base: Params,
        members: Iterable[Member],
        *,
        base_sha256: str,
        store: Store | None = None,
        gram: Float64[np.ndarray, "members members"] | None = None,
    ):
        self.model, self.base, self.base_sha256, self.store = model, base, base_sha256, store
        self._gram = gram
        self.members = tuple(members)
        repeated = {name for name in self.names if self.names.count(name) > 1}
        if repeated:
            raise WsrError(f"region: members named twice: {', '.join(sorted(repeated))}; names must be unique")

    @classmethod
    def from_store(
        cls, store: Store, model: Model | None = None, *, names: Sequence[str] | None = None, keep_gib: float = 4.0
    ) -> "Region":
        """The population of a store, or those of its members that are named.

        Members are read when they are needed, and kept in memory if all of them fit into ``keep_gib``.

        Args:
          store: the population on disk.
          model: the store's architecture, where it was built before: programs compiled for it are then used again.
          names: the members to take; None: all of them.
          keep_gib: memory for members.
        """
        wanted = store.names() if names is None else names
        size_gib = len(wanted) * sum(leaf.nbytes for leaf in flatten(store.base()).values()) / 2**30
        members = []
        for name in wanted:
            record = store.record(name)
            read = partial(_load_encoder, store, name)
            members.append(
                Member(
                    name,
                    record.dataset,
                    record.family,
                    record.content_sha256,
                    cache(read) if size_gib <= keep_gib else read,
                    partial(store.open_task_vector, name),
                )
            )
        return cls(model or store.model, store.base(), members, base_sha256=store.base_sha256, store=store)

    def __repr__(self) -> str:
        size = sum(self.leaf_sizes.values()) / 1e6
        listed = ", ".join(self.names[:4]) + (", ..." if len(self) > 4 else "")
        return (
            f"Region of {len(self)} members, {len(set(self.datasets))} datasets, {len(set(self.families))} families\n"
            f"  {self.model.name}, {size:.3g} million parameters each: {listed or 'only the base'}"
        )

    def _repr_html_(self) -> str:
        return self.to_frame()._repr_html_()

    def to_frame(self) -> "pandas.DataFrame":
        """One row a member: name, dataset, family, and the first digits of the hash of its weights."""
        import pandas

        return pandas.DataFrame(
            {
                "member": self.names,
                "dataset": self.datasets,
                "family": self.families,
                "content": [member.content_sha256[:12] for member in self.members],
            }
        )

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
        return Region(
            self.model,
            self.base,
            [self.members[k] for k in kept],
            base_sha256=self.base_sha256,
            store=self.store,
            gram=None if self._gram is None else self._gram[np.ix_(kept, kept)],
        )

    def emptied(self) -> "Region":
        """The same base without members, to join others to."""
        return self.where(lambda member: False)

    def without_dataset(self, dataset: str) -> "Region":
        """The members that never saw ``dataset``, or a dataset that shares texts with it.

        Raises:
          WsrError: no member is left.
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
        """The weights of one point; only members with a coefficient other than 0 are read, one after another."""
        used = np.flatnonzero(coefficients)
        members = (self.members[k].load() for k in used)
        return jax.tree.map(np.asarray, points.combine_one_by_one(self.base, members, coefficients[used]))

    @property
    def gram(self) -> Float64[np.ndarray, "members members"]:
        """Inner products of all task vectors; cosines, distances and radii follow from it.

        Computed once. Only products that the store does not know yet are computed; they are then kept there.
        """
        if self._gram is None:
            self._gram = self._products()
        return self._gram

    def _products(self) -> Float64[np.ndarray, "members members"]:
        hashes = [member.content_sha256 for member in self.members]
        kept = self.store.gram_file if self.store else None
        known = kept.read(hashes) if kept else np.full((len(self), len(self)), np.nan)
        if not np.isnan(known).any():
            return known
        products = gram_matrix(self.leaf_sizes, self.open_task_vectors(), known)
        if kept:
            kept.add(hashes, products)
        return products

    def similarity(self) -> Float64[np.ndarray, "members members"]:
        """Cosines between task vectors."""
        return grams.cosine(self.gram)

    @property
    def leaf_sizes(self) -> dict[str, int]:
        """How many entries each leaf of the encoder has, by path."""
        return {path: leaf.size for path, leaf in flatten(self.base).items()}

    def open_task_vectors(self) -> list[OpenLeaf]:
        """Opens the task vector of each member, to be read in pieces by ``wsr.geometry.similarity``."""
        return [
            member.open_task_vector() if member.open_task_vector else in_memory(member.load(), self.base)
            for member in self.members
        ]

    def centroid(self) -> Float[np.ndarray, " members"]:
        """Coefficients of the uniform average."""
        return sampling.centroid(len(self))[0]

    def radius(self) -> float:
        """Mean distance of the members from their centroid."""
        centre = self.centroid()
        return float(np.mean([grams.distance(self.gram, corner, centre) for corner in np.eye(len(self))]))

    def plot_map(self, ax: Any = None, *, seed: int = 0) -> Any:
        """Draws the members in the plane (t-SNE of 1 - cosine) on matplotlib ``Axes`` and returns them."""
        from wsr.region.plots import draw_map

        return draw_map(tsne(self.similarity(), seed=seed), self.datasets, ax)

    def plot_similarity(self, ax: Any = None) -> Any:
        """Draws the cosines between members on matplotlib ``Axes`` and returns them."""
        from wsr.region.plots import draw_similarity

        return draw_similarity(self.similarity(), self.names, self.datasets, ax)


def from_params(
    model: Model,
    base: Params,
    members: Mapping[str, Params],
    *,
    dataset: str = "unknown",
    family: str = "unknown",
) -> Region:
    """Returns a region of models held in memory.

    Args:
      model: the architecture.
      base: the parameters that all models started from.
      members: parameters by name.
      dataset, family: what all of them were trained on.

    Example:
      >>> import wsr
      >>> base, other = wsr.load("tiny"), wsr.made_up_region(1).members[0].load()
      >>> wsr.from_params(base.model, base.params, {"mine": other}).names
      ('mine',)
    """
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
