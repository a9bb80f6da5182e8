"""Cuts a dataset into four disjoint splits.

A text of your own data lies in the split that its own hash says, whatever the dataset is called and whatever else it
holds. So no text that a member was fine-tuned on is in the probe or test split of a renamed, cut or grown copy.

The package's own datasets (those of ``wsr.data.table``) are cut by their name and the position of the text instead:
their texts never change, and the committed results of the studies rest on these splits.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int64, Integer

from wsr.data.dataset import SPLITS
from wsr.data.examples import Examples
from wsr.data.identity import Hashes, positions
from wsr.data.images import ImageExamples
from wsr.errors import WsrError
from wsr.runtime.seeds import generator

PARTS = {"finetune": 0.60, "probe": 0.15, "validation": 0.10, "test": 0.15}
"""Share of ``train`` that each split gets. A split that the source provides takes no share."""

Place = tuple[str, int]
"""The role and index of an example."""
Role = Examples | ImageExamples
_SUBSAMPLE = 1_000  # first of the purposes of ``positions`` that draw subsamples


def choose_splits(
    name: str,
    roles: Mapping[str, Role],
    sizes: Mapping[str, int] | None = None,
    seed: int = 0,
    *,
    usual: Mapping[str, int] | None = None,
    by_name: bool = False,
    at_most: bool = False,
    finetune_share: float = 0.0,
) -> tuple[dict[str, list[Place]], tuple[str, ...]]:
    """Returns the examples of each split, and notes on texts that were left out or occur more than once.

    Equal images, and texts that differ only in white space and capitals, stay together in one split. If the source's
    test or validation split holds one of them, its copies in ``train`` are left out. Each class with as many texts as
    there are splits to cut has at least one in every split, for which single texts change their split.

    Args:
      name: name of the dataset.
      roles: the examples of the source, by role.
      sizes: number of texts or images of a split, by its name. Subsamples are nested: a smaller one is part of a
        larger one.
      usual: largest number of texts of a split that ``sizes`` does not name; a note says when it applies.
      seed: draws the subsample of ``finetune`` only, so members of all seeds are probed and tested on the same texts.
      by_name: cuts by the name of the dataset and the position of a text, not by its hash.
      at_most: takes all texts of a split that has fewer than ``sizes`` wants, and notes it.
      finetune_share: share of ``train`` that ``finetune`` gets; the other splits divide the rest in the proportions of
        ``PARTS``. 0: the share in ``PARTS``.

    Raises:
      WsrError: if a split does not exist or has fewer texts than ``sizes`` wants, or there are too few different texts.
    """
    unknown = sorted(set(sizes or {}) - set(SPLITS))
    if unknown:
        raise WsrError(f"{name}: no split is called {unknown[0]!r}; choose one of {', '.join(SPLITS)}")
    pools, notes = _pools(name, roles, by_name, finetune_share)
    chosen = {}
    for split in SPLITS:
        pool = pools[split]
        most = min(len(pool), (usual or {}).get(split, len(pool)))
        asked = (sizes or {}).get(split, most)
        if asked == most < len(pool) and split not in (sizes or {}):
            notes += (f"{name}: {most:,} of {len(pool):,} texts of {split} are used, as in the paper",)
        if at_most and asked > len(pool):
            notes += (f"{name}: {split} has {len(pool):,} texts, fewer than the {asked:,} asked for; all are used",)
            asked = len(pool)
        if not 1 <= asked <= len(pool):
            available = ", ".join(f"{other} {len(pools[other]):,}" for other in SPLITS)
            raise WsrError(f"{name}: asked for {asked:,} texts in split {split!r}; available: {available}")
        chosen[split] = pool
        if asked < len(pool):
            if by_name:
                order = generator(seed if split == "finetune" else 0, name, "subsample", split).permutation(len(pool))
            else:
                purpose = _SUBSAMPLE * (1 + SPLITS.index(split)) + (seed if split == "finetune" else 0)
                hashes = np.array([roles[role].hashes[at] for role, at in pool])
                order = np.argsort(positions(hashes, purpose), kind="stable")
            chosen[split] = [pool[at] for at in order[:asked]]
    return chosen, notes


def dealt(texts: int, wanted: Sequence[str], finetune_share: float = 0.0) -> dict[str, int]:
    """Returns the number of different texts that each split of one of the package's own datasets gets.

    Args:
      texts: number of different texts in ``train``.
      wanted: the splits to cut out of ``train``.
      finetune_share: see ``choose_splits``.
    """
    parts = _parts(wanted, finetune_share)
    shares = np.array([parts[split] for split in wanted])
    counts = 1 + np.floor(shares / shares.sum() * (texts - len(wanted))).astype(int)
    counts[0] += texts - counts.sum()
    return dict(zip(wanted, counts.tolist(), strict=True))


def _parts(wanted: Sequence[str], finetune_share: float) -> Mapping[str, float]:
    """Returns the share of ``train`` of each split to cut out of it."""
    if not finetune_share:
        return PARTS
    others = sum(PARTS[split] for split in wanted if split != "finetune")
    rest = {split: (1 - finetune_share) * PARTS[split] / others for split in wanted if split != "finetune"}
    return {"finetune": finetune_share, **rest}


def _pools(
    name: str, roles: Mapping[str, Role], by_name: bool, finetune_share: float
) -> tuple[dict[str, list[Place]], tuple[str, ...]]:
    taken: set[int] = set()
    pools: dict[str, list[Place]] = {}
    notes = []
    things = "images" if isinstance(roles["train"], ImageExamples) else "texts"
    for role in ("test", "validation"):
        if role in roles:
            hashes = roles[role].hashes.tolist()
            pools[role] = [(role, at) for at, key in enumerate(hashes) if key not in taken]
            notes += _left_out(name, f"{things} of {role}", len(hashes) - len(pools[role]))
            notes += _contradictory(name, things, role, roles[role])
            taken.update(hashes)
    hashes = roles["train"].hashes.tolist()
    groups: dict[int, list[int]] = {}
    for at, key in enumerate(hashes):
        if key not in taken:
            groups.setdefault(key, []).append(at)
    train = sum(map(len, groups.values()))
    notes += _left_out(name, f"{things} of train", len(hashes) - train)
    if len(groups) < train:
        notes.append(f"{name}: {train - len(groups)} repeated {things} kept in the split of their first copy")
    notes += _contradictory(name, things, "train", roles["train"])
    wanted = [split for split in SPLITS if split not in pools]
    if len(groups) < len(wanted):
        raise WsrError(
            f"{name}: {len(groups)} different {things} are too few for the splits {', '.join(wanted)}; give at least "
            f"{len(wanted)}, better a few hundred"
        )
    members = list(groups.values())
    if by_name:
        parts = _cut(len(groups), wanted, name, finetune_share)
    else:
        first = np.array([group[0] for group in members])
        distinct = np.array(list(groups), np.uint64)
        where = _split_by_hash(distinct, wanted, finetune_share)
        # Real numbers are no classes.
        labels = roles["train"].labels[first] if roles["train"].labels.dtype.kind == "i" else np.zeros(len(first), int)
        _spread_classes(where, labels, distinct, len(wanted))
        parts = [np.flatnonzero(where == number) for number in range(len(wanted))]
    for split, part in zip(wanted, parts, strict=True):
        pools[split] = [("train", at) for group in part for at in members[group]]
    return pools, tuple(notes)


def _split_by_hash(hashes: Hashes, wanted: Sequence[str], finetune_share: float) -> Int64[np.ndarray, " texts"]:
    """Returns the index in ``wanted`` of each text's split.

    A text keeps its split whichever others are wanted: only those of a split that is not wanted are drawn again.
    """
    dealt_to = wanted if finetune_share else SPLITS
    parts = _parts(wanted, finetune_share)
    ends = np.cumsum([parts[split] for split in dealt_to])[:-1]
    index = np.array([wanted.index(split) if split in wanted else -1 for split in dealt_to])
    where = np.full(len(hashes), -1)
    purpose = 0
    while (open_ := where < 0).any():
        drawn = np.searchsorted(ends, positions(hashes[open_], purpose), side="right")
        where[open_] = index[drawn]
        purpose += 1
    return where


def _spread_classes(
    where: Int64[np.ndarray, " texts"],
    labels: Integer[np.ndarray, " texts"],
    hashes: Hashes,
    splits: int,
) -> None:
    """Moves single texts so that no split is empty, nor lacks a class that has enough texts for all splits."""
    order = np.argsort(labels, kind="stable")
    classes = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    for texts in (*classes, order):
        if len(texts) < splits:
            continue
        for split in range(splits):
            counts = np.bincount(where[texts], minlength=splits)
            if not counts[split]:
                donors = texts[where[texts] == counts.argmax()]
                where[donors[hashes[donors].argmin()]] = split


def _cut(groups: int, wanted: Sequence[str], name: str, finetune_share: float) -> list[Int64[np.ndarray, " groups"]]:
    """Distributes groups of equal texts to the splits by their shares; each split gets at least one."""
    ends = np.cumsum([*dealt(groups, wanted, finetune_share).values()])
    return np.split(generator(0, name, "splits").permutation(groups), ends[:-1])


def _contradictory(name: str, things: str, role: str, examples: Role) -> list[str]:
    pairs = set(zip(examples.hashes.tolist(), examples.labels.tolist(), strict=True))
    count = sum(labels > 1 for labels in Counter(key for key, _ in pairs).values())
    return [f"{name}: {count} {things} of {role} occur with two or more different labels"] if count else []


def _left_out(name: str, what: str, count: int) -> list[str]:
    return [f"{name}: left out {count} {what} that a held-out split also holds"] if count else []
