"""What studies would train and evaluate, and the workload that makes: for a look before a long run."""

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
    """Counts of one study."""

    members: int
    """Models to fine-tune, if no other study has trained them."""
    points: int
    """Points to evaluate exactly."""
    few_shot_runs: int = 0
    """Short trainings from one start."""
    epochs: float | None = None
    """Of its own members, where they are not the preset's."""
    own_members: int = 0
    """Of the members, those that are trained otherwise than the preset's: no other study has them."""
    own_texts: float | None = None
    """Fine-tuning texts of an own member, where they are not the preset's."""
    datasets: tuple[str, ...] = ()
    """Of the members; none: the preset's."""

    def told(self, preset: Preset) -> str:
        """Returns lines that a person reads: counts, and what they take on this machine."""
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
    """Returns lines: what some studies of one preset take together on a machine, and everything that is assumed.

    Args:
      works: the counts of each study.
      preset: sizes, recipe, targets.
      hardware: the machine.
      base: another checkpoint than the preset's, see ``find_encoder``.
      length: tokens of a text; None: the preset's longest.
      within_hours: when all of it is to be done.
      price: of a chip for an hour.
    """
    lines = counted(works, preset)
    try:
        encoder = find_encoder(base or preset.base)
        estimate = Estimate(workload(works, preset, length=length), encoder, hardware)
        each = max(_sizes(name, preset)["probe"] + _sizes(name, preset)["test"] for name in preset.targets)
    except WsrError as error:
        return [*lines, f"time, memory, disk:   not estimated: {error}"]
    texts = each if estimate.workload.points else 0
    whole = f"a text has {preset.max_length} tokens, the longest there may be: an upper bound; --length says otherwise"
    notes = [
        *([whole] if length is None else []),
        "members of the preset's recipe are trained once for all studies; few-shot runs are not counted",
        *(["every member is trained to the end and checked as often: an upper bound"] if preset.patience else []),
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
    """Returns the counts of some studies together as lines."""
    members = _shared(works) + sum(work.own_members for work in works)
    datasets = tuple(dict.fromkeys(name for work in works for name in work.datasets or preset.datasets))
    return [
        f"members to fine-tune: {members} on {len(datasets)} datasets "
        f"({', '.join(datasets[:8])}{', ...' if len(datasets) > 8 else ''})",
        f"points to evaluate:   {sum(work.points for work in works)}",
        f"few-shot runs:        {sum(work.few_shot_runs for work in works)}",
    ]


def workload(works: Sequence[Work], preset: Preset, *, length: float | None = None) -> Workload:
    """Returns what some studies of one preset take together, at most.

    Members that are trained as the preset says are trained once for all studies: the largest number of them counts.
    Few-shot runs are not in it.

    Args:
      works: the counts of each study.
      preset: sizes, recipe, targets; splits that are used whole have the sizes that are published.
      length: tokens of a text; None: the preset's longest.

    Raises:
      WsrError: where sizes are not known.
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
            raise WsrError(f"splits are used whole and {error}, or give --finetune_texts, --probe_texts ...") from None
    return sizes
