"""What the generalised loss says when the probe is trained on texts that members were fine-tuned on.

A member's features separate the texts it has memorised; a classifier that is fitted on them relies on what other texts
do not show. Both probes have the same number of texts and are tested on the same unseen ones.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from wsr.data.dataset import Dataset
from wsr.engine.evaluate import Evaluation
from wsr.errors import WsrError
from wsr.geometry import sampling
from wsr.region.region import Region
from wsr.report.document import Figure, Section, Table
from wsr.report.tables import INTERVAL, interval_cell
from wsr.statistics.difference import Difference, holm, mean_difference
from wsr.statistics.interval import Interval, mean_interval
from wsr.store.row import result_row
from wsr.studies.harness.context import Context, Request, score_all
from wsr.studies.harness.told import nats
from wsr.studies.harness.verdict import NO_EFFECT_NATS, Part, above, all_of, below, power_told, verdict

PROBES = ("unseen", "seen")
CHANGE = "seen minus unseen"
GROUPS = {"member": "In", "interior": "In'"}
MEAN = "mean over targets"
Scored: TypeAlias = Mapping[tuple[str, str, str], Evaluation]
"""By target, texts of the probe and group."""


def probe_texts(context: Context, *, interior: int) -> tuple[list[dict], Section]:
    """Scores the members of each target, points between them and the pretrained model with either probe.

    Args:
      context: the population; targets without members are left out.
      interior: points in the hull of the members of a target.

    Raises:
      WsrError: if no target has members.
    """
    targets = [target for target in context.targets if target in context.region.datasets]
    if not targets:
        raise WsrError("probe split: no target has members that learned it; train longer or name other targets")
    scored = _score(context, targets, interior)
    rows = [
        row
        for (_, probe, group), found in scored.items()
        for row in found.rows(group, study="probe texts", probe_texts=probe)
    ]
    gains = {
        (target, probe, group): mean_difference(
            scored[target, probe, group].losses_by_draw,
            scored[target, probe, "pretrained"].losses_by_draw,
            generator=context.generator("probe texts", target, group),
        )
        for target in targets
        for probe in PROBES
        for group in GROUPS
        if (target, probe, group) in scored
    }
    adjusted, means = _corrected(gains), means_over_targets({key: gain.mean for key, gain in gains.items()})
    rows += [_gain_row(key, gain, adjusted[key], scored) for key, gain in gains.items()]
    for (what, group), mean in means.items():
        rows.append(_mean_row(what, group, mean, sum(key[1:] == ("unseen", group) for key in gains)))
    unseen, seen, change = (means[what, "member"] for what in (*PROBES, CHANGE))
    flips = [target for target in targets if _flips(gains, target)]
    sure = [_flips_beyond_doubt(gains, adjusted, target) for target in targets].count("holds")
    section = Section(
        "A probe on seen texts misjudges models",
        "Does a probe on texts that the members were fine-tuned on make them look worse than the pretrained model?",
        "By readers' notes the paper fits the probe on the target's training data; what it says about texts that "
        "members were fine-tuned on is not known.",
        f"In minus pretrained, mean over {len(targets)} targets: {nats(unseen)} on unseen texts, {nats(seen)} on "
        f"seen ones. The sign flips on {len(flips)} targets, beyond doubt on {sure}",
        verdict([all_of([below(unseen), above(seen, margin=NO_EFFECT_NATS)])]),
        text=(
            "Claim: members of the target's own dataset have a lower loss than the pretrained model with a probe on "
            "unseen texts, and a higher one with a probe on their own fine-tuning texts, as means over the targets. "
            f"From unseen to seen texts the difference changes by {nats(change)}. " + _shift(context, scored, targets),
            "By target: " + "; ".join(_told(gains, target) for target in targets) + ".",
        ),
        figures=tuple(_figure(scored, target) for target in targets),
        tables=(
            Table(
                "Loss minus that of the pretrained model",
                ("target", "probe on", "group", "difference (nats)", INTERVAL, "p, Holm"),
                (
                    *(
                        (MEAN, what, GROUPS[group], mean.value, interval_cell(mean.low, mean.high), None)
                        for (what, group), mean in means.items()
                    ),
                    *(
                        (target, probe, GROUPS[group], gain.mean, interval_cell(gain.low, gain.high), adjusted[key])
                        for key, gain in gains.items()
                        for target, probe, group in [key]
                    ),
                ),
                "Below 0: better than the pretrained model under the same probe. Intervals of a target: over members "
                "and test texts; of the mean: over targets (Student's t). Holm's correction over the targets.",
            ),
        ),
        command=context.command,
        headline=(
            f"A probe on texts that models were trained on changes their loss minus that of the pretrained model from "
            f"{unseen.value:+.3f} to {seen.value:+.3f} nats (mean over {len(targets)} datasets); the sign flips on "
            f"{len(flips)} of these."
        ),
        paper_short="not known",
        measured_short=f"{unseen.value:+.3f} nats on unseen texts, {seen.value:+.3f} on seen ones",
        power=power_told({f"{probe} texts": means[probe, "member"] for probe in PROBES}),
    )
    return rows, section


def means_over_targets(gains: Mapping[tuple[str, str, str], float]) -> dict[tuple[str, str], Interval]:
    """Returns the mean over targets of each group's difference from the pretrained model, and of its change.

    Args:
      gains: by target, texts of the probe and group, the loss minus that of the pretrained model.

    Returns:
      By texts of the probe, or ``CHANGE``, and group, the mean with a Student t interval: targets share no members.
    """
    found = {}
    for group in GROUPS:
        targets = [target for target, probe, own in gains if (probe, own) == ("unseen", group)]
        if not targets:
            continue
        unseen, seen = (np.array([gains[target, probe, group] for target in targets]) for probe in PROBES)
        for what, values in (("unseen", unseen), ("seen", seen), (CHANGE, seen - unseen)):
            found[what, group] = mean_interval(values)
    return found


def with_seen_probe(dataset: Dataset) -> Dataset:
    """The dataset with a probe split of as many of the texts that its members are fine-tuned on, spread evenly."""
    finetune, probe = dataset.splits["finetune"], dataset.splits["probe"]
    chosen = np.linspace(0, len(finetune) - 1, min(len(probe), len(finetune))).round().astype(int)
    return dataset.with_split("probe", finetune.take(chosen))


def _score(context: Context, targets: Sequence[str], interior: int) -> dict[tuple[str, str, str], Evaluation]:
    seen = {f"{name}, probe on seen texts": with_seen_probe(context.datasets[name]) for name in targets}
    both = dataclasses.replace(context, datasets={**context.datasets, **seen})
    keys, requests = [], []
    for target in targets:
        own = _members_of(context.region, target)
        draws = {"pretrained": np.zeros((1, len(own))), "member": sampling.corners(len(own))}
        if len(own) > 1:
            generator = context.generator("probe texts", "hull", target)
            draws["interior"] = sampling.convex_hull(generator, interior, len(own))
        for probe in PROBES:
            where = target if probe == "unseen" else f"{target}, probe on seen texts"
            for group, coefficients in draws.items():
                keys.append((target, probe, group))
                requests.append(Request(group, own, coefficients, where))
    return dict(zip(keys, score_all(both, "probe texts", requests), strict=True))


def _members_of(region: Region, target: str) -> Region:
    return region.where(lambda member: member.dataset == target)


def _corrected(gains: Mapping[tuple[str, str, str], Difference]) -> dict[tuple[str, str, str], float]:
    """p-values by Holm over the targets of each comparison."""
    found: dict[tuple[str, str, str], float] = {}
    for kind in dict.fromkeys(key[1:] for key in gains):
        keys = [key for key in gains if key[1:] == kind]
        adjusted = holm([gains[key].p_value for key in keys])
        found |= {key: float(p) for key, p in zip(keys, adjusted, strict=True)}
    return found


def _flips(gains: Mapping[tuple[str, str, str], Difference], target: str) -> bool:
    return gains[target, "unseen", "member"].mean < 0 < gains[target, "seen", "member"].mean


def _flips_beyond_doubt(
    gains: Mapping[tuple[str, str, str], Difference], adjusted: Mapping[tuple[str, str, str], float], target: str
) -> Part:
    unseen, seen = ((target, probe, "member") for probe in ("unseen", "seen"))
    return all_of([below(gains[unseen], p=adjusted[unseen]), above(gains[seen], p=adjusted[seen])])


def _told(gains: Mapping[tuple[str, str, str], Difference], target: str) -> str:
    unseen, seen = (gains[target, probe, "member"] for probe in PROBES)
    return f"{target}: In minus pretrained {unseen.mean:+.3f} nats (unseen), {seen.mean:+.3f} (seen)"


def _shift(context: Context, scored: Scored, targets: Sequence[str]) -> str:
    """How much the probe's texts change the loss of members and of the pretrained model."""
    told = []
    for group, name in (("member", "members"), ("pretrained", "the pretrained model")):
        shifts = []
        for target in targets:
            shift = mean_difference(
                scored[target, "seen", group].losses,
                scored[target, "unseen", group].losses,
                paired=True,
                generator=context.generator("shift", target, group),
            )
            shifts.append(f"{shift.mean:+.3f} ({shift.low:+.3f} to {shift.high:+.3f}) on {target}")
        told.append(f"for {name} {', '.join(shifts)}")
    return f"Going from unseen to seen texts changes the loss, in nats, {'; '.join(told)}."


def _figure(scored: Scored, target: str) -> Figure:
    names = {"pretrained": "pretrained", **GROUPS}
    return Figure(
        "groups",
        f"Generalised loss on {target}, by the texts of the probe",
        "One dot a model or point, lower is better; the tick is the mean. Each panel has its own scale.",
        {
            "panels": [
                {
                    "title": f"probe on {probe} texts",
                    "groups": [
                        {"name": name, "values": scored[target, probe, group].generalised_loss}
                        for group, name in names.items()
                        if (target, probe, group) in scored
                    ],
                }
                for probe in PROBES
            ],
            "y_label": "generalised loss (nats)",
        },
    )


def _gain_row(key: tuple[str, str, str], gain: Difference, adjusted: float, scored: Scored) -> dict:
    target, probe, group = key
    return result_row(
        f"{GROUPS[group]} minus pretrained",
        target,
        "difference of the generalised loss",
        gain.mean,
        texts=scored[key].losses.shape[1],
        how=scored[key].how[0],
        members=scored[key].region.names,
        interval=(gain.low, gain.high),
        study="probe texts",
        probe_texts=probe,
        p_holm=adjusted,
    )


def _mean_row(what: str, group: str, mean: Interval, targets: int) -> dict:
    return result_row(
        f"{GROUPS[group]} minus pretrained",
        MEAN,
        "difference of the generalised loss",
        mean.value,
        texts=targets,
        how="mean over targets, with an interval over targets",
        interval=(mean.low, mean.high),
        study="probe texts",
        probe_texts=what,
    )
