"""One population of members under every way to merge: what each model gets right, what was chosen, what it took.

A population's datasets are those that its members were fine-tuned on. A merge is one model for all of them. The best
member is chosen as the options of methods are, by the mean loss on the validation splits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from wsr.data.dataset import Dataset
from wsr.engine.evaluate import Protocol
from wsr.engine.settings import Settings
from wsr.errors import WsrError
from wsr.merging.method import Given
from wsr.region.region import Region
from wsr.runtime.progress import Counter
from wsr.store.results import Results
from wsr.studies.before_merging import features_of
from wsr.studies.merged_models import (
    Effort,
    candidates,
    merge_of,
    not_merged,
    texts_read,
    under_heads,
    validation_loss,
)
from wsr.types import Head

CENTROID = "uniform"
ByText = Float[np.ndarray, " texts"]


@dataclass(frozen=True, eq=False)
class Population:
    """Members to merge."""

    kind: str
    """What the members share, such as "one family"."""
    name: str
    """Tells it from others."""
    region: Region
    heads: Mapping[str, Head]
    """Head of each member, by the member's name."""

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the datasets on which its models are scored."""
        return tuple(dict.fromkeys(self.region.datasets))

    @property
    def heads_by_dataset(self) -> dict[str, dict[str, Head]]:
        """For each dataset, the heads of its members."""
        return {
            dataset: {own.name: self.heads[own.name] for own in self.region.members if own.dataset == dataset}
            for dataset in self.datasets
        }


@dataclass(frozen=True)
class Cost:
    """What it took to get a method's model."""

    options: int
    """Number of options tried."""
    texts: int
    """Number of texts that passed through an encoder, see ``merged_models.texts_read``."""


@dataclass(frozen=True, eq=False)
class Scored:
    """What came out of one population."""

    population: Population
    right: Mapping[str, Mapping[str, ByText]]
    """For each model and dataset, whether each test text is right: 1 or 0."""
    individual: Mapping[str, ByText]
    """For each dataset, the mean over its members, each under its own head."""
    best_member: str
    """Name in ``right`` of the member with the lowest mean validation loss."""
    chosen: Mapping[str, Mapping[str, Any]]
    """Options of each method."""
    costs: Mapping[str, Cost]
    missing: Mapping[str, str]
    """Why methods are missing."""
    features: Mapping[str, float]
    """What was known before a merge, see ``before_merging``."""

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that merged these members."""
        return tuple(self.chosen)

    def accuracy(
        self, group: str, texts: Mapping[str, Float[np.ndarray, "draws texts"]]
    ) -> Float[np.ndarray, " draws"]:
        """Returns the mean over datasets of a model's accuracy.

        Args:
          group: name of the model.
          texts: for each dataset, the weights of its test texts in each draw; they sum to 1.
        """
        return np.mean([texts[name] @ own for name, own in self.right[group].items()], axis=0)

    def normalised(
        self, group: str, texts: Mapping[str, Float[np.ndarray, "draws texts"]]
    ) -> Float[np.ndarray, " draws"]:
        """Returns the mean over datasets of a model's accuracy divided by that of the dataset's own members.

        Args:
          group: name of the model.
          texts: for each dataset, the weights of its test texts in each draw; they sum to 1.
        """
        shares = [
            (texts[name] @ own) / (texts[name] @ self.individual[name]) for name, own in self.right[group].items()
        ]
        return np.mean(shares, axis=0)


def refuse_numbers(datasets: Sequence[Dataset]) -> None:
    """Raises ``WsrError`` if the labels of a dataset are numbers.

    Args:
      datasets: the datasets.
    """
    wrong = [own.name for own in datasets if own.regression]
    if wrong:
        raise WsrError(f"{', '.join(wrong)}: the labels are numbers; the benchmark compares accuracies of classes")


def scored(
    population: Population,
    datasets: Mapping[str, Dataset],
    names: Sequence[str],
    effort: Effort,
    settings: Settings,
    protocol: Protocol,
    counter: Counter,
) -> Scored:
    """Merges a population by each method and scores the base, the members and the merges on the test splits.

    Args:
      population: the members.
      datasets: their datasets, by name.
      names: the methods.
      effort: how many options of each method are tried.
      settings: precision of the encoder, and finished points; those of an earlier run are read, not computed again.
      protocol: the probe of methods that choose by one.
      counter: counts the scored models.

    Raises:
      WsrError: if a dataset has numbers for labels, or no test text of it is right under its own members.
    """
    refuse_numbers([datasets[name] for name in population.datasets])
    region, heads = population.region, population.heads_by_dataset
    outcomes = partial(under_heads, region, heads, datasets, settings)
    given = Given(
        own={name: datasets[name] for name in population.datasets},
        heads=population.heads,
        protocol=protocol,
        settings=settings,
    )
    right: dict[str, dict[str, ByText]] = {}
    chosen: dict[str, dict[str, Any]] = {}
    missing: dict[str, str] = {}

    models = list(not_merged(region))
    members = models[1:]
    validation = [validation_loss(region, model, outcomes) for model in members]
    best = members[int(np.argmin(validation))]
    alone = region.where(lambda member: member.name == best.member)
    features = features_of(region, models, outcomes, settings.results or Results.in_memory())
    for model in models:
        right[model.name] = {name: outcomes(model, name, "test")["right"] for name in population.datasets}
        counter.advance(note=model.name)
    for name in names:
        try:
            chosen[name], model = merge_of(region, name, effort, given, outcomes, alone)
            right[name] = {dataset: outcomes(model, dataset, "test")["right"] for dataset in population.datasets}
        except WsrError as error:
            chosen.pop(name, None)
            missing[name] = str(error)
        counter.advance(note=name)
    individual = {
        name: np.mean([right[own.name][name] for own in members if own.member in heads[name]], axis=0)
        for name in population.datasets
    }
    unlearned = [name for name, own in individual.items() if not own.any()]
    if unlearned:
        raise WsrError(f"{population.name}: no test text of {', '.join(unlearned)} is right under its own members")
    sizes = {
        name: {split: len(texts) for split, texts in datasets[name].splits.items()} for name in population.datasets
    }
    costs = {
        name: Cost(len(candidates(name, len(region), effort)), texts_read(name, region.datasets, sizes, effort))
        for name in chosen
    }
    return Scored(population, right, individual, best.name, chosen, costs, missing, features)
