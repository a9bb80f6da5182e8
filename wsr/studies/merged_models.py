"""What a population becomes under each way to merge, and how each model is scored on the members' own datasets.

A merged model is scored twice: under the heads of its members, as merges are scored in the literature, and by a fresh
linear probe on its features, as everything else here. Options are chosen by the loss under the members' heads on their
validation splits; the test splits score. Finished scores are kept with the finished points.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float

from wsr.data.dataset import Dataset
from wsr.engine.evaluate import evaluate
from wsr.engine.settings import Settings
from wsr.geometry.linear_head import logits, losses
from wsr.geometry.sampling import corners
from wsr.merging.method import Given, find, made, options_of
from wsr.merging.run import merge
from wsr.models.features import all_features
from wsr.region.region import Member, Region
from wsr.studies.harness.context import Context
from wsr.types import Head, Params

CHOOSE = ("greedy", "learned", "learned_free")
"""Methods that choose for one dataset: each dataset has a model of its own."""


@dataclass(frozen=True)
class Effort:
    """How much is tried."""

    densities: tuple[float, ...]
    """Shares of entries that sparse methods keep."""
    scales: tuple[float, ...]
    """Of what is added to the base, as multiples of an average."""
    steps: int
    """Gradients of AdaMerging."""
    learned_points: int
    """Points that learned coefficients evaluate besides the members."""
    learned_steps: int
    """Gradients of free learned coefficients."""
    texts: int
    """That Fisher, RegMean and AdaMerging see of each dataset."""


@dataclass(frozen=True, eq=False)
class Model:
    """A model to score."""

    name: str
    key: str
    """Names it by all that determines it."""
    load: Callable[[], Params]
    only: str | None = None
    """The one dataset it is for; None: all."""


@dataclass(frozen=True, eq=False)
class ModelScore:
    """What a model gets right, text by text, on one dataset."""

    own_head: Float[np.ndarray, " texts"]
    probe: Float[np.ndarray, " texts"]
    loss: float
    """Mean generalised loss."""


def models_of(
    context: Context,
    region: Region,
    heads: Mapping[str, Head],
    names: Sequence[str],
    effort: Effort,
    chosen: dict[str, list[dict[str, Any]]],
) -> Iterator[Model]:
    """Yields the base, the members, and what each method makes of them; notes the options in ``chosen``."""
    yield Model("pretrained", region.base_sha256, lambda: region.base)
    for member in region.members:
        yield Model(f"member of {member.dataset}", member.content_sha256, member.load)
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
) -> Model:
    method = made(name, options)
    own = {name: context.datasets[name] for name in region.datasets}
    given = Given(
        context.datasets[dataset] if dataset else None,
        own,
        {member.name: heads[member.dataset] for member in region.members},
        context.protocol,
        Settings(results=context.results),
    )
    about = [member.content_sha256 for member in region.members], name, sorted(options.items()), dataset
    texts = [own[name].content_hash for name in region.datasets] if method.needs else []
    key = hashlib.sha256(repr(("merge", about, texts)).encode()).hexdigest()
    return Model(name, key, cache(lambda: merge(region, method, given)), dataset)


def score_model(
    context: Context, region: Region, heads: Mapping[str, Head], model: Model
) -> Iterator[tuple[str, ModelScore]]:
    """Yields each dataset that the model is for, and its scores there."""
    alone = region.with_members([Member(model.name, "none", "none", model.key, model.load)])
    for name in [model.only] if model.only else region.datasets:
        dataset = context.datasets[name]
        labels = dataset.splits["test"].labels
        probed = evaluate(
            alone, corners(1), dataset, protocol=context.protocol, settings=Settings(results=context.results)
        )
        right = _under_head(context, region, model, dataset, "test", heads[name])["right"]
        by_probe = (probed.predictions[0] == labels).astype(np.float64)
        yield name, ModelScore(right, by_probe, float(probed.generalised_loss[0]))


def _validation_loss(context: Context, region: Region, heads: Mapping[str, Head], model: Model) -> float:
    """Mean over datasets of the loss under the members' heads on their validation splits."""
    losses = [
        _under_head(context, region, model, context.datasets[name], "validation", heads[name])["own_losses"].mean()
        for name in region.datasets
    ]
    return float(np.mean(losses))


def _under_head(
    context: Context, region: Region, model: Model, dataset: Dataset, split: str, head: Head
) -> Mapping[str, np.ndarray]:
    """Loss and rightness of each text under a member's head; from the finished points where an earlier run was here."""
    digest = hashlib.sha256(b"".join(np.asarray(head[part]).tobytes() for part in sorted(head))).hexdigest()
    about = ("own head", model.key, dataset.content_hash, split, digest)
    key = hashlib.sha256(repr(about).encode()).hexdigest()
    if key not in context.results:
        texts = dataset.splits[split]
        outputs = logits(all_features(region.model, model.load(), texts), head)
        right = np.asarray(outputs).argmax(axis=1) == texts.labels
        found = np.asarray(losses(outputs, texts.labels), np.float64)
        context.results.put(key, own_losses=found, right=right.astype(np.float64))
    return context.results.get(key)


def candidates(name: str, members: int, effort: Effort) -> list[dict[str, Any]]:
    """The options that are tried of a method; one where there is nothing to choose."""
    known = options_of(find(name)).keys()
    average = 1.0 if known >= {"scale"} and options_of(find(name))["scale"][1] == 1.0 else 1 / members
    fixed: dict[str, Any] = {}
    if name in ("fisher", "regmean", "regmean_plus_plus"):
        fixed = {"texts": effort.texts}
    if name == "adamerging":
        fixed = {"texts": effort.texts, "steps": effort.steps}
        return [{**fixed, "by": by} for by in ("task", "layer")]
    if name == "learned":
        fixed = {"points": effort.learned_points}
    if name == "learned_free":
        fixed = {"steps": effort.learned_steps}
    tried = [fixed]
    if "density" in known:
        tried = [{**own, "density": density} for own in tried for density in effort.densities]
    if "scale" in known:
        tried = [{**own, "scale": average * scale} for own in tried for scale in effort.scales]
    return tried
