"""An atlas of a base: a sketch of every model that anyone fine-tuned from it, and where another model lies among them.

An atlas is a file in a store (``wsr.store.atlas_file``). Its models need not be members of the store: a sketch of a
model takes 8 KiB, and no model is kept whole.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from wsr.errors import WsrError
from wsr.exchange.admission import dataset_of, names_of
from wsr.exchange.candidate import read_candidate
from wsr.exchange.kin import BASE, COPY, UNKNOWN, kin_among
from wsr.geometry.similarity import gram_matrix, in_memory
from wsr.geometry.trees import flatten
from wsr.models import Checkpoint
from wsr.region.region import Region
from wsr.region.sketch import opened_task_vector, sketch
from wsr.runtime.progress import Counter
from wsr.store.atlas_file import NAME, AtlasEntry, AtlasFile, standard_error
from wsr.store.store import Store
from wsr.types import Params

EXACT, LINEAGE = 20, 3
"""Models whose cosines are computed from their weights, and neighbours that are tested for their lineage."""
MEMBER = "::"
"""Stands between a store and its member in the source of an entry."""


@dataclass(frozen=True)
class Neighbour:
    """A model of an atlas near another model."""

    entry: AtlasEntry
    cosine: float
    """Cosine of the task vectors, estimated from sketches."""
    standard_error: float
    """Standard error of the estimate."""
    exact: float | None
    """The cosine computed from the weights; None if it was not asked for, or the model can no longer be read where it
    was."""
    kin: str = ""
    """What it is to the other model: "same model" or the words of ``wsr.exchange.kin``; "cannot say" also if it can no
    longer be read; empty if it was not tested."""


@dataclass(frozen=True)
class Place:
    """Where a model lies among the models of an atlas."""

    name: str
    neighbours: tuple[Neighbour, ...]
    """The most similar models, best first."""
    copies: tuple[str, ...]
    """Names of the models with the same weights."""
    length: float
    """Length of its task vector."""
    base: str
    """What the base is to the model, in the same words."""
    noise: float
    """Largest of the estimated cosines that models without anything in common reach by chance, with a probability of
    5 %: neighbours below it mean nothing."""

    def __repr__(self) -> str:
        best = self.neighbours[0] if self.neighbours else None
        told = f"nearest {best.entry.name}, cosine {best.cosine:.3f}" if best else "the atlas is empty"
        return f"Place of {self.name}: {told}\n  {len(self.copies)} copies, noise up to {self.noise:.3f}"


def open_atlas(store: Store | str | Path) -> "Atlas":
    """Opens the atlas of a store, or creates it: a sketch of every model that anyone fine-tuned from the store's base.

    Args:
      store: a store on this machine, or its folder; it needs no members.

    Raises:
      WsrError: if there is no store, it is in a bucket, or its atlas is damaged.

    Example:
      >>> import tempfile, wsr
      >>> folder, base, region = tempfile.mkdtemp(), wsr.load("tiny"), wsr.made_up_region(2)
      >>> for member in region.members:
      ...     _ = wsr.export(base.with_params(member.load()), f"{folder}/{member.name}")
      >>> atlas = wsr.atlas(wsr.Store.create_for(folder + "/store", base))
      >>> atlas.add([folder + "/m0", folder + "/m1"])
      {}
      >>> place = atlas.locate(folder + "/m1")
      >>> [near.entry.name for near in place.neighbours], place.copies
      (['m1', 'm0'], ('m1',))
    """
    return Atlas(store if isinstance(store, Store) else Store.open(store))


class Atlas:
    """The atlas of a store, which is created if needed.

    Args:
      store: a store on this machine, with or without members, whose base the models were fine-tuned from.
      size: numbers per sketch of a new atlas; None: ``AtlasFile.SIZE``.

    Raises:
      WsrError: if the store is in a bucket, or its atlas is damaged.
    """

    def __init__(self, store: Store, *, size: int | None = None):
        if store.where != str(store.path):
            raise WsrError(f"{store.where}: an atlas is a database, which needs a store in a folder of this machine")
        self.store = store
        self.file = AtlasFile(store.path / NAME, store.base_sha256, size=size)

    def __len__(self) -> int:
        return len(self.file)

    def __repr__(self) -> str:
        return f"Atlas of {self.store.where}: {len(self)} models fine-tuned from {self.store.base_name}"

    @cached_property
    def base(self) -> Checkpoint:
        """The base of all models."""
        return self.store.checkpoint()

    def add(
        self,
        models: Sequence[str],
        *,
        names: Sequence[str] | None = None,
        datasets: Sequence[str] | None = None,
        tell: Callable[[str], None] = lambda line: None,
        counter: Counter | None = None,
    ) -> dict[str, str]:
        """Adds models, and returns the reason for each that was refused, by name.

        Each model is added as soon as it is read; one that the atlas has already stays as it is.

        Args:
          models: Hugging Face folders, LoRA adapters, hub names, or stores with the same base, whose members are added.
          names: names of the models in the atlas; None: the names of their folders; members are called STORE/MEMBER.
          datasets: datasets on which the models were fine-tuned; None: found in their names and in members' records.
          tell: is given one line for each model.
          counter: advances by one for each of ``models``.
        """
        called = list(names or names_of(models))
        refused: dict[str, str] = {}
        for number, (where, name) in enumerate(zip(models, called, strict=True)):
            try:
                for entry, row in self._read(where, name, datasets[number] if datasets else None):
                    new = self.file.add(entry, row)
                    tell(f"{'added' if new else 'already in the atlas:'} {entry.name} (dataset {entry.dataset})")
            except Exception as error:  # a damaged folder may raise anything in the libraries that read it
                told = str(error) if isinstance(error, WsrError) else f"{type(error).__name__}: {error}"
                refused[name] = " ".join(told.split())
                tell(f"refused {name}: {refused[name]}")
            if counter:
                counter.advance(1, name)
        return refused

    def locate(self, model: str, *, count: int = 10, exact: int = EXACT, lineage: int = LINEAGE) -> Place:
        """Returns where a model lies among the models of the atlas.

        What the nearest models are to one another is kept in the atlas, where its page finds it.

        Args:
          model: name of a model of the atlas, a Hugging Face folder, a LoRA adapter or a hub name.
          count: number of neighbours.
          exact: number of models, nearest by their sketches, whose cosines are computed from their weights, where these
            can still be read; the neighbours are the nearest among them.
          lineage: number of neighbours that are tested for what they are to the model, nearest first, among those whose
            cosines were computed; they are in memory together.

        Raises:
          WsrError: if the atlas is empty, or the model has another base.
        """
        if not len(self):
            raise WsrError(f"{self.store.where}: its atlas has no models; add some with wsr atlas add")
        known = self.file.find(model)
        source = known.source if known else _source(model)
        params = self._params(source)
        row, most = self._sketch(params), max(count, exact)
        near = [own for own in self.file.nearest(row, most + 1) if known is None or own.entry.name != known.name][:most]
        found = []
        for rank, own in enumerate(near):
            cosine = self._exact(own.entry, params) if rank < exact else None
            unread = UNKNOWN if rank < exact and cosine is None else ""
            found.append(Neighbour(own.entry, own.cosine, standard_error(own.cosine, self.file.size), cosine, unread))
        # Best first by the exact cosines, where they are known.
        found.sort(key=lambda own: -(own.cosine if own.exact is None else own.exact))
        sha256, found = _sha256(row), found[:count]
        copies = [own.name for own in self.file.same_as(sha256) if known is None or own.name != known.name]
        kin = self._kin(params, sha256, found, lineage) if exact and lineage else {}
        return Place(
            known.name if known else Path(model).name,
            tuple(_with_kin(own, source, sha256, kin) for own in found),
            tuple(copies),
            float(np.linalg.norm(row)),
            kin.get(BASE, ""),
            chance(len(self), self.file.size),
        )

    def _kin(self, params: Params, sha256: str, near: Sequence[Neighbour], most: int) -> dict[str, str]:
        """Returns what the nearest models and the base are to a model, by the hashes of their sketches; keeps it."""
        models = {sha256: params}
        for own in near:
            if len(models) <= most and own.exact is not None and own.entry.sha256 != sha256:
                models[own.entry.sha256] = self._params(own.entry.source)
        found = kin_among(models, self.base)
        kept = {pair: word for pair, word in found.items() if BASE not in pair}
        if self.file.same_as(sha256):
            self.file.keep_kin(kept)
        return {other: word for (one, other), word in found.items() if one == sha256}

    def _read(
        self, where: str, name: str, dataset: str | None
    ) -> Iterator[tuple[AtlasEntry, Float32[np.ndarray, " size"]]]:
        """Yields the entry and the sketch of a model, or of each member of a store."""
        if Store.is_at(where):
            yield from self._members(Store.open(where), name, dataset)
            return
        incoming = read_candidate(where, self.base)
        row = self._sketch(incoming.params)
        source = _source(where)
        note = "; ".join(incoming.notes)
        yield AtlasEntry(name, source, dataset or dataset_of(name), _sha256(row), float(np.linalg.norm(row)), note), row

    def _members(
        self, other: Store, name: str, dataset: str | None
    ) -> Iterator[tuple[AtlasEntry, Float32[np.ndarray, " size"]]]:
        if other.base_sha256 != self.store.base_sha256:
            raise WsrError(f"{other.where}: its members were fine-tuned from {other.base_name}, another base")
        region = Region.from_store(other)
        for member in region.members:
            opened = opened_task_vector(member, region.base)
            row = sketch(region.leaf_sizes, opened, self.file.size, seed=self.file.seed)
            source = f"{Path(other.where).absolute()}{MEMBER}{member.name}"
            length, of_member = float(np.linalg.norm(row)), dataset or member.dataset
            yield AtlasEntry(f"{name}/{member.name}", source, of_member, _sha256(row), length), row

    def _params(self, where: str) -> Params:
        """Returns the parameters of a model; ``STORE::MEMBER`` is a member of a store."""
        folder, separator, member = where.rpartition(MEMBER)
        return Store.open(folder).load(member)[0] if separator else read_candidate(where, self.base).params

    @cached_property
    def _sizes(self) -> dict[str, int]:
        return {path: leaf.size for path, leaf in flatten(self.base.params).items()}

    def _sketch(self, params: Params) -> Float32[np.ndarray, " size"]:
        return sketch(self._sizes, in_memory(params, self.base.params), self.file.size, seed=self.file.seed)

    def _exact(self, entry: AtlasEntry, params: Params) -> float | None:
        """Returns the cosine of a model with one of the atlas; None if that one is gone or has changed."""
        try:
            other = self._params(entry.source)
        except Exception:  # gone, or no longer readable, for whatever reason
            return None
        if _sha256(self._sketch(other)) != entry.sha256:
            return None
        gram = gram_matrix(self._sizes, [in_memory(own, self.base.params) for own in (params, other)])
        lengths = np.sqrt(gram[0, 0] * gram[1, 1])
        return float(gram[0, 1] / lengths) if lengths > 0 else 0.0


def chance(models: int, size: int) -> float:
    """Returns the cosine that the best of some models without anything in common exceeds with a probability of 5 %.

    The estimates are normal with standard error ``1 / sqrt(size)``; the level is that of Sidak.

    Args:
      models: their number.
      size: numbers per sketch.
    """
    from scipy.stats import norm

    return float(norm.isf(1 - 0.95 ** (1 / models)) / np.sqrt(size))


def _with_kin(near: Neighbour, source: str, sha256: str, kin: Mapping[str, str]) -> Neighbour:
    """Returns a neighbour with what it is to the model of a source and a sketch; equal sketches mean equal weights."""
    if near.entry.sha256 == sha256:
        return replace(near, kin="same model" if near.entry.source == source else COPY)
    return replace(near, kin=kin.get(near.entry.sha256, near.kin))


def _source(where: str) -> str:
    return str(Path(where).absolute()) if Path(where).exists() else where


def _sha256(row: Float32[np.ndarray, " size"]) -> str:
    return hashlib.sha256(row.astype("<f4").tobytes()).hexdigest()
