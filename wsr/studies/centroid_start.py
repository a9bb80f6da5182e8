"""Is the centroid of a region a better place to start fine-tuning from than the pretrained model?

The centroid for a target is the average of members that never saw the target: ``Region.without_dataset`` enforces it.
"""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float, Shaped

from wsr.data.dataset import Dataset
from wsr.data.metrics import score
from wsr.engine.probe import linear_probe
from wsr.models.features import all_features
from wsr.region.region import Region
from wsr.report.document import Cell, Figure, Section, Table
from wsr.report.tables import INTERVAL, interval_cell
from wsr.runtime.progress import progress
from wsr.statistics.difference import Difference, holm, mean_difference
from wsr.statistics.interval import Interval, mean_interval
from wsr.store.row import result_row
from wsr.studies.harness.context import Context
from wsr.studies.harness.verdict import NO_EFFECT_SHARE, above, power_told, verdict
from wsr.studies.harness.work import ShortTrainings
from wsr.training import Job, Recipe, finetune, predict
from wsr.types import Params

STARTS = ("pretrained", "centroid")
MODES = ("bitfit", "head")
CAVEAT = (
    "The row of the centroid is the same, value for value, in the paper's tables with 1,000 examples and with all "
    "data, so +10.66 may compare a centroid trained on all data with a pretrained model trained on few."
)
Gain = tuple[Difference, float]
"""What the centroid adds on a target, and its p-value adjusted for the number of targets."""


@dataclass(frozen=True)
class FewShot:
    """How the starts are compared."""

    examples: int = 48
    """Number of examples, drawn by the seed from a target's fine-tuning split; 0: all."""
    seeds: int = 3
    bitfit: Recipe = field(
        default_factory=lambda: Recipe(
            mode="bitfit", learning_rate=3e-3, batch_size=16, epochs=5, warmup=0.006, dropout=False
        )
    )
    least_steps: int = 40
    """BitFit passes over the examples until it has made so many steps, because starts compare only after training."""
    inverse_l2: float | None = None
    """Inverse of the L2 penalty (C) of the probe that trains the head alone; None: chosen by cross-validation."""

    def job(self, target: Dataset, seed: int) -> Job:
        """Returns the BitFit training on a target, the same from every start."""
        asked = Job(target, seed, self.bitfit, self.examples or None)
        epochs = self.least_steps * self.bitfit.batch_size / len(asked.split)
        return replace(asked, recipe=replace(self.bitfit, epochs=max(self.bitfit.epochs, epochs)))

    def trainings(self, targets: Sequence[str], drawn_from: int) -> ShortTrainings:
        """Returns what it would train, for a dry run.

        Args:
          targets: the targets.
          drawn_from: largest number of texts from which the examples are drawn; 0: all.
        """
        least = self.least_steps * self.bitfit.batch_size
        return ShortTrainings(tuple(targets), self.seeds, self.examples, drawn_from, self.bitfit.epochs, least)


@dataclass(frozen=True, eq=False)
class _Scored:
    """What training from one start came to on a target, for each seed."""

    scores: list[float]
    right: Float[np.ndarray, "seeds texts"]


class _Start:
    """An encoder to start from: the pretrained model, or the centroid of some members."""

    def __init__(self, region: Region):
        self.region = region
        self.identity = (region.base_sha256, *(member.content_sha256 for member in region.members))

    @cached_property
    def params(self) -> Params:
        return self.region.params(self.region.centroid()) if len(self.region) else self.region.base

    def test_features(self, target: Dataset) -> np.ndarray:
        """Features of the target's test split, computed once."""
        if target.name not in self._tested:
            self._tested[target.name] = all_features(self.region.model, self.params, target.splits["test"])
        return self._tested[target.name]

    @cached_property
    def _tested(self) -> dict[str, np.ndarray]:
        return {}


def centroid_start(context: Context, plan: FewShot) -> tuple[list[dict], Section]:
    """Trains on examples of each target from both starts, and compares the scores on its test split."""
    found: dict[tuple[str, str, str], _Scored] = {}
    used: dict[str, tuple[str, ...]] = {}
    with progress("centroid as a start", len(context.targets) * 2 * 2 * plan.seeds, "runs") as counter:
        for target in context.targets:
            dataset, others = context.datasets[target], context.region.without_dataset(target)
            used[target] = others.names
            starts = {"pretrained": _Start(others.emptied()), "centroid": _Start(others)}
            for (name, start), mode in itertools.product(starts.items(), MODES):
                each = []
                for seed in range(plan.seeds):
                    each.append(_kept_predictions(context, start, dataset, mode, seed, plan))
                    counter.advance(note=f"{target}, {mode}")
                labels = dataset.splits["test"].labels
                scores = [score(dataset.metric, labels, own) for own in each]
                found[target, name, mode] = _Scored(scores, np.stack([_right(dataset, own) for own in each]))
    gains = _gains(context, found)
    return _rows(context, plan, found, gains, used), _section(context, plan, found, gains)


def _kept_predictions(
    context: Context, start: _Start, target: Dataset, mode: str, seed: int, plan: FewShot
) -> Shaped[np.ndarray, " texts"]:
    """Trains, or takes what an earlier run predicted."""
    identity = ("predictions", start.identity, mode, seed, plan, target.content_hash, context.region.model.config)
    key = hashlib.sha256(repr(identity).encode()).hexdigest()
    if key not in context.results:
        run = {"head": _head_only, "bitfit": _bitfit}[mode]
        context.results.put(key, value=run(context, start, target, seed, plan))
    return context.results.get(key)["value"]


def _bitfit(context: Context, start: _Start, target: Dataset, seed: int, plan: FewShot) -> Shaped[np.ndarray, " texts"]:
    # The same seed, hence the same examples and initial head, from both starts: the comparison is paired.
    model = context.region.model
    (member,) = finetune(model, start.params, [plan.job(target, seed)], chunk=1)
    features = all_features(model, member.params, target.splits["test"])
    return predict(features, member.head, regression=target.regression)


def _head_only(
    context: Context, start: _Start, target: Dataset, seed: int, plan: FewShot
) -> Shaped[np.ndarray, " texts"]:
    """The frozen encoder is read once; the head is a convex problem, solved to its optimum."""
    model, test = context.region.model, target.splits["test"]
    examples = plan.job(target, seed).split
    fitted = linear_probe(
        all_features(model, start.params, examples)[None],
        examples.labels,
        start.test_features(target)[None],
        test.labels,
        classes=target.classes,
        inverse_l2=plan.inverse_l2,
    )
    return np.asarray(fitted.predictions)[0]


def _right(target: Dataset, predictions: Shaped[np.ndarray, " texts"]) -> Float[np.ndarray, " texts"]:
    """What each test text adds to the share of right answers, or to Pearson's correlation."""
    labels = target.splits["test"].labels
    if not target.regression:
        return (predictions == labels).astype(np.float64)
    spread = labels.std() * predictions.std()
    return (labels - labels.mean()) * (predictions - predictions.mean()) / (spread if spread > 0 else 1.0)


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
            f"{told.capitalize()}, {plan.seeds} seeds, the same examples and initial heads from both starts. The "
            "centroid is the average of the members that never saw the target. bitfit trains the bias terms and the "
            f"head, for at least {plan.least_steps} steps; head trains the head alone, to the optimum of a linear "
            "probe.",
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
