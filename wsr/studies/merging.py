"""All ways to merge, side by side: members of several datasets become one model, scored on each member's dataset.

A merged model is scored twice: under the heads of its members, as merges are scored in the literature, and by a fresh
linear probe on its features, as everything else here. Options are chosen by the loss under the members' heads on their
validation splits; the test splits score.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float

from wsr.compare import holm
from wsr.data.dataset import Dataset
from wsr.evaluate import evaluate
from wsr.features import all_features
from wsr.merging.method import Given, Method, find, made, options_of
from wsr.merging.run import merge
from wsr.progress import Counter, progress
from wsr.region import Member, Region
from wsr.report.document import Figure, Section, Table
from wsr.sampling import corners
from wsr.studies.context import Context
from wsr.types import Head, Params

OWN_HEAD, PROBE, GAIN = "accuracy, own head", "accuracy, probe", "minus the centroid, own head"
MEAN = "mean"
CENTROID = "uniform"
CHOOSE = ("greedy", "learned", "learned_free")
"""Methods that choose for one dataset: each dataset has a model of its own."""
LEFT_OUT = {
    "weighted": "with equal weights it is uniform",
    "linear": "the same",
    "slerp": "merges two; multislerp is its form for more",
}


@dataclass(frozen=True)
class Effort:
    """How much is tried."""

    densities: tuple[float, ...]
    """Shares of entries that sparse methods keep."""
    scales: tuple[float, ...]
    """Of what is added to the base, as multiples of an average."""
    steps: int
    """Gradients of AdaMerging."""
    learned_steps: int
    """Gradients of learned coefficients."""
    texts: int
    """That Fisher, RegMean and AdaMerging see of each dataset."""


@dataclass(frozen=True, eq=False)
class _Model:
    """A model to score."""

    name: str
    key: str
    """Names it by all that determines it."""
    load: Callable[[], Params]
    only: str | None = None
    """The one dataset it is for; None: all."""


@dataclass(frozen=True, eq=False)
class _Scored:
    """What a model gets right, text by text, on one dataset."""

    own_head: Float[np.ndarray, " texts"]
    probe: Float[np.ndarray, " texts"]
    loss: float
    """Mean generalised loss."""


Found = dict[tuple[str, str], list[_Scored]]
"""By group and dataset: one entry a population."""


def candidates(name: str, members: int, effort: Effort) -> list[dict[str, Any]]:
    """The options that are tried of a method; one where there is nothing to choose."""
    known = options_of(find(name)).keys()
    average = 1.0 if known >= {"scale"} and options_of(find(name))["scale"][1] == 1.0 else 1 / members
    fixed: dict[str, Any] = {}
    if name in ("fisher", "regmean"):
        fixed = {"texts": effort.texts}
    if name == "adamerging":
        fixed = {"texts": effort.texts, "steps": effort.steps}
        return [{**fixed, "by": by} for by in ("task", "layer")]
    if name.startswith("learned"):
        fixed = {"steps": effort.learned_steps}
    tried = [fixed]
    if "density" in known:
        tried = [{**own, "density": density} for own in tried for density in effort.densities]
    if "scale" in known:
        tried = [{**own, "scale": average * scale} for own in tried for scale in effort.scales]
    return tried


def points_of(names: Sequence[str], populations: int, members: int) -> int:
    """How many points are evaluated exactly: every group on every dataset, and what the greedy soup looks at."""
    looked_at = (2 * members - 1) * members if "greedy" in names else 0
    return populations * ((1 + members + len(names)) * members + looked_at)


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
    found: Found = {}
    chosen: dict[str, list[dict[str, Any]]] = {}
    total = sum((1 + len(region) + len(names)) * len(region) for region in populations)
    with progress("merging", total, "scores") as counter:
        for region in populations:
            own = {member.dataset: heads[member.name] for member in region.members}
            for model in _models(context, region, own, names, effort, chosen):
                _score(context, region, own, model, found, counter)
    groups = list(dict.fromkeys(group for group, _ in found))
    datasets = list(dict.fromkeys(dataset for _, dataset in found))
    gains = {group: _gain(found, group, datasets) for group in groups if group in names and group != CENTROID}
    rows = [*_rows(found, groups, datasets, populations, chosen), *_gain_rows(gains, populations, chosen)]
    return rows, _section(context, found, groups, datasets, gains, chosen)


def _models(
    context: Context,
    region: Region,
    heads: Mapping[str, Head],
    names: Sequence[str],
    effort: Effort,
    chosen: dict[str, list[dict[str, Any]]],
) -> Iterator[_Model]:
    """The base, the members, and what each method makes of them."""
    yield _Model("pretrained", region.base_sha256, lambda: region.base)
    for member in region.members:
        yield _Model(f"member of {member.dataset}", member.content_sha256, member.load)
    for name in names:
        tried = candidates(name, len(region), effort)
        if name in CHOOSE:
            (options,) = tried
            for dataset in region.datasets:
                yield _merged(context, region, heads, name, options, dataset)
        else:
            models = [_merged(context, region, heads, name, options) for options in tried]
            losses = [_validation_loss(context, region, heads, model) for model in models] if len(models) > 1 else [0.0]
            best = int(np.argmin(losses))
            options = tried[best]
            yield models[best]
        chosen.setdefault(name, []).append(options)


def _merged(
    context: Context,
    region: Region,
    heads: Mapping[str, Head],
    name: str,
    options: Mapping[str, Any],
    dataset: str | None = None,
) -> _Model:
    method = made(name, options)
    own = {name: context.datasets[name] for name in region.datasets}
    given = Given(
        context.datasets[dataset] if dataset else None,
        own,
        {member.name: heads[member.dataset] for member in region.members},
        context.protocol,
        context.points,
    )
    about = [member.content_sha256 for member in region.members], name, sorted(options.items()), dataset
    texts = [own[name].content_hash for name in region.datasets] if method.needs else []
    key = hashlib.sha256(repr(("merge", about, texts)).encode()).hexdigest()
    return _Model(name, key, cache(lambda: _merge(region, method, given)), dataset)


def _merge(region: Region, method: Method, given: Given) -> Params:
    return merge(region, method, given)


def _score(
    context: Context, region: Region, heads: Mapping[str, Head], model: _Model, found: Found, counter: Counter
) -> None:
    """Scores a model on each dataset that it is for."""
    alone = Region(
        region.model,
        region.base,
        [Member(model.name, "none", "none", model.key, model.load)],
        base_sha256=region.base_sha256,
    )
    for name in [model.only] if model.only else region.datasets:
        dataset = context.datasets[name]
        labels = dataset.splits["test"].labels
        probed = evaluate(alone, corners(1), dataset, protocol=context.protocol, points=context.points)
        right = _under_head(context, region, model, dataset, "test", heads[name])["right"]
        scored = _Scored(right, (probed.predictions[0] == labels).astype(np.float64), float(probed.generalised_loss[0]))
        found.setdefault((model.name, name), []).append(scored)
        counter.advance(note=f"{model.name} on {name}")


def _validation_loss(context: Context, region: Region, heads: Mapping[str, Head], model: _Model) -> float:
    """Mean over datasets of the loss under the members' heads on their validation splits."""
    losses = [
        _under_head(context, region, model, context.datasets[name], "validation", heads[name])["own_losses"].mean()
        for name in region.datasets
    ]
    return float(np.mean(losses))


def _under_head(
    context: Context, region: Region, model: _Model, dataset: Dataset, split: str, head: Head
) -> Mapping[str, np.ndarray]:
    """Loss and rightness of each text under a member's head; from the finished points where an earlier run was here."""
    digest = hashlib.sha256(b"".join(np.asarray(head[part]).tobytes() for part in sorted(head))).hexdigest()
    about = ("own head", model.key, dataset.content_hash, split, digest)
    key = hashlib.sha256(repr(about).encode()).hexdigest()
    if key not in context.points:
        texts = dataset.splits[split]
        features = np.asarray(all_features(region.model, model.load(), texts), np.float64)
        logits = features @ np.asarray(head["kernel"], np.float64) + np.asarray(head["bias"], np.float64)
        shifted = logits - logits.max(axis=1, keepdims=True)
        losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(texts)), texts.labels]
        context.points.put(key, own_losses=losses, right=(logits.argmax(axis=1) == texts.labels).astype(np.float64))
    return context.points.get(key)


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
    adjusted = holm([gain.p_value for gain in gains.values()]) if gains else []
    return [
        _row(group, MEAN, GAIN, gain.value, 0, populations, chosen)
        | {"low": gain.low, "high": gain.high, "p_holm": float(p_holm)}
        for (group, gain), p_holm in zip(gains.items(), adjusted, strict=True)
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
    return {
        "study": "merging",
        "group": group,
        "members": [name for region in populations for name in region.names],
        "coefficients": [],
        "dataset": dataset,
        "metric": metric,
        "value": value,
        "n": texts,
        "how": f"exact; options: {_told(chosen[group])}" if group in chosen else "exact",
    }


def _told(options: Sequence[Mapping[str, Any]]) -> str:
    """The options of each population."""
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
    p_values = holm([gain.p_value for gain in gains.values()]) if gains else []
    adjusted = {group: float(p_value) for group, p_value in zip(gains, p_values, strict=True)}
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
        "Ways to merge",
        "Does any way to merge members of several datasets beat their plain average on the members' own tasks?",
        "Not in the paper, whose merged model is the centroid.",
        measured,
        "holds" if sure else "partly" if better else "does not hold",
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
                ("method", "difference", "95 % low", "95 % high", "p, Holm", "options"),
                tuple(
                    (group, gain.value, gain.low, gain.high, adjusted[group], _told(chosen[group]))
                    for group, gain in gains.items()
                ),
                "Under the members' own heads; intervals over texts, the members being given.",
            ),
        ),
        command=context.command,
    )
