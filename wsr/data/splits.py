"""Cuts a dataset into four disjoint splits.

The split of a text or image depends on the dataset alone, never on a size or a seed. So no member of the dataset,
whatever its size and seed, has seen a text of the probe split.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int64

from wsr.data.dataset import SPLITS
from wsr.data.examples import Examples
from wsr.data.images import ImageExamples
from wsr.errors import WsrError
from wsr.runtime.seeds import generator

PARTS = {"finetune": 0.60, "probe": 0.15, "validation": 0.10, "test": 0.15}
"""Share of ``train`` that each split gets. A split that the source provides takes no share."""

Place = tuple[str, int]
"""The role and index of an example."""


def choose_splits(
    name: str, roles: Mapping[str, Examples | ImageExamples], sizes: Mapping[str, int] | None = None, seed: int = 0
) -> tuple[dict[str, list[Place]], tuple[str, ...]]:
    """Returns the examples of each split, and notes on texts that occur more than once.

    Equal images, and texts that differ only in white space and capitals, stay together in one split. If the source's
    test or validation split holds one of them, its copies in ``train`` are left out.

    Args:
      name: name of the dataset.
      roles: the examples of the source, by role.
      sizes: number of texts or images of a split, by its name. Subsamples are nested: a smaller one is part of a
        larger one.
      seed: draws the subsample of ``finetune`` only, so members of all seeds are probed and tested on the same texts.

    Raises:
      WsrError: if a split does not exist or has fewer texts than ``sizes`` wants, or there are too few different texts.
    """
    unknown = sorted(set(sizes or {}) - set(SPLITS))
    if unknown:
        raise WsrError(f"{name}: no split is called {unknown[0]!r}; choose one of {', '.join(SPLITS)}")
    pools, notes = _pools(name, roles)
    chosen = {}
    for split in SPLITS:
        pool = pools[split]
        asked = (sizes or {}).get(split, len(pool))
        if not 1 <= asked <= len(pool):
            available = ", ".join(f"{other} {len(pools[other]):,}" for other in SPLITS)
            raise WsrError(f"{name}: asked for {asked:,} texts in split {split!r}; available: {available}")
        order = generator(seed if split == "finetune" else 0, name, "subsample", split).permutation(len(pool))
        chosen[split] = [pool[at] for at in order[:asked]] if asked < len(pool) else pool
    return chosen, notes


def dealt(texts: int, wanted: Sequence[str]) -> dict[str, int]:
    """Returns the number of different texts that each split gets.

    Args:
      texts: number of different texts in ``train``.
      wanted: the splits to cut out of ``train``.
    """
    shares = np.array([PARTS[split] for split in wanted])
    counts = 1 + np.floor(shares / shares.sum() * (texts - len(wanted))).astype(int)
    counts[0] += texts - counts.sum()
    return dict(zip(wanted, counts.tolist(), strict=True))


def _pools(name: str, roles: Mapping[str, Examples | ImageExamples]) -> tuple[dict[str, list[Place]], tuple[str, ...]]:
    taken: set[tuple[str, str]] = set()
    pools: dict[str, list[Place]] = {}
    notes = []
    things = "images" if isinstance(roles["train"], ImageExamples) else "texts"
    for role in ("test", "validation"):
        if role in roles:
            keys = _keys(roles[role])
            pools[role] = _unless_taken(role, keys, taken)
            notes += _left_out(name, f"{things} of {role}", len(keys) - len(pools[role]))
            taken.update(keys)
    keys = _keys(roles["train"])
    train = _unless_taken("train", keys, taken)
    notes += _left_out(name, f"{things} of train", len(keys) - len(train))
    groups: dict[tuple[str, str], list[int]] = {}
    for _, at in train:
        groups.setdefault(keys[at], []).append(at)
    if len(groups) < len(train):
        notes.append(f"{name}: {len(train) - len(groups)} repeated {things} kept in the split of their first copy")
    wanted = [split for split in SPLITS if split not in pools]
    if len(groups) < len(wanted):
        raise WsrError(f"{name}: {len(groups)} different texts are too few for the splits {', '.join(wanted)}")
    members = list(groups.values())
    for split, part in zip(wanted, _cut(len(groups), wanted, name), strict=True):
        pools[split] = [("train", at) for group in part for at in members[group]]
    return pools, tuple(notes)


def _cut(groups: int, wanted: Sequence[str], name: str) -> list[Int64[np.ndarray, " groups"]]:
    """Distributes groups of equal texts to the splits by their shares; each split gets at least one."""
    ends = np.cumsum([*dealt(groups, wanted).values()])
    return np.split(generator(0, name, "splits").permutation(groups), ends[:-1])


def _keys(examples: Examples | ImageExamples) -> list[tuple[str, str]]:
    if isinstance(examples, ImageExamples):
        return [(key, "") for key in examples.keys]
    pairs = examples.pairs if examples.pairs is not None else [""] * len(examples)
    return [(_plain(text), _plain(pair)) for text, pair in zip(examples.texts, pairs, strict=True)]


def _plain(text: str) -> str:
    # Capitals too: for an uncased model "YAY" and "yay" are the same text.
    return " ".join(text.casefold().split())


def _unless_taken(role: str, keys: list[tuple[str, str]], taken: set[tuple[str, str]]) -> list[Place]:
    return [(role, at) for at, key in enumerate(keys) if key not in taken]


def _left_out(name: str, what: str, count: int) -> list[str]:
    return [f"{name}: left out {count} {what} that a held-out split also holds"] if count else []
