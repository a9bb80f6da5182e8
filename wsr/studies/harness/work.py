"""Counts what studies would train and evaluate, and estimates what that takes, before a long run."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from wsr.data.dataset import SPLITS
from wsr.errors import WsrError
from wsr.planning.cost import Estimate, Workload
from wsr.planning.encoder import find_encoder
from wsr.planning.hardware import HERE, Hardware
from wsr.planning.hardware import find as find_hardware
from wsr.planning.published import ROWS, split_sizes
from wsr.planning.told import told
from wsr.studies.harness.preset import Preset


@dataclass(frozen=True)
class ShortTrainings:
    """Short trainings on some examples of each target, from several starts: of the encoder, and of the head alone."""

    targets: tuple[str, ...]
    seeds: int
    """Number of trainings for each target, start and way to train."""
    examples: int
    """Number of examples; 0: all of the fine-tuning split."""
    drawn_from: int
    """Largest number of texts of the fine-tuning split; 0: all."""
    epochs: float
    """Passes over the examples when the encoder is trained."""
    least_texts: int
    """Least number of texts read when the encoder is trained."""
    starts: int = 2
    """Number of starts."""
    modes: int = 1
    """Number of ways to train the encoder, besides training the head alone."""

    @property
    def runs(self) -> int:
        """Number of trainings."""
        return self.starts * (self.modes + 1) * self.seeds * len(self.targets)

    def texts(self, preset: Preset) -> tuple[float, float]:
        """Returns how many texts encoders train on, once for each pass, and how many they only encode."""
        trained = encoded = 0.0
        for name in self.targets:
            sizes = sizes_of(name, dataclasses.replace(preset, finetune_texts=self.drawn_from))
            examples = min(self.examples or sizes["finetune"], sizes["finetune"])
            each = self.starts * self.seeds
            trained += each * self.modes * max(self.epochs * examples, self.least_texts)
            encoded += each * (examples + (self.modes + 1) * sizes["test"])
        return trained, encoded


@dataclass(frozen=True)
class Work:
    """Counts of one study's work."""

    members: int
    """Number of models to fine-tune, if no other study has trained any of them."""
    points: int
    """Number of points to evaluate exactly."""
    few_shot: tuple[ShortTrainings, ...] = ()
    """Short trainings."""
    epochs: float | None = None
    """Epochs of the ``own_members``; None: the preset's."""
    own_members: int = 0
    """Number of members with another recipe than the preset's, which no other study trains."""
    own_texts: float | None = None
    """Number of fine-tuning texts of each of the ``own_members``; None: the preset's."""
    datasets: tuple[str, ...] = ()
    """Datasets of the members; empty: the preset's."""
    targets: tuple[str, ...] = ()
    """Datasets on which points are scored; empty: the preset's."""
    read_texts: float = 0.0
    """Number of texts that are encoded besides those of points, such as those scored under the heads of members."""

    @property
    def few_shot_runs(self) -> int:
        """Number of short trainings."""
        return sum(trainings.runs for trainings in self.few_shot)

    def told(self, preset: Preset) -> str:
        """Returns a text with the counts and what the work takes on this machine."""
        return "\n".join(planned([self], preset, find_hardware(HERE)))


def planned(
    works: Sequence[Work],
    preset: Preset,
    hardware: Hardware,
    *,
    base: str | None = None,
    length: float | None = None,
    within_hours: float = 24.0,
    price: float | None = None,
) -> list[str]:
    """Returns lines that say what studies of one preset take together on a machine, with everything assumed.

    Args:
      works: the counts of each study.
      preset: sizes, recipe and targets.
      hardware: the machine.
      base: the checkpoint, see ``find_encoder``; None: the preset's.
      length: mean length of a text, in tokens; None: the preset's maximum, an upper bound.
      within_hours: time in which all of the work must be done, in hours.
      price: price of one chip for an hour, in any currency; None: no cost.
    """
    lines = counted(works, preset)
    try:
        encoder = find_encoder(base or preset.base)
        estimate = Estimate(workload(works, preset, length=length), encoder, hardware)
        scored = {name for work in works if work.points for name in work.targets or preset.targets}
        of_targets = [sizes_of(name, preset) for name in scored]
    except WsrError as error:
        return [*lines, f"time, memory, disk:   not estimated: {error}"]
    texts = max((sizes["probe"] + sizes["test"] for sizes in of_targets), default=0)
    whole = (
        f"a text has {preset.max_length} tokens, the preset's maximum, so this is an upper bound; give the mean length "
        "with --length"
    )
    notes = [
        *([whole] if length is None else []),
        "members of the preset's recipe are trained once for all studies",
        *(["a step of BitFit counts as one of full training"] if any(work.few_shot for work in works) else []),
        *(["no member stops early, so this is an upper bound"] if preset.patience else []),
        *(
            ["datasets that are used whole have the sizes in wsr/planning/published.py"]
            if len(preset.sizes) < 4
            else []
        ),
    ]
    return lines + told(
        estimate, recipe=preset.recipe, point_texts=texts, notes=notes, within_hours=within_hours, price=price
    )


def counted(works: Sequence[Work], preset: Preset) -> list[str]:
    """Returns the counts of several studies together, as lines of text."""
    datasets = tuple(dict.fromkeys(name for work in works for name in work.datasets or preset.datasets))
    return [
        f"members to fine-tune: {_members(works, preset)} on {len(datasets)} datasets "
        f"({', '.join(datasets[:8])}{', ...' if len(datasets) > 8 else ''})",
        f"points to evaluate:   {sum(work.points for work in works)}",
        f"few-shot runs:        {sum(work.few_shot_runs for work in works)}",
        *([f"other texts encoded:  {read:,.0f}"] if (read := sum(work.read_texts for work in works)) else []),
    ]


def workload(works: Sequence[Work], preset: Preset, *, length: float | None = None) -> Workload:
    """Returns an upper bound of the work of several studies of one preset.

    Members with the preset's recipe are trained once for all studies, so of each dataset the largest number counts.

    Args:
      works: the counts of each study.
      preset: sizes, recipe and targets. A split that is used whole has its published size.
      length: mean length of a text, in tokens; None: the preset's maximum.

    Raises:
      WsrError: the size of a split is not known.
    """
    trained = checked = scored = 0.0
    groups: list[tuple[dict[str, float], float, float | None]] = [(_shared(works, preset), preset.epochs, None)]
    for work in works:
        names = work.datasets or preset.datasets
        own = dict.fromkeys(names, work.own_members / len(names))
        groups.append((own, work.epochs or preset.epochs, work.own_texts))
    for members, epochs, texts in groups:
        for name, count in members.items():
            if not count:
                continue
            sizes = sizes_of(name, preset)
            read = count * epochs * (texts or sizes["finetune"])
            trained += read
            if preset.patience:
                checks = read / preset.recipe.batch_size / preset.recipe.check_every
                checked += checks * sizes["validation"]
    for work in works:
        scored += work.read_texts
        if work.points:
            targets = [sizes_of(name, preset) for name in work.targets or preset.targets]
            scored += work.points * sum(sizes["probe"] + sizes["test"] for sizes in targets) / len(targets)
        for trainings in work.few_shot:
            own_trained, own_encoded = trainings.texts(preset)
            trained, scored = trained + own_trained, scored + own_encoded
    return Workload(
        members=_members(works, preset),
        trained_texts=trained,
        length=preset.max_length if length is None else length,
        points=sum(work.points for work in works),
        scored_texts=scored,
        checked_texts=checked,
    )


def sizes_of(name: str, preset: Preset) -> dict[str, int]:
    """Returns the number of texts in each split of a dataset: the preset's, or all where there are fewer.

    Raises:
      WsrError: the preset uses a split whole whose size is not known.
    """
    most = preset.sizes
    if name not in ROWS and len(most) == len(SPLITS):
        return most
    try:
        whole = split_sizes(name, preset.finetune_share)
    except WsrError as error:
        raise WsrError(
            f"some splits are used whole, and {error}, or give --finetune_texts, --probe_texts ..."
        ) from None
    return {split: min(size, most.get(split, size)) for split, size in whole.items()}


def _shared(works: Sequence[Work], preset: Preset) -> dict[str, float]:
    """Returns the number of members with the preset's recipe on each dataset."""
    members: dict[str, float] = {}
    for work in works:
        names = work.datasets or preset.datasets
        for name in names:
            members[name] = max(members.get(name, 0.0), (work.members - work.own_members) / len(names))
    return members


def _members(works: Sequence[Work], preset: Preset) -> int:
    return round(sum(_shared(works, preset).values())) + sum(work.own_members for work in works)
