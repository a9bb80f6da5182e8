"""All ways to merge, side by side: members of several datasets become one model, scored on each member's dataset."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from wsr.engine.settings import Settings
from wsr.errors import WsrError
from wsr.merging.method import Given
from wsr.region.region import Region
from wsr.report.document import Figure, Section, Table
from wsr.report.tables import INTERVAL, interval_cell
from wsr.runtime.progress import progress
from wsr.statistics.difference import holm
from wsr.store.row import result_row
from wsr.studies.harness.context import Context
from wsr.studies.harness.verdict import NO_EFFECT_SHARE, above, any_of, power_told, verdict
from wsr.studies.merged_models import Effort, ModelScore, models_of, score_model, under_heads
from wsr.types import Head

OWN_HEAD, PROBE, GAIN = "accuracy, own head", "accuracy, probe", "minus the centroid, own head"
MEAN = "mean"
CENTROID = "uniform"
LEFT_OUT = {
    "weighted": "with equal weights it is uniform",
    "linear": "the same",
    "slerp": "merges two; multislerp is its form for more",
    "nuslerp": "merges two",
    "nearswap": "merges one member into the base",
    "arcee_fusion": "the same",
    "passthrough": "copies one member",
}

Found = dict[tuple[str, str], list[ModelScore]]
"""By group and dataset: one entry a population."""


def merging(
    context: Context,
    populations: Sequence[Region],
    heads: Mapping[str, Head],
    names: Sequence[str],
    effort: Effort,
) -> tuple[list[dict], Section]:
    """Merges each population by each method and scores what comes out.

    Args:
      context: datasets, protocol, and where finished points are kept.
      populations: of one member a dataset each.
      heads: the members' own, by name.
      names: the methods.
      effort: how many options are tried.
    """
    populations = [region for region in populations if len(region) > 1]
    if not populations:
        raise WsrError("merging: no population has two members that learned their dataset; train longer")
    found: Found = {}
    chosen: dict[str, list[dict[str, Any]]] = {}
    total = sum((1 + len(region) + len(names)) * len(region) for region in populations)
    with progress("merging", total, "scores") as counter:
        for region in populations:
            by_dataset = {member.dataset: heads[member.name] for member in region.members}
            given = Given(
                own={name: context.datasets[name] for name in region.datasets},
                heads={name: heads[name] for name in region.names},
                protocol=context.protocol,
                settings=Settings(results=context.results),
            )
            outcomes = partial(under_heads, region, by_dataset, context.datasets, context.results)
            for model in models_of(region, names, effort, given, outcomes, chosen):
                for dataset, scored in score_model(context, region, outcomes, model):
                    found.setdefault((model.name, dataset), []).append(scored)
                    counter.advance(note=f"{model.name} on {dataset}")
    groups = list(dict.fromkeys(group for group, _ in found))
    datasets = list(dict.fromkeys(dataset for _, dataset in found))
    gains = {group: _gain(found, group, datasets) for group in groups if group in names and group != CENTROID}
    rows = [*_rows(found, groups, datasets, populations, chosen), *_gain_rows(gains, populations, chosen)]
    return rows, _section(context, found, groups, datasets, gains, chosen)


def points_of(names: Sequence[str], populations: int, members: int) -> int:
    """How many points are evaluated exactly: every group on every dataset, and what the greedy soup looks at."""
    looked_at = (2 * members - 1) * members if "greedy" in names else 0
    return populations * ((1 + members + len(names)) * members + looked_at)


@dataclass(frozen=True)
class _Gain:
    """The mean over datasets of a method's accuracy minus the centroid's, with its interval over texts."""

    value: float
    low: float
    high: float
    p_value: float


def _gain(found: Found, group: str, datasets: Sequence[str]) -> _Gain:
    """Differences are taken text by text; the texts of different datasets are independent."""
    from scipy.stats import norm

    means, variances = [], []
    for dataset in datasets:
        pairs = zip(found[group, dataset], found[CENTROID, dataset], strict=True)
        differences = np.mean([own.own_head - centroid.own_head for own, centroid in pairs], axis=0)
        means.append(differences.mean())
        variances.append(differences.var(ddof=1) / len(differences))
    value, error = float(np.mean(means)), float(np.sqrt(np.sum(variances)) / len(datasets))
    half = float(norm.ppf(0.975)) * error
    p_value = float(2 * norm.sf(abs(value) / error)) if error > 0 else float(value == 0)
    return _Gain(value, value - half, value + half, p_value)


def _adjusted(gains: Mapping[str, _Gain]) -> dict[str, float]:
    """p-values by Holm over the methods."""
    if not gains:
        return {}
    p_values = holm([gain.p_value for gain in gains.values()])
    return dict(zip(gains, p_values.tolist(), strict=True))


def _interval(scores: Sequence[Float[np.ndarray, " texts"]]) -> tuple[float, float, float]:
    """A mean and its 95 % interval over texts."""
    from scipy.stats import norm

    of_texts = np.mean(scores, axis=0)
    half = float(norm.ppf(0.975) * of_texts.std(ddof=1) / np.sqrt(len(of_texts)))
    return float(of_texts.mean()), float(of_texts.mean()) - half, float(of_texts.mean()) + half


def _rows(
    found: Found,
    groups: Sequence[str],
    datasets: Sequence[str],
    populations: Sequence[Region],
    chosen: Mapping[str, list[dict[str, Any]]],
) -> list[dict]:
    rows = []
    for group in groups:
        for metric, part in ((OWN_HEAD, "own_head"), (PROBE, "probe")):
            values = []
            for dataset in datasets:
                scores = [getattr(own, part) for own in found[group, dataset]]
                value, low, high = _interval(scores)
                values.append(value)
                row = _row(group, dataset, metric, value, len(scores[0]), populations, chosen)
                rows.append(row | {"low": low, "high": high})
            rows.append(_row(group, MEAN, metric, float(np.mean(values)), 0, populations, chosen))
        losses = [float(np.mean([own.loss for own in found[group, dataset]])) for dataset in datasets]
        for dataset, loss in zip([*datasets, MEAN], [*losses, float(np.mean(losses))], strict=True):
            rows.append(_row(group, dataset, "generalised_loss", loss, 0, populations, chosen))
    return rows


def _gain_rows(
    gains: Mapping[str, _Gain], populations: Sequence[Region], chosen: Mapping[str, list[dict[str, Any]]]
) -> list[dict]:
    adjusted = _adjusted(gains)
    return [
        _row(group, MEAN, GAIN, gain.value, 0, populations, chosen)
        | {"low": gain.low, "high": gain.high, "p_holm": adjusted[group]}
        for group, gain in gains.items()
    ]


def _row(
    group: str,
    dataset: str,
    metric: str,
    value: float,
    texts: int,
    populations: Sequence[Region],
    chosen: Mapping[str, list[dict[str, Any]]],
) -> dict:
    return result_row(
        group,
        dataset,
        metric,
        value,
        texts=texts,
        how=f"exact; options: {options_told(chosen[group])}" if group in chosen else "exact",
        members=[name for region in populations for name in region.names],
        study="merging",
    )


def options_told(options: Sequence[Mapping[str, Any]]) -> str:
    """Returns the options of each population in words."""
    return " | ".join(
        ", ".join(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in own.items())
        or "defaults"
        for own in options
    )


def _section(
    context: Context,
    found: Found,
    groups: Sequence[str],
    datasets: Sequence[str],
    gains: Mapping[str, _Gain],
    chosen: Mapping[str, list[dict[str, Any]]],
) -> Section:
    adjusted = _adjusted(gains)
    means = {
        (group, part): float(np.mean([_interval([getattr(own, part) for own in found[group, d]])[0] for d in datasets]))
        for group in groups
        for part in ("own_head", "probe")
    }
    better = [group for group, gain in gains.items() if gain.value > 0]
    sure = [group for group in better if adjusted[group] < 0.05]
    best = max(gains, key=lambda group: gains[group].value, default=CENTROID)
    measured = (
        f"the centroid has {100 * means[CENTROID, 'own_head']:.1f} % under the members' heads on average over "
        f"{len(datasets)} datasets; {len(better)} of {len(gains)} other methods have more, {len(sure)} of them beyond "
        f"chance (Holm)"
    )
    if best in gains:
        gain = gains[best]
        measured += f"; best: {best}, {100 * gain.value:+.1f} points, {100 * gain.low:+.1f} to {100 * gain.high:+.1f}"
    chart = [
        {
            "name": group,
            "series": [
                {"name": "under members' heads", "mean": means[group, "own_head"]},
                {"name": "linear probe", "mean": means[group, "probe"]},
            ],
        }
        for group in groups
    ]
    return Section(
        "Some merging beats the plain average",
        "Does any way to merge members of several datasets beat their plain average on the members' own tasks?",
        "Not in the paper, whose merged model is the centroid.",
        measured,
        verdict([any_of(above(gain, p=adjusted[group], margin=NO_EFFECT_SHARE) for group, gain in gains.items())]),
        text=(
            "Claim: some method is better than the centroid under the members' own heads, beyond chance. Options were "
            "chosen by the loss on validation splits. greedy, learned and learned_free make a model for each dataset, "
            "by its labels; the others make one model for all.",
            "Not compared: " + "; ".join(f"{name} ({why})" for name, why in LEFT_OUT.items()) + ".",
        ),
        figures=(
            Figure(
                "intervals",
                "Accuracy, mean over datasets",
                "One model or more.",
                {"rows": chart, "x_label": "accuracy"},
            ),
        ),
        tables=(
            Table(
                "Accuracy under the member's own head",
                ("model", *datasets, "mean", "mean by a probe"),
                tuple(
                    (
                        group,
                        *(_interval([own.own_head for own in found[group, dataset]])[0] for dataset in datasets),
                        means[group, "own_head"],
                        means[group, "probe"],
                    )
                    for group in groups
                ),
                "On the test split of each dataset.",
            ),
            Table(
                "Minus the centroid, mean over datasets",
                ("method", "difference", INTERVAL, "p, Holm", "options"),
                tuple(
                    (
                        group,
                        gain.value,
                        interval_cell(gain.low, gain.high),
                        adjusted[group],
                        options_told(chosen[group]),
                    )
                    for group, gain in gains.items()
                ),
                "Under the members' own heads; intervals over texts, the members being given.",
            ),
        ),
        command=context.command,
        headline=(
            f"{len(better)} of {len(gains)} ways to merge models are more accurate than their plain average "
            f"({100 * means[CENTROID, 'own_head']:.1f} %), {len(sure)} of them beyond chance"
            + (f"; the best, {best}, by {100 * gains[best].value:+.1f} points." if best in gains else ".")
        ),
        paper_short="not in the paper; it merges by average",
        measured_short=f"{len(sure)} of {len(gains)} methods, best {best}" if sure else f"0 of {len(gains)} methods",
        power=power_told(gains, "points", scale=100),
    )
