"""What differs between two models: their weights leaf by leaf, their configs and their vocabularies."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wsr.exchange.agreement import with_defaults
from wsr.exchange.door import Brought
from wsr.exchange.kinship import products
from wsr.exchange.named_model import Named, open_named_model
from wsr.exchange.tokens import vocabulary
from wsr.geometry.spectrum import numerical_rank, singular_values, stable_rank
from wsr.models import Checkpoint, load
from wsr.models.registry import checkpoints
from wsr.runtime.model_folder import read_json
from wsr.runtime.progress import progress
from wsr.runtime.tensor_files import Tensor
from wsr.store import Store

_PIECE = 2**20  # entries compared at a time
_OF_THE_FILE = ("_name_or_path", "transformers_version")
_Tokens = tuple[dict[str, int], dict[str, str]]
"""The tokens of a model with their numbers, in this order, and its special tokens by their role."""
_SPECIAL_FILES = ("special_tokens_map.json", "tokenizer_config.json")


@dataclass(frozen=True)
class LeafDifference:
    """How one tensor differs between two models, in float64; tensors of one shape only."""

    name: str
    shape: tuple[int, ...]
    norm: float
    """Norm in the first model."""
    other_norm: float
    """Norm in the second."""
    distance: float
    """Norm of the difference."""
    cosine: float | None
    """Cosine of the two tensors; None if one of them is zero."""
    largest: float
    """Largest magnitude of an entry of the difference."""
    equal: float
    """Share of entries that are equal bit for bit, except that 0 equals -0."""
    rank: int | None = None
    """Singular values of the difference above 1e-3 of the largest; None for vectors."""
    stable_rank: float | None = None
    """Squared Frobenius norm of the difference over its squared spectral norm; None for vectors."""

    @property
    def relative(self) -> float | None:
        """``distance / norm``; None if the norm is 0."""
        return self.distance / self.norm if self.norm else None

    def to_json(self) -> dict[str, Any]:
        """Returns the figures with ``relative``; those that are not finite are None, since JSON has none."""
        return _finite({**asdict(self), "relative": self.relative})


@dataclass(frozen=True)
class VocabularyDifference:
    """How two vocabularies differ."""

    sizes: tuple[int, int]
    """Number of tokens of each."""
    only_first: tuple[str, ...]
    """Tokens that the second lacks, by their number in the first."""
    only_second: tuple[str, ...]
    """Tokens that the first lacks, by their number in the second."""
    renumbered: tuple[str, ...]
    """Tokens of both with different numbers."""
    special: Mapping[str, tuple[str | None, str | None]]
    """Special tokens that differ, by their role, such as ``pad_token``."""

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not (self.only_first or self.only_second or self.renumbered or self.special)


@dataclass(frozen=True, repr=False)
class Difference:
    """What differs between two models."""

    names: tuple[str, str]
    leaves: tuple[LeafDifference, ...]
    """Tensors that both have in one shape, in the order of the first."""
    only_first: tuple[str, ...]
    """Tensors that the second lacks."""
    only_second: tuple[str, ...]
    """Tensors that the first lacks."""
    other_shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    """Tensors of both in different shapes."""
    config: Mapping[str, tuple[Any, Any]]
    """Attributes of config.json that differ, once absent ones have their defaults."""
    vocabulary: VocabularyDifference | None
    """None if one of the models has no tokenizer."""

    @property
    def distance(self) -> float:
        """Norm of the difference over all leaves."""
        return math.hypot(*(leaf.distance for leaf in self.leaves))

    @property
    def norms(self) -> tuple[float, float]:
        """Norm of each model over all leaves."""
        return math.hypot(*(leaf.norm for leaf in self.leaves)), math.hypot(*(leaf.other_norm for leaf in self.leaves))

    @property
    def cosine(self) -> float | None:
        """Cosine of the two models over all leaves; None if one of them is zero."""
        first, second = self.norms
        if not first or not second:
            return None
        return sum((leaf.cosine or 0.0) * leaf.norm * leaf.other_norm for leaf in self.leaves) / (first * second)

    @property
    def identical(self) -> bool:
        """Whether both have the same tensors with equal entries."""
        unlike = self.only_first or self.only_second or self.other_shapes
        return not unlike and all(leaf.equal == 1 for leaf in self.leaves)

    def __repr__(self) -> str:
        changed = sum(leaf.equal < 1 for leaf in self.leaves)
        first = self.norms[0]
        return (
            f"Difference of {self.names[0]} and {self.names[1]}: {changed} of {len(self.leaves)} leaves differ\n"
            f"  distance {self.distance:.4g}, {self.distance / first if first else 0:.4g} of the first's norm; "
            f"{len(self.config)} config attributes differ"
        )

    def to_json(self) -> dict[str, Any]:
        """Returns everything as values that JSON can hold."""
        norm, other_norm = self.norms
        whole = {"norm": norm, "other_norm": other_norm, "distance": self.distance, "cosine": self.cosine}
        return {
            "names": list(self.names),
            "identical": self.identical,
            "whole": _finite({**whole, "relative": self.distance / norm if norm else None}),
            "leaves": [leaf.to_json() for leaf in self.leaves],
            "only_first": list(self.only_first),
            "only_second": list(self.only_second),
            "other_shapes": {name: list(map(list, own)) for name, own in self.other_shapes.items()},
            "config": {name: list(own) for name, own in self.config.items()},
            "vocabulary": None if self.vocabulary is None else asdict(self.vocabulary),
        }


def diff(first: Named, second: Named, *, store: Store | None = None, ranks: bool = True) -> Difference:
    """Compares two models, one tensor at a time.

    The rank and the stable rank of a matrix's difference come from its singular values, in float64; tensors with more
    than two axes are matrices with a row for each index of the first axis.

    Args:
      first: a checkpoint, a member, ``base``, ``centroid`` or coefficients of ``store``, a registered name, a Hugging
        Face folder, a safetensors file or a hub name.
      second: likewise.
      store: the store whose points the names may be.
      ranks: whether ranks are computed, which takes most of the time for large matrices.

    Raises:
      WsrError: if a model cannot be read.

    Example:
      >>> import wsr
      >>> base = wsr.load("tiny")
      >>> found = wsr.diff(base, base.with_params(wsr.made_up_region(1).members[0].load()))
      >>> found.identical, found.only_first, found.config
      (False, (), {})
    """
    names = _called(first), _called(second)
    first, second = (load(str(own)) if str(own) in checkpoints() else own for own in (first, second))
    a, b = open_named_model(first, store), open_named_model(second, store)
    both = [name for name in a.tensors if name in b.tensors]
    alike = [name for name in both if a.tensors[name].shape == b.tensors[name].shape]
    entries, leaves = 0, []
    with progress("comparing", sum(a.tensors[name].size for name in alike) // 10**6, "million entries") as counter:
        for name in alike:
            leaves.append(_leaf(name, a.tensors[name], b.tensors[name], ranks))
            entries += a.tensors[name].size
            counter.advance(entries // 10**6 - counter.done)
    return Difference(
        names,
        tuple(leaves),
        tuple(name for name in a.tensors if name not in b.tensors),
        tuple(name for name in b.tensors if name not in a.tensors),
        {name: (a.tensors[name].shape, b.tensors[name].shape) for name in both if name not in set(alike)},
        _config(a, b),
        _vocabulary(_tokens(first, a), _tokens(second, b)),
    )


def _finite(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(own, float) and not math.isfinite(own) else own for key, own in figures.items()}


def _called(model: Named) -> str:
    return (model.name or "a checkpoint") if isinstance(model, Checkpoint) else str(model)


def _leaf(name: str, first: Tensor, second: Tensor, ranks: bool) -> LeafDifference:
    a, b = (np.asarray(own.whole()).reshape(-1) for own in (first, second))
    wide = np.float64 if any(own.dtype == np.float64 or own.dtype.kind in "iu" for own in (a, b)) else np.float32
    a, b = a.astype(wide), b.astype(wide)
    inner, square, other_square, apart = map(float, products(a, b))
    largest, equal = 0.0, 0
    for start in range(0, a.size, _PIECE):
        x, y = (own[start : start + _PIECE].astype(np.float64) for own in (a, b))
        largest, equal = max(largest, float(np.abs(x - y).max())), equal + int((x == y).sum())
    found = LeafDifference(
        name,
        first.shape,
        math.sqrt(square),
        math.sqrt(other_square),
        math.sqrt(apart),
        inner / math.sqrt(square * other_square) if square and other_square else None,
        largest,
        equal / a.size if a.size else 1.0,
    )
    if not ranks or len(first.shape) < 2 or not math.isfinite(apart) or not a.size:
        return found
    a -= b
    values = singular_values(a.reshape(first.shape[0], -1)) if apart else np.zeros(1)
    return replace(found, rank=numerical_rank(values), stable_rank=stable_rank(values))


def _config(first: Brought, second: Brought) -> dict[str, tuple[Any, Any]]:
    if first.config is None or second.config is None:
        return {}
    ours, theirs = (dict(own) for own in with_defaults(first.config, second.config))
    names = sorted((ours.keys() | theirs.keys()) - set(_OF_THE_FILE))
    # None means "not set".
    return {name: (ours.get(name), theirs.get(name)) for name in names if ours.get(name) != theirs.get(name)}


def _vocabulary(first: _Tokens | None, second: _Tokens | None) -> VocabularyDifference | None:
    if first is None or second is None:
        return None
    (mine, ours), (other, theirs) = first, second
    roles = sorted(role for role in ours.keys() | theirs.keys() if ours.get(role) != theirs.get(role))
    return VocabularyDifference(
        (len(mine), len(other)),
        tuple(token for token in mine if token not in other),
        tuple(token for token in other if token not in mine),
        tuple(token for token, number in mine.items() if token in other and other[token] != number),
        {role: (ours.get(role), theirs.get(role)) for role in roles},
    )


def _tokens(named: Named, model: Brought) -> _Tokens | None:
    if model.path.is_dir():
        numbered = vocabulary(model.transformer)
        special = _special(model.transformer)
    elif isinstance(named, Checkpoint) and hasattr(named.processor, "get_vocab"):
        numbered = {number: token for token, number in named.processor.get_vocab().items()}
        special = {role: str(own) for role, own in named.processor.special_tokens_map.items() if isinstance(own, str)}
    else:
        return None
    return None if numbered is None else ({token: number for number, token in sorted(numbered.items())}, special)


def _special(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _SPECIAL_FILES:
        if not (folder / name).exists():
            continue
        for role, token in read_json(folder / name).items():
            text = token.get("content") if isinstance(token, dict) else token
            if role.endswith("_token") and isinstance(text, str):
                found[role] = text
    return found
