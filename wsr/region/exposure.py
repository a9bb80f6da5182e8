"""Which members of a region were fine-tuned on texts of a dataset, whatever the dataset is called."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from wsr.data.choices import Choices
from wsr.data.dataset import Dataset
from wsr.data.identity import Hashes
from wsr.data.table import overlapping
from wsr.data.text_sketch import Share, TextSketch
from wsr.data.texts import Texts
from wsr.errors import WsrError
from wsr.region.region import Member, Region

LEAK = 0.01
"""A member with a larger share of the scored texts among its training texts is not scored."""
SAME_DATA = 0.10
"""A member was fine-tuned on a dataset if a larger share of its training texts are in it, or of its texts in those."""
SHOWN = 8
_Compared: TypeAlias = tuple[TextSketch | None, Hashes | None, Hashes | None]
Target: TypeAlias = Dataset | Texts | Choices
"""What points are scored on."""


@dataclass(frozen=True)
class Exposure:
    """Which members of a region saw texts of a dataset."""

    target: str
    """Name of the dataset."""
    same_data: tuple[str, ...]
    """Members fine-tuned on the dataset, or on one that shares texts with it."""
    leaks: dict[str, Share]
    """Share of the scored texts that each leaking member was fine-tuned on."""
    unknown: tuple[str, ...]
    """Members without a sketch of their training texts, judged by the name of their dataset."""
    sampled: dict[str, Share]
    """Share of the scored texts, for members of which the sketch is a sample and that do not leak."""
    other_lengths: dict[int, int]
    """Number of members whose texts were cut at another length, by that length."""

    @property
    def leaks_told(self) -> str:
        """The leaking members with their shares, the largest first."""
        shares = sorted(self.leaks.items(), key=lambda one: -one[1].share)
        return _listed([f"{name} ({100 * share.share:.0f} %)" for name, share in shares])

    def lines(self, max_length: int | None, *, allow_overlap: bool = False) -> list[str]:
        """Returns what a user should know, one line each."""
        told = []
        if self.leaks:
            how = "scored all the same (--allow_overlap)" if allow_overlap else "left out"
            told.append(f"{how}, fine-tuned on texts that are scored on {self.target}: {self.leaks_told}")
        unsure = [share.at_most for share in self.sampled.values()]
        if unsure and max(unsure) > LEAK:
            told.append(
                f"overlap with {self.target} is measured on a sample: of {len(unsure)} members fine-tuned on many "
                f"texts, up to {100 * max(unsure):.0f} % of the scored texts may be among them (95 % bound)"
            )
        if self.unknown:
            told.append(
                f"overlap with {self.target} is not known by content, only by name, for {len(self.unknown)} members "
                f"without a record of their training texts: {_listed(self.unknown)}"
            )
        for length, count in sorted(self.other_lengths.items()):
            told.append(
                f"{count} members were fine-tuned on texts cut at {length} tokens, but are scored here at {max_length}"
            )
        return told


def exposure(region: Region, target: Target, splits: Sequence[str] = ("probe", "test")) -> Exposure:
    """Returns which members saw texts of a dataset.

    Texts are compared by the hash of their content, without regard to capitals and white space; pairs as wholes, or
    each of their texts where the other side has single texts. Members whose training texts are unknown are judged by
    the name of their dataset.

    Args:
      region: the members.
      target: the dataset.
      splits: the splits on which points are scored.
    """
    hashes = _hashes(target, splits)
    same: list[str] = []
    unknown: list[str] = []
    leaks: dict[str, Share] = {}
    sampled: dict[str, Share] = {}
    lengths: dict[int, int] = {}
    for member in region.members:
        length = member.data.get("max_length")
        if length and target.max_length and length != target.max_length:
            lengths[length] = lengths.get(length, 0) + 1
        sketch, scored, all_texts = hashes(member)
        if sketch is None or scored is None or all_texts is None:
            unknown.append(member.name)
            if member.dataset in (overlapping(target.name) if target.built_in else {target.name}):
                same.append(member.name)
            continue
        share = sketch.share_of(scored)
        if share.share > LEAK:
            leaks[member.name] = share
        of_table = target.built_in and bool(member.data.get("built_in"))
        if not share.exact and share.share <= LEAK and not (of_table and member.dataset == target.name):
            sampled[member.name] = share
        if (
            max(sketch.share_in(all_texts).share, sketch.share_of(all_texts).share) > SAME_DATA
            or member.name in leaks
            # Such datasets may spell the same texts in another way.
            or (of_table and member.dataset in overlapping(target.name))
        ):
            same.append(member.name)
    return Exposure(target.name, tuple(same), leaks, tuple(unknown), sampled, lengths)


def _hashes(target: Target, splits: Sequence[str]) -> Callable[[Member], _Compared]:
    """Returns a function that returns a member's training texts, the scored texts and all texts, hashed alike.

    Pairs are compared with pairs as wholes, and with single texts by each text alone.
    """
    wholes = target.scored_hashes(splits), target.text_hashes
    parts = (target.part_hashes(splits), target.part_hashes()) if isinstance(target, Dataset) else (None, None)

    def of(member: Member) -> _Compared:
        of_pairs = member.texts_of_pairs
        if (parts[0] is None) == (of_pairs is None) or isinstance(target, Choices):
            return member.texts, *wholes
        return (member.texts, *parts) if of_pairs is None else (of_pairs, *wholes)

    return of


def refuse_leaks(region: Region, target: Target, splits: Sequence[str], *, allow_overlap: bool) -> None:
    """Prints what the members of a region saw of a dataset, and refuses those that were fine-tuned on scored texts.

    Args:
      region: the members, all of which are used.
      target: the dataset.
      splits: the splits that are used.
      allow_overlap: refuses nobody.

    Raises:
      WsrError: naming the members.
    """
    seen = exposure(region, target, splits)
    if seen.leaks and not allow_overlap:
        raise WsrError(
            f"{target.name}: {_listed(tuple(seen.leaks))} were fine-tuned on more than {100 * LEAK:.0f} % of the texts "
            "that are scored; choose other members or texts, or go on with --allow_overlap"
        )
    for line in seen.lines(target.max_length, allow_overlap=allow_overlap):
        print(line, flush=True)


def unexposed(
    region: Region,
    target: Target,
    splits: Sequence[str] = ("probe", "test"),
    *,
    leave_out: bool = True,
    allow_overlap: bool = False,
    out_of: str = "",
) -> tuple[Region, Region]:
    """Returns the members that may be scored on a dataset and those that never saw it, and prints what was left out.

    Args:
      region: the members.
      target: the dataset.
      splits: the splits on which points are scored.
      leave_out: leaves members fine-tuned on the dataset out of the second region.
      allow_overlap: keeps members that were fine-tuned on the scored texts themselves.
      out_of: what the members left out of the second region play no part in, if they are scored all the same.

    Returns:
      The region without the members that were fine-tuned on scored texts, and the same without all members that were
      fine-tuned on the dataset.

    Raises:
      WsrError: if no member is left; the message names the flag to go on with.
    """
    seen = exposure(region, target, splits)
    for line in seen.lines(target.max_length, allow_overlap=allow_overlap):
        print(line, flush=True)
    fair = region if allow_overlap else _without(region, seen.leaks)
    if len(region) and not len(fair):
        raise WsrError(
            f"{target.name}: all {len(region)} members were fine-tuned on more than {100 * LEAK:.0f} % of the scored "
            "texts, so their scores would be memory; score them on other texts, or all the same with --allow_overlap"
        )
    kept = [name for name in seen.same_data if name not in seen.leaks] if not allow_overlap else seen.same_data
    others = _without(fair, kept) if leave_out else fair
    if len(fair) and not len(others):
        raise WsrError(
            f"{target.name}: all {len(fair)} members were fine-tuned on it or on a dataset that shares texts with it; "
            "no member is left; keep them with --noleave_out, or choose another dataset"
        )
    if len(others) < len(fair):
        out = f"left out of {out_of}" if out_of else "left out"
        print(f"{out}, fine-tuned on {target.name} or its texts: {_listed(kept)}", flush=True)
    return fair, others


def _without(region: Region, names: Sequence[str] | dict[str, Share]) -> Region:
    return region.where(lambda member: member.name not in names) if names else region


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
