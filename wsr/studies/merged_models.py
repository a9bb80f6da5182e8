"""What a population becomes under each way to merge, and how each model is scored on the members' own datasets.

Options are chosen by the loss on the validation splits of the members' datasets; the test splits score. All methods
with options to choose try the same number of them. The caller says how a model is scored (``Outcomes``): under the
heads of its members, as the literature scores merges, or by the log-likelihoods of answers. Finished scores are kept
with the finished points.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import product
from math import isqrt
from typing import Any, TypeAlias

import jax
import numpy as np

from wsr.data.dataset import Dataset
from wsr.engine.settings import Settings
from wsr.errors import WsrError
from wsr.geometry.linear_head import logits, losses
from wsr.merging.method import Given, find, made, options_of
from wsr.merging.run import merge, refuse_missing
from wsr.models.features import all_features
from wsr.models.precision import computing_in, meaning
from wsr.region.region import Region
from wsr.store.results import Results
from wsr.types import Head, Params

TOGETHER = 4096
"""Texts or images that are packed together: the packed batches are a copy in memory."""
CHOOSE = ("greedy", "learned", "learned_free")
"""Methods that choose a point on the probe and validation splits of datasets."""
ON_ONE = ("greedy", "learned_free")
"""The methods among ``CHOOSE`` that need a single dataset to choose on."""
UNTUNED = {"core_space": ("density",), "passthrough": ("scale",)}
"""Options that are not tried: that of Core space needs another method within, that of passthrough scales the base."""


@dataclass(frozen=True)
class Effort:
    """How much is tried."""

    budget: int = 4
    """Number of options that each method with any to choose tries."""
    densities: tuple[float, ...] = (0.1, 0.5)
    """Lowest and highest share of the entries that sparse methods keep."""
    scales: tuple[float, ...] = (1.0, 3.0)
    """Lowest and highest scale of the merged task vector, as a multiple of an average."""
    steps: int = 10
    """Number of gradient steps of AdaMerging."""
    learned_points: int = 30
    """Number of points that learned coefficients evaluate besides the members."""
    learned_steps: int = 4
    """Number of gradient steps of free learned coefficients."""
    texts: int = 64
    """Number of texts that Fisher, RegMean and AdaMerging read from each dataset."""

    def __post_init__(self) -> None:
        """Raises ``WsrError`` if nothing can be tried."""
        if self.budget < 1:
            raise WsrError(f"budget = {self.budget}: expected at least 1 option")
        for what, ends in (("densities", self.densities), ("scales", self.scales)):
            if not ends or len(ends) > 2 or min(ends) <= 0 or ends != tuple(sorted(ends)):
                raise WsrError(f"{what} = {ends}: expected the lowest and the highest number, both above 0")


@dataclass(frozen=True, eq=False)
class Model:
    """A model to score."""

    name: str
    key: str
    """Names it by all that determines it."""
    load: Callable[[], Params]
    member: str | None = None
    """Name of the member that it is; None: it is none of them."""


Options: TypeAlias = tuple[tuple[str, Any], ...]
"""Options of a method and their values."""
Outcomes = Callable[[Model, str, str], Mapping[str, np.ndarray]]
"""Scores a model on a split of a dataset: by text, ``own_losses`` in nats, and ``right``, 1 or 0."""


def not_merged(region: Region) -> Iterator[Model]:
    """Yields the base and the members."""
    yield Model("pretrained", region.base_sha256, lambda: region.base)
    for member in region.members:
        alone = region.datasets.count(member.dataset) == 1
        name = f"member of {member.dataset}" if alone else f"member {member.name}"
        yield Model(name, member.content_sha256, member.load, member.name)


def merge_of(
    region: Region, name: str, effort: Effort, given: Given, outcomes: Outcomes, alone: Region | None = None
) -> tuple[dict[str, Any], Model]:
    """Returns the options of a method with the lowest validation loss, and what it makes of the members.

    Args:
      region: the members.
      name: the method.
      effort: how many options are tried.
      given: the members' own datasets and heads; methods of ``CHOOSE`` choose on all of these datasets together.
      outcomes: scores a model on validation splits.
      alone: the member that methods of one member merge; None: they refuse several.

    Raises:
      WsrError: if the method refuses these members.
    """
    if name in CHOOSE:
        given = replace(given, dataset=[given.own[dataset] for dataset in dict.fromkeys(region.datasets)])
    if name == "learned" and given.protocol is not None:  # it searches under one probe, fitted on all probe texts
        given = replace(given, protocol=replace(given.protocol, draws=1))
    members = alone if alone is not None and of_one(name) else region
    return _best(region, members, name, candidates(name, len(members), effort), given, outcomes)


def of_one(name: str) -> bool:
    """Returns whether a method merges a single member into the base.

    Args:
      name: the method.
    """
    return find(name).members == (1, 1)


def _best(
    region: Region, members: Region, name: str, tried: Sequence[dict[str, Any]], given: Given, outcomes: Outcomes
) -> tuple[dict[str, Any], Model]:
    """The options with the lowest validation loss, and their model; only the last merge stays in memory besides."""
    merged = _kept_unscaled(members, name, given)
    options, model, lowest = tried[0], _merged(members, name, tried[0], given, merged), np.inf
    if len(tried) == 1:
        return options, model
    for own in tried:
        candidate = _merged(members, name, own, given, merged)
        loss = validation_loss(region, candidate, outcomes)
        if loss < lowest:
            options, model, lowest = own, candidate, loss
    return options, model


def _merged(
    region: Region, name: str, options: Mapping[str, Any], given: Given, merged: Callable[[Options], Params]
) -> Model:
    method = made(name, options)
    method.refuse_members(region.names)
    refuse_missing(method, given)
    about = [member.content_sha256 for member in region.members], name, sorted(options.items())
    texts = [given.own[name].content_hash for name in region.datasets] if method.needs else []
    key = hashlib.sha256(repr(("merge", about, texts)).encode()).hexdigest()
    return Model(name, key, cache(lambda: merged(tuple(options.items()))))


def _kept_unscaled(region: Region, name: str, given: Given) -> Callable[[Options], Params]:
    """Returns a function that merges by a method with given options.

    ``scale`` multiplies what a method adds to the base, so options that differ in it alone share one merge.
    """

    @lru_cache(maxsize=1)
    def merged(options: Options) -> Params:
        return merge(region, made(name, dict(options)), given)

    def scaled(options: Options) -> Params:
        scale = dict(options).get("scale")
        if scale is None:
            return merged(options)
        unscaled = merged(tuple((own, 1.0 if own == "scale" else value) for own, value in options))
        return jax.tree.map(lambda base, own: base + np.float32(scale) * (own - base), region.base, unscaled)

    return scaled


def validation_loss(region: Region, model: Model, outcomes: Outcomes) -> float:
    """Returns the mean over datasets of a model's loss on their validation splits.

    Args:
      region: the members.
      model: the model.
      outcomes: scores it.
    """
    names = dict.fromkeys(region.datasets)
    return float(np.mean([outcomes(model, name, "validation")["own_losses"].mean() for name in names]))


def under_heads(
    region: Region,
    heads: Mapping[str, Mapping[str, Head]],
    datasets: Mapping[str, Dataset],
    settings: Settings,
    model: Model,
    name: str,
    split: str,
) -> Mapping[str, np.ndarray]:
    """Returns the loss of each text (``own_losses``) and whether it is right (``right``) under the heads of members.

    A member has its own head on its own dataset. Any other model has the mean of the logits under the heads of the
    dataset's members, which is the average of linear heads.

    Args:
      region: the population; its model gives the features that the heads read.
      heads: for each dataset, the heads of its members by their names.
      datasets: the datasets by name.
      settings: precision of the encoder, and finished points; those of an earlier run are read, not computed again.
      model: the model to score.
      name: the dataset.
      split: its split.
    """
    dataset, of_members = datasets[name], heads[name]
    own = of_members.get(model.member or "")
    used = list(of_members.values()) if own is None else [own]
    parts_of_heads = (np.asarray(head[part]).tobytes() for head in used for part in sorted(head))
    digest = hashlib.sha256(b"".join(parts_of_heads)).hexdigest()
    platform, results = jax.default_backend(), settings.results or Results.in_memory()
    computed = [own for own in [meaning(settings.precision, platform)] if own]
    about = ("own head", model.key, dataset.content_hash, split, digest, *computed)
    key = hashlib.sha256(repr(about).encode()).hexdigest()
    if key not in results:
        texts, params = dataset.splits[split], model.load()
        parts = [texts.take(np.arange(at, min(at + TOGETHER, len(texts)))) for at in range(0, len(texts), TOGETHER)]
        encoder = computing_in(region.model, settings.precision, platform)
        features = [all_features(encoder, params, part) for part in parts]
        outputs = np.mean([np.concatenate([logits(own, head) for own in features]) for head in used], axis=0)
        right = outputs.argmax(axis=1) == texts.labels
        found = np.asarray(losses(outputs, texts.labels), np.float64)
        results.put(key, own_losses=found, right=right.astype(np.float64))
    return results.get(key)


def candidates(name: str, members: int, effort: Effort) -> list[dict[str, Any]]:
    """Returns the options of a method that are tried; one where there is nothing to choose.

    A method with one option to choose tries ``budget`` values of it. A method with a density and a scale tries as many
    pairs, on a grid as square as the number allows.

    Args:
      name: the method.
      members: number of members.
      effort: how many options are tried, and between which values.
    """
    known = options_of(find(name))
    if name == "adamerging":
        both = [{"texts": effort.texts, "steps": effort.steps, "by": by} for by in ("task", "layer")]
        return both[: effort.budget]
    fixed: dict[str, Any] = {}
    if name in ("fisher", "regmean", "regmean_plus_plus"):
        fixed = {"texts": effort.texts}
    if name == "learned":
        fixed = {"points": effort.learned_points}
    if name == "learned_free":
        fixed = {"steps": effort.learned_steps}
    ends = {"density": effort.densities, "scale": effort.scales}
    tuned = [own for own in ends if own in known and own not in UNTUNED.get(name, ())]
    apart = [own for own in tuned if ends[own][0] < ends[own][-1]]
    few = max(own for own in range(1, isqrt(effort.budget) + 1) if effort.budget % own == 0)
    numbers = (few, effort.budget // few) if len(apart) == 2 else (effort.budget,)
    values = {own: [ends[own][0]] for own in tuned}
    values |= {own: spread(ends[own], number) for own, number in zip(apart, numbers, strict=False)}
    if "scale" in tuned and known["scale"].default != 1.0:
        values["scale"] = [value / members for value in values["scale"]]
    found = [fixed | dict(zip(tuned, own, strict=True)) for own in product(*(values[own] for own in tuned))]
    if {
        "density",
        "epsilon",
    } <= known.keys():  # the probabilities of keeping an entry, density -+ epsilon / 2, lie between 0 and 1
        for own in found:
            own["epsilon"] = min(known["epsilon"].default, own["density"], 1 - own["density"])
    return found


def spread(ends: Sequence[float], number: int) -> list[float]:
    """Returns numbers from the lowest to the highest, each the same multiple of the one before; one alone is the mean.

    Args:
      ends: the lowest and the highest.
      number: how many.
    """
    low, high = ends[0], ends[-1]
    if number == 1:
        return [float(np.sqrt(low * high))]
    return [*(float(value) for value in np.geomspace(low, high, number)[:-1]), high]


def texts_read(name: str, datasets: Sequence[str], sizes: Mapping[str, Mapping[str, int]], effort: Effort) -> int:
    """Returns how many texts pass through an encoder until a method's model is chosen, each counted once a pass.

    A pass for gradients counts as one. RegMean++ passes its texts once for each layer; that counts as one pass of the
    whole encoder.

    Args:
      name: the method.
      datasets: the dataset of each member.
      sizes: for each dataset, the number of texts in its splits.
      effort: how many options are tried.
    """
    distinct, members = dict.fromkeys(datasets), len(datasets)
    tried = len(candidates(name, members, effort))
    scorings = (tried if tried > 1 else 0) + (members if of_one(name) else 0)  # of options, and of members
    choosing = scorings * sum(sizes[own]["validation"] for own in distinct)
    if name in ("fisher", "regmean", "regmean_plus_plus"):
        return choosing + _first(datasets, sizes, "finetune", effort)
    if name == "adamerging":
        return choosing + tried * (effort.steps + 1) * _first(datasets, sizes, "validation", effort)
    each = sum(sizes[own]["probe"] + sizes[own]["validation"] for own in distinct)
    return choosing + (points_evaluated(name, members, effort) * each if name in CHOOSE else 0)


def points_evaluated(name: str, members: int, effort: Effort) -> int:
    """Returns how many points a method of ``CHOOSE`` evaluates on each dataset, at most.

    Args:
      name: the method.
      members: number of members.
      effort: how many options are tried.
    """
    return {
        "greedy": 2 * members - 1,
        "learned": members + effort.learned_points,
        "learned_free": effort.learned_steps + 1,
    }[name]


def _first(datasets: Sequence[str], sizes: Mapping[str, Mapping[str, int]], split: str, effort: Effort) -> int:
    return sum(min(sizes[own][split], effort.texts or sizes[own][split]) for own in datasets)


def options_told(options: Mapping[str, Any]) -> str:
    """Returns the options in words.

    Args:
      options: of a method, by name.
    """
    told = (f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in options.items())
    return ", ".join(told) or "defaults"
