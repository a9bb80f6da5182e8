"""What a population becomes under each way to merge, and how each model is scored on the members' own datasets.

Options are chosen by the loss on the validation splits of the members' datasets; the test splits score. All methods
with the same kinds of options try the same number of them. The caller says how a model is scored (``Outcomes``): under
the heads of its members, as the literature scores merges, or by the log-likelihoods of answers. The study of merges
also scores by a fresh linear probe, as everything else here. Finished scores are kept with the finished points.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
from wsr.store.results import Results
from wsr.studies.harness.context import Context
from wsr.types import Head, Params

TOGETHER = 4096
"""Texts or images that are packed together: the packed batches are a copy in memory."""
CHOOSE = ("greedy", "learned", "learned_free")
"""Methods that choose for one dataset: each dataset has a model of its own."""


@dataclass(frozen=True)
class Effort:
    """How much is tried."""

    densities: tuple[float, ...]
    """Shares of entries that sparse methods keep."""
    scales: tuple[float, ...]
    """Scales of the merged task vector, as multiples of an average."""
    steps: int
    """Number of gradient steps of AdaMerging."""
    learned_points: int
    """Number of points that learned coefficients evaluate besides the members."""
    learned_steps: int
    """Number of gradient steps of free learned coefficients."""
    texts: int
    """Number of texts that Fisher, RegMean and AdaMerging read from each dataset."""


@dataclass(frozen=True, eq=False)
class Model:
    """A model to score."""

    name: str
    key: str
    """Names it by all that determines it."""
    load: Callable[[], Params]
    only: str | None = None
    """The one dataset it is for; None: all."""


Outcomes = Callable[[Model, str, str], Mapping[str, np.ndarray]]
"""Scores a model on a split of a dataset: by text, ``own_losses`` in nats, and ``right``, 1 or 0."""


@dataclass(frozen=True, eq=False)
class ModelScore:
    """What a model gets right, text by text, on one dataset."""

    own_head: Float[np.ndarray, " texts"]
    probe: Float[np.ndarray, " texts"]
    loss: float
    """Mean generalised loss."""


def models_of(
    region: Region,
    names: Sequence[str],
    effort: Effort,
    given: Given,
    outcomes: Outcomes,
    chosen: dict[str, list[dict[str, Any]]],
) -> Iterator[Model]:
    """Yields the base, the members, and what each method makes of them; notes the options in ``chosen``."""
    yield from not_merged(region)
    for name in names:
        for number, (options, model) in enumerate(merges_of(region, name, effort, given, outcomes)):
            if number == 0:  # models for single datasets have the same options
                chosen.setdefault(name, []).append(options)
            yield model


def not_merged(region: Region) -> Iterator[Model]:
    """Yields the base and the members."""
    yield Model("pretrained", region.base_sha256, lambda: region.base)
    for member in region.members:
        yield Model(f"member of {member.dataset}", member.content_sha256, member.load)


def merges_of(
    region: Region, name: str, effort: Effort, given: Given, outcomes: Outcomes
) -> Iterator[tuple[dict[str, Any], Model]]:
    """Yields what a method makes of the members, with its options: one model, or one for each dataset.

    Args:
      region: the members, one of each dataset.
      name: the method.
      effort: how many options are tried.
      given: the members' own datasets and heads; methods of ``CHOOSE`` choose on one of these datasets.
      outcomes: scores a model on validation splits.
    """
    tried = candidates(name, len(region), effort)
    if name in CHOOSE:
        (options,) = tried
        for dataset in region.datasets:
            on_one = replace(given, dataset=given.own[dataset])
            yield options, replace(_merged(region, name, options, on_one), only=dataset)
    else:
        yield _best(region, name, tried, given, outcomes)


def _best(
    region: Region, name: str, tried: Sequence[dict[str, Any]], given: Given, outcomes: Outcomes
) -> tuple[dict[str, Any], Model]:
    """The options with the lowest validation loss, and their model; no other model stays in memory."""
    options, model, lowest = tried[0], _merged(region, name, tried[0], given), np.inf
    if len(tried) == 1:
        return options, model
    for own in tried:
        candidate = _merged(region, name, own, given)
        loss = _validation_loss(region, candidate, outcomes)
        if loss < lowest:
            options, model, lowest = own, candidate, loss
    return options, model


def _merged(region: Region, name: str, options: Mapping[str, Any], given: Given) -> Model:
    method = made(name, options)
    dataset = given.dataset.name if given.dataset else None
    about = [member.content_sha256 for member in region.members], name, sorted(options.items()), dataset
    texts = [given.own[name].content_hash for name in region.datasets] if method.needs else []
    key = hashlib.sha256(repr(("merge", about, texts)).encode()).hexdigest()
    return Model(name, key, cache(lambda: merge(region, method, given)))


def score_model(context: Context, region: Region, outcomes: Outcomes, model: Model) -> Iterator[tuple[str, ModelScore]]:
    """Yields each dataset that the model is for, and its scores there."""
    alone = region.with_members([Member(model.name, "none", "none", model.key, model.load)])
    for name in [model.only] if model.only else region.datasets:
        dataset = context.datasets[name]
        labels = dataset.splits["test"].labels
        probed = evaluate(
            alone, corners(1), dataset, protocol=context.protocol, settings=Settings(results=context.results)
        )
        by_probe = (probed.predictions[0] == labels).astype(np.float64)
        yield name, ModelScore(outcomes(model, name, "test")["right"], by_probe, float(probed.generalised_loss[0]))


def _validation_loss(region: Region, model: Model, outcomes: Outcomes) -> float:
    """Mean over datasets of the loss on their validation splits."""
    return float(np.mean([outcomes(model, name, "validation")["own_losses"].mean() for name in region.datasets]))


def under_heads(
    region: Region,
    heads: Mapping[str, Head],
    datasets: Mapping[str, Dataset],
    results: Results,
    model: Model,
    name: str,
    split: str,
) -> Mapping[str, np.ndarray]:
    """Returns the loss of each text (``own_losses``) and whether it is right (``right``) under the head of a member.

    Args:
      region: the population; its model gives the features that the heads read.
      heads: the head of each dataset.
      datasets: the datasets by name.
      results: finished points; those of an earlier run are read, not computed again.
      model: the model to score.
      name: the dataset.
      split: its split.
    """
    dataset, head = datasets[name], heads[name]
    digest = hashlib.sha256(b"".join(np.asarray(head[part]).tobytes() for part in sorted(head))).hexdigest()
    about = ("own head", model.key, dataset.content_hash, split, digest)
    key = hashlib.sha256(repr(about).encode()).hexdigest()
    if key not in results:
        texts, params = dataset.splits[split], model.load()
        parts = [texts.take(np.arange(at, min(at + TOGETHER, len(texts)))) for at in range(0, len(texts), TOGETHER)]
        outputs = np.concatenate([logits(all_features(region.model, params, part), head) for part in parts])
        right = outputs.argmax(axis=1) == texts.labels
        found = np.asarray(losses(outputs, texts.labels), np.float64)
        results.put(key, own_losses=found, right=right.astype(np.float64))
    return results.get(key)


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
