"""Is the centroid of a region a better place to start fine-tuning from than the pretrained model?

The centroid for a target is the average of members that never saw the target: ``Region.without_dataset`` enforces it.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from wsr.data.metrics import score
from wsr.report.document import Cell, Figure, Section, Table
from wsr.report.tables import INTERVAL, interval_cell
from wsr.runtime.progress import progress
from wsr.statistics.difference import Difference, holm, mean_difference
from wsr.statistics.interval import Interval, mean_interval
from wsr.store.row import result_row
from wsr.studies.few_shot import FewShot, Start, kept_predictions, right_answers
from wsr.studies.harness.context import Context
from wsr.studies.harness.verdict import NO_EFFECT_SHARE, above, power_told, verdict
from wsr.training import Mode

STARTS = ("pretrained", "centroid")
MODES: tuple[Mode, ...] = ("bitfit", "head")
CAVEAT = (
    "The row of the centroid is the same, value for value, in the paper's tables with 1,000 examples and with all "
    "data, so +10.66 may compare a centroid trained on all data with a pretrained model trained on few."
)
Gain = tuple[Difference, float]
"""What the centroid adds on a target, and its p-value adjusted for the number of targets."""


@dataclass(frozen=True, eq=False)
class _Scored:
    """What training from one start came to on a target, for each seed."""

    scores: list[float]
    right: Float[np.ndarray, "seeds texts"]


def centroid_start(context: Context, plan: FewShot) -> tuple[list[dict], Section]:
    """Trains on examples of each target from both starts, and compares the scores on its test split."""
    found: dict[tuple[str, str, str], _Scored] = {}
    used: dict[str, tuple[str, ...]] = {}
    with progress("centroid as a start", len(context.targets) * 2 * 2 * plan.seeds, "runs") as counter:
        for target in context.targets:
            dataset, others = context.datasets[target], context.region.without_dataset(target)
            used[target] = others.names
            averaged = {"pretrained": others.emptied(), "centroid": others}
            starts = {name: Start(region, plan.recipe.precision) for name, region in averaged.items()}
            for (name, start), mode in itertools.product(starts.items(), MODES):
                each = []
                for seed in range(plan.seeds):
                    each.append(kept_predictions(context, start, dataset, mode, seed, plan))
                    counter.advance(note=f"{target}, {mode}")
                labels = dataset.splits["test"].labels
                scores = [score(dataset.metric, labels, own) for own in each]
                found[target, name, mode] = _Scored(scores, np.stack([right_answers(dataset, own) for own in each]))
    gains = _gains(context, found)
    return _rows(context, plan, found, gains, used), _section(context, plan, found, gains)


def _gains(context: Context, found: Mapping[tuple[str, str, str], _Scored]) -> dict[tuple[str, str], Gain]:
    """The gain of the centroid by target and mode, and its p-value adjusted for the number of targets."""
    gains: dict[tuple[str, str], Gain] = {}
    for mode in MODES:
        own = [
            mean_difference(
                found[target, "centroid", mode].right,
                found[target, "pretrained", mode].right,
                paired=True,
                generator=context.generator("gain", target, mode),
            )
            for target in context.targets
        ]
        adjusted = holm([gain.p_value for gain in own])
        for target, gain, p_holm in zip(context.targets, own, adjusted, strict=True):
            gains[target, mode] = (gain, float(p_holm))
    return gains


def _of_mode(gains: Mapping[tuple[str, str], Gain], mode: str) -> list[Gain]:
    return [gain for (_, own), gain in gains.items() if own == mode]


def _mean_gain(gains: Mapping[tuple[str, str], Gain], mode: str) -> Interval:
    """Over targets: what another dataset of the kind might gain."""
    return mean_interval(np.array([gain.mean for gain, _ in _of_mode(gains, mode)]))


def _rows(
    context: Context,
    plan: FewShot,
    found: Mapping[tuple[str, str, str], _Scored],
    gains: Mapping[tuple[str, str], Gain],
    used: Mapping[str, tuple[str, ...]],
) -> list[dict]:
    examples = plan.examples or "all"
    rows: list[dict] = []
    for (target, start, mode), own in found.items():
        members = list(used[target]) if start == "centroid" else []
        rows += [
            result_row(
                f"{start}, {mode}",
                target,
                context.datasets[target].metric,
                value,
                texts=own.right.shape[1],
                how=f"{mode} on {examples} examples, seed {seed}",
                members=members,
                coefficients=np.full(len(members), 1 / max(len(members), 1)),
                study="centroid start",
                examples=examples,
            )
            for seed, value in enumerate(own.scores)
        ]
    for (target, mode), (gain, adjusted) in gains.items():
        rows.append(_gain_row(mode, target, gain, examples, plan) | {"p_holm": adjusted})
    for mode in MODES:
        rows.append(_gain_row(mode, "mean over targets", _mean_gain(gains, mode), examples, plan))
    return rows


def _gain_row(mode: str, target: str, gain: Difference | Interval, examples: int | str, plan: FewShot) -> dict:
    return result_row(
        f"gain, {mode}",
        target,
        "gain",
        gain.mean if isinstance(gain, Difference) else gain.value,
        texts=plan.seeds,
        how="share of right answers from the centroid minus that from the pretrained model",
        interval=(gain.low, gain.high),
        study="centroid start",
        examples=examples,
    )


def _section(
    context: Context,
    plan: FewShot,
    found: Mapping[tuple[str, str, str], _Scored],
    gains: Mapping[tuple[str, str], Gain],
) -> Section:
    cells: list[tuple[Cell, ...]] = []
    chart = []
    for target in context.targets:
        series = []
        for mode in MODES:
            gain, adjusted = gains[target, mode]
            means = [float(np.mean(found[target, start, mode].scores)) for start in STARTS]
            cells.append((target, mode, *means, gain.mean, interval_cell(gain.low, gain.high), adjusted))
            for start in STARTS:
                values = found[target, start, mode].scores
                of_seeds = mean_interval(np.array(values))
                series.append(
                    {
                        "name": f"{start}, {mode}",
                        "mean": of_seeds.value,
                        "low": max(of_seeds.low, 0.0),
                        "high": min(of_seeds.high, 1.0),
                        "values": values,
                    }
                )
        chart.append({"name": target, "series": series})
    metric = context.datasets[context.targets[0]].metric
    told = f"{plan.examples} examples" if plan.examples else "all examples"
    few = 0 < plan.examples <= 1000
    return Section(
        f"The centroid starts better, {told}",
        "Does training from the centroid of other datasets' members beat training from the pretrained model?",
        "With at most 1,000 examples +10.66 accuracy on average (SST2 +33.99, MNLI +28.97, WNLI -1.41, MultiRC -0.06). "
        + CAVEAT
        if few
        else "BitFit from the centroid beats BitFit from the pretrained model in 11 of 12 datasets, +3.06 accuracy on "
        "average (abstract); by readers' notes +4.03, 9 wins, 2 ties, 1 loss.",
        "; ".join(_measured(gains, mode) for mode in MODES),
        _verdict(gains),
        text=(
            f"{told.capitalize()}, {plan.seeds} {'seed' if plan.seeds == 1 else 'seeds'}, the same examples and "
            "initial heads from both starts. The centroid is the average of the members that never saw the target. "
            f"bitfit trains the bias terms and the head, for at least {plan.least_steps} steps; head trains the head "
            "alone, to the optimum of a linear probe.",
        ),
        figures=(
            Figure(
                "intervals",
                f"{metric} on the test split after training",
                "Dots are means over seeds, whiskers 95 % intervals over seeds (Student's t).",
                {"rows": chart, "x_label": metric},
            ),
        ),
        tables=(
            Table(
                "Gain of the centroid",
                (
                    "target",
                    "training",
                    "from pretrained",
                    "from centroid",
                    "gain",
                    INTERVAL,
                    "p, Holm",
                ),
                tuple(cells),
                "Gain: in the share of right answers; interval over seeds and test texts, both paired. Holm: p "
                "adjusted for the number of targets.",
            ),
        ),
        command=context.command,
        headline=(f"From the average of other datasets' models, training on {told} scores {_gains_told(gains)}."),
        paper_short="+10.66 points (perhaps on unequal data)" if few else "+3.06 points, better on 11 of 12",
        measured_short=", ".join(f"{100 * _mean_gain(gains, mode).value:+.1f} points ({mode})" for mode in MODES),
        power=power_told({mode: _mean_gain(gains, mode) for mode in MODES}, "points", scale=100),
    )


def _gains_told(gains: Mapping[tuple[str, str], Gain]) -> str:
    """The mean gain of each way of training, in words."""
    bitfit, head = (100 * _mean_gain(gains, mode).value for mode in MODES)
    return f"{bitfit:+.1f} points over the pretrained model (training the head alone: {head:+.1f})"


def _measured(gains: Mapping[tuple[str, str], Gain], mode: str) -> str:
    own, mean = _of_mode(gains, mode), _mean_gain(gains, mode)
    better, worse = (sum(sign * gain.mean > 0 for gain, _ in own) for sign in (1, -1))
    sure = sum(gain.mean > 0 and adjusted < 0.05 for gain, adjusted in own)
    return (
        f"{mode}: {100 * mean.value:+.1f} points on average over targets, 95 % interval {100 * mean.low:+.1f} to "
        f"{100 * mean.high:+.1f}, better on {better} and worse on {worse} of {len(own)} targets, {sure} of the gains "
        "beyond chance (Holm)"
    )


def _verdict(gains: Mapping[tuple[str, str], Gain]) -> str:
    """Whether the interval of the mean gain lies above zero in both modes."""
    return verdict(above(_mean_gain(gains, mode), margin=NO_EFFECT_SHARE) for mode in MODES)
