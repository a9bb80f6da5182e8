"""Region and Member: a population of models fine-tuned from one base, its centroid, its radius, its similarities."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Float, Float64

from wsr.data.table import overlapping
from wsr.data.text_sketch import TextSketch
from wsr.errors import WsrError
from wsr.geometry import gram as grams
from wsr.geometry import points, sampling
from wsr.geometry.low_rank import LowRank
from wsr.geometry.similarity import OpenLeaf, gram_matrix, in_memory
from wsr.geometry.trees import flatten, stack
from wsr.models import cuts
from wsr.models.model import Model
from wsr.runtime.devices import mesh_of, own_devices
from wsr.runtime.placement import placed
from wsr.statistics.clustering import tsne
from wsr.store import Store, hash_params
from wsr.types import Params

if TYPE_CHECKING:
    import pandas


def _stored_whole() -> LowRank | None:
    return None


@dataclass(frozen=True, eq=False, repr=False)
class Member:
    """One model of a population: its name, its dataset, and functions that read its weights.

    Example:
      >>> import wsr
      >>> member = wsr.made_up_region(3).members[0]
      >>> member.name, member.dataset
      ('m0', 'made_up')
      >>> sorted(member.load())
      ['embeddings', 'layers']
    """

    name: str
    """Name, unique within its region."""
    dataset: str
    """Dataset the model was fine-tuned on."""
    family: str
    """Family of that dataset, such as ``nli``."""
    content_sha256: str
    """Hash of the weights: members with the same hash are the same point."""
    load: Callable[[], Params]
    """Returns the parameters of the encoder."""
    open_task_vector: Callable[[], OpenLeaf] | None = None
    """Opens the task vector on disk to read it in pieces; None if the parameters are in memory."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """What its record says about its training texts; empty if they are unknown."""
    load_factors: Callable[[], LowRank | None] = _stored_whole
    """Returns the low-rank factors of its task vector, from which it is evaluated; None if it is stored whole."""

    @property
    def texts(self) -> TextSketch | None:
        """The sketch of its training texts; None if they are unknown."""
        sketch = self.data.get("texts")
        return TextSketch.from_json(sketch) if sketch else None

    @property
    def texts_of_pairs(self) -> TextSketch | None:
        """The sketch of the single texts of its training pairs; None if it was trained on single texts."""
        sketch = self.data.get("texts_of_pairs")
        return TextSketch.from_json(sketch) if sketch else None

    def __repr__(self) -> str:
        return f"Member {self.name}: dataset {self.dataset}, family {self.family}\n  content {self.content_sha256[:12]}"


class Region:
    """A population of models fine-tuned from one base.

    A point of the region is the model ``base + sum_k c_k (member_k - base)``; functions that evaluate or merge take its
    coefficients ``c``, one per member, in the order of ``members``.

    Args:
      model: the architecture.
      base: parameters of the checkpoint that all members were fine-tuned from.
      members: the population; without members the region's only point is the base.
      base_sha256: hash of the base.
      store: the store that holds the members; it caches inner products of task vectors between processes.
      gram: inner products of all task vectors if they are known already.

    Raises:
      WsrError: if two members have the same name.

    Example:
      >>> import wsr
      >>> region = wsr.made_up_region(3)
      >>> region.centroid().round(3).tolist()
      [0.333, 0.333, 0.333]
      >>> region.similarity().shape
      (3, 3)
      >>> region.where(lambda member: member.name != "m1").names
      ('m0', 'm2')
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
            raise WsrError(
                f"region: two members have the same name: {', '.join(sorted(repeated))}; names must be unique"
            )

    @classmethod
    def from_store(
        cls, store: Store, model: Model | None = None, *, names: Sequence[str] | None = None, keep_gib: float = 4.0
    ) -> "Region":
        """Returns the region of a store's members, or of some of them.

        Members are read when they are first needed. If all of them fit into ``keep_gib`` of memory, they stay there.
        Those that are stored as low-rank factors are evaluated from these, which always stay.

        Args:
          store: the population on disk.
          model: the store's architecture if it is built already, so that programs compiled for it are reused.
          names: the members to take; None: all of them.
          keep_gib: memory for members, in GiB.
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
                    record.data,
                    cache(partial(store.load_factors, name)),
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
        """Returns a table with one row per member: name, dataset, family, and the start of its content hash."""
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
        """Name of each member."""
        return tuple(member.name for member in self.members)

    @property
    def datasets(self) -> tuple[str, ...]:
        """Dataset of each member."""
        return tuple(member.dataset for member in self.members)

    @property
    def families(self) -> tuple[str, ...]:
        """Family of each member's dataset."""
        return tuple(member.family for member in self.members)

    def __len__(self) -> int:
        return len(self.members)

    def where(self, condition: Callable[[Member], bool]) -> "Region":
        """Returns the region of the members that satisfy a condition.

        Args:
          condition: takes a ``Member``, returns whether to keep it.

        Example:
          >>> import wsr
          >>> wsr.made_up_region(3).where(lambda member: member.name in ("m0", "m2")).names
          ('m0', 'm2')
        """
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
        """Returns the region with the same base and no members."""
        return self.where(lambda member: False)

    def without_dataset(self, dataset: str) -> "Region":
        """Returns the region of the members that were not trained on a dataset, nor on one that shares texts with it.

        It goes by names alone; ``wsr.region.exposure`` goes by the texts.

        Args:
          dataset: name of the dataset.

        Raises:
          WsrError: if no member is left.
        """

        def of_table(member: Member) -> bool:
            return bool(member.data.get("built_in", True))

        # A user's file may be called as one of the package's datasets without sharing texts with others.
        known = all(of_table(member) for member in self.members if member.dataset == dataset)
        seen = overlapping(dataset) if known else frozenset({dataset})
        left = self.where(lambda member: member.dataset not in (seen if of_table(member) else {dataset}))
        if not left.members:
            raise WsrError(
                f"region: all {len(self)} members were trained on {dataset} or on a dataset that shares texts with it; "
                "no member is left"
            )
        return left

    def joined(self, extra: Iterable[Member]) -> "Region":
        """Returns this region with more members, for example random directions.

        Args:
          extra: the members to append.
        """
        return self.with_members((*self.members, *extra))

    def with_members(self, members: Iterable[Member]) -> "Region":
        """Returns a region of the same base with other members.

        Args:
          members: all members of the new region.
        """
        return Region(self.model, self.base, members, base_sha256=self.base_sha256)

    def with_model(self, model: Model) -> "Region":
        """Returns the same base and members under another encoder of their parameters.

        Args:
          model: takes the place of the region's model.
        """
        return Region(model, self.base, self.members, base_sha256=self.base_sha256, store=self.store, gram=self._gram)

    def stacked(self) -> Params:
        """Returns the parameters of all members, stacked in leaves of shape ``[members, ...]``."""
        if not self.members:
            return jax.tree.map(lambda leaf: np.zeros((0, *leaf.shape), np.float32), self.base)
        return stack([member.load() for member in self.members])

    def params(self, coefficients: Float[np.ndarray, " members"]) -> Params:
        """Returns the parameters of one point, in host memory; reads members with a nonzero coefficient, one at a time.

        All accelerators of this process mix parts of them; none ever holds a whole model.

        Args:
          coefficients: one per member.

        Example:
          >>> import numpy as np, wsr
          >>> region = wsr.made_up_region(2)
          >>> middle = region.params(np.array([0.5, 0.5]))
          >>> sorted(middle) == sorted(region.base)
          True
        """
        used = np.flatnonzero(coefficients)
        devices = own_devices()
        mesh = mesh_of(1, model=len(devices), devices=devices)
        cut, whole = cuts.shardings(self.base, mesh), NamedSharding(mesh, PartitionSpec())
        members = (placed(self.members[k].load(), cut) for k in used)
        mixed = points.combine_in_blocks(placed(self.base, cut), members, coefficients[used], sharding=whole)
        return jax.tree.map(np.asarray, mixed)

    @property
    def gram(self) -> Float64[np.ndarray, "members members"]:
        """Inner products of all task vectors, from which cosines, distances and radii follow.

        Computed on first use. If the region has a store, known products are read from it and new ones are saved there.
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
        """Returns the cosines between task vectors.

        Example:
          >>> import wsr
          >>> similarity = wsr.made_up_region(2).similarity()
          >>> bool(abs(similarity[0, 1]) < 0.05)  # random directions are nearly orthogonal
          True
        """
        return grams.cosine(self.gram)

    @property
    def leaf_sizes(self) -> dict[str, int]:
        """Number of entries of each leaf of the encoder, by path."""
        return {path: leaf.size for path, leaf in flatten(self.base).items()}

    def open_task_vectors(self) -> list[OpenLeaf]:
        """Opens each member's task vector to read it in pieces, see ``wsr.geometry.similarity``."""
        return [
            member.open_task_vector() if member.open_task_vector else in_memory(member.load(), self.base)
            for member in self.members
        ]

    def centroid(self) -> Float[np.ndarray, " members"]:
        """Returns the coefficients of the uniform average of all members.

        Example:
          >>> import wsr
          >>> wsr.made_up_region(4).centroid().tolist()
          [0.25, 0.25, 0.25, 0.25]
        """
        return sampling.centroid(len(self))[0]

    def radius(self) -> float:
        """Returns the mean distance of the members from their centroid, in the units of the weights."""
        centre = self.centroid()
        return float(np.mean([grams.distance(self.gram, corner, centre) for corner in np.eye(len(self))]))

    def explore(self, datasets: Any, to: str | Path = "explorer.html", **options: Any) -> Any:
        """Writes an offline page in which a reader drags a point through the region, see ``wsr.explore``.

        Args:
          datasets: a target dataset, or several.
          to: the file to write.
          options: further arguments of ``wsr.explore``.

        Returns:
          The polynomials that the page evaluates, one per dataset.
        """
        import wsr  # the face stands above all rooms: a page is written by a later room than this one

        return wsr.explore(self, datasets, to, **options)

    def plot_map(self, ax: Any = None, *, seed: int = 0) -> Any:
        """Draws the members in the plane by t-SNE of 1 - cosine, one colour per dataset.

        Args:
          ax: matplotlib ``Axes`` to draw on; None: new ones.
          seed: seed of t-SNE.

        Returns:
          The ``Axes``.
        """
        from wsr.region.plots import draw_map

        return draw_map(tsne(self.similarity(), seed=seed), self.datasets, ax)

    def plot_similarity(self, ax: Any = None) -> Any:
        """Draws the cosines between members as a heat map, ordered by dataset.

        Args:
          ax: matplotlib ``Axes`` to draw on; None: new ones.

        Returns:
          The ``Axes``.
        """
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
    """Returns a region of models that are in memory.

    Args:
      model: the architecture.
      base: parameters that all models were fine-tuned from.
      members: parameters of each model, by name.
      dataset: dataset that all models were fine-tuned on.
      family: family of that dataset.

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
