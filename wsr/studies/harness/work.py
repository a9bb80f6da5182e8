"""Counts what studies would train and evaluate, and estimates what that takes, before a long run."""

from collections.abc import Sequence
from dataclasses import dataclass

from wsr.errors import WsrError
from wsr.planning.cost import Estimate, Workload
from wsr.planning.encoder import find_encoder
from wsr.planning.hardware import HERE, Hardware
from wsr.planning.hardware import find as find_hardware
from wsr.planning.published import split_sizes
from wsr.planning.told import told
from wsr.studies.harness.preset import Preset


@dataclass(frozen=True)
class Work:
    """Counts of one study's work."""

    members: int
    """Number of models to fine-tune, if no other study has trained any of them."""
    points: int
    """Number of points to evaluate exactly."""
    few_shot_runs: int = 0
    """Number of short trainings from one start."""
    epochs: float | None = None
    """Epochs of the ``own_members``; None: the preset's."""
    own_members: int = 0
    """Number of members with another recipe than the preset's, which no other study trains."""
    own_texts: float | None = None
    """Number of fine-tuning texts of each of the ``own_members``; None: the preset's."""
    datasets: tuple[str, ...] = ()
    """Datasets of the members; empty: the preset's."""

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
        each = max(_sizes(name, preset)["probe"] + _sizes(name, preset)["test"] for name in preset.targets)
    except WsrError as error:
        return [*lines, f"time, memory, disk:   not estimated: {error}"]
    texts = each if estimate.workload.points else 0
    whole = (
        f"a text has {preset.max_length} tokens, the preset's maximum, so this is an upper bound; give the mean length "
        "with --length"
    )
    notes = [
        *([whole] if length is None else []),
        "members of the preset's recipe are trained once for all studies; few-shot runs are not counted",
        *(["no member stops early, so this is an upper bound"] if preset.patience else []),
        *(
            ["datasets that are used whole have the sizes of their cards as far as they are remembered, unchecked"]
            if len(preset.sizes) < 4
            else []
        ),
    ]
    return lines + told(
        estimate, recipe=preset.recipe, point_texts=texts, notes=notes, within_hours=within_hours, price=price
    )


def counted(works: Sequence[Work], preset: Preset) -> list[str]:
    """Returns the counts of several studies together, as lines of text."""
    members = _shared(works) + sum(work.own_members for work in works)
    datasets = tuple(dict.fromkeys(name for work in works for name in work.datasets or preset.datasets))
    return [
        f"members to fine-tune: {members} on {len(datasets)} datasets "
        f"({', '.join(datasets[:8])}{', ...' if len(datasets) > 8 else ''})",
        f"points to evaluate:   {sum(work.points for work in works)}",
        f"few-shot runs:        {sum(work.few_shot_runs for work in works)}",
    ]


def workload(works: Sequence[Work], preset: Preset, *, length: float | None = None) -> Workload:
    """Returns an upper bound of the work of several studies of one preset, without few-shot runs.

    Members with the preset's recipe are trained once for all studies, so the largest number of them counts.

    Args:
      works: the counts of each study.
      preset: sizes, recipe and targets. A split that is used whole has its published size.
      length: mean length of a text, in tokens; None: the preset's maximum.

    Raises:
      WsrError: the size of a split is not known.
    """
    trained = checked = 0.0
    most = max(works, key=lambda work: work.members - work.own_members)
    groups: list[tuple[int, Work, float, float | None]] = [(_shared(works), most, preset.epochs, None)]
    groups += [(work.own_members, work, work.epochs or preset.epochs, work.own_texts) for work in works]
    for members, work, epochs, texts in groups:
        if not members:
            continue
        names = work.datasets or preset.datasets
        for name in names:
            sizes = _sizes(name, preset)
            read = members / len(names) * epochs * (texts or sizes["finetune"])
            trained += read
            if preset.patience:
                checks = read / preset.recipe.batch_size / preset.recipe.check_every
                checked += checks * sizes["validation"]
    points = sum(work.points for work in works)
    each = sum(_sizes(name, preset)["probe"] + _sizes(name, preset)["test"] for name in preset.targets)
    return Workload(
        members=_shared(works) + sum(work.own_members for work in works),
        trained_texts=trained,
        length=preset.max_length if length is None else length,
        points=points,
        scored_texts=points * each / len(preset.targets) if points else 0.0,
        checked_texts=checked,
    )


def _shared(works: Sequence[Work]) -> int:
    return max(work.members - work.own_members for work in works)


def _sizes(name: str, preset: Preset) -> dict[str, int]:
    wanted = ("finetune", "probe", "validation", "test")
    sizes = dict(preset.sizes)
    if any(split not in sizes for split in wanted):
        try:
            sizes = split_sizes(name) | sizes
        except WsrError as error:
            raise WsrError(
                f"some splits are used whole, and {error}, or give --finetune_texts, --probe_texts ..."
            ) from None
    return sizes
