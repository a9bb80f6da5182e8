"""Whether a recipe trains long enough to learn new data: one member is trained with it, and longer if need be."""

from dataclasses import dataclass, replace

import numpy as np

from wsr.data.dataset import Dataset
from wsr.errors import WsrError
from wsr.models.model import Model
from wsr.region.learned import better_than_chance
from wsr.runtime.progress import progress
from wsr.training.job import Job
from wsr.training.members import chance_of
from wsr.training.population import finetune, score_member
from wsr.training.recipe import Recipe
from wsr.types import Params

LONGER = (1, 3, 9)
"""The numbers by which the epochs are multiplied, one after another, until a member learns."""


@dataclass(frozen=True)
class CheckedRecipe:
    """A recipe with the score of the member that was trained with it."""

    recipe: Recipe
    """The recipe: the first that learned, or the one with the best validation score."""
    score: float
    """Score on the test split, in the dataset's metric."""
    chance: float
    """Score of always predicting the most frequent class."""
    texts: int
    """Number of test texts."""
    learned: bool
    """Whether the score on the validation texts is better than chance."""


def check_recipe(model: Model, start: Params, dataset: Dataset, recipe: Recipe, *, seed: int = 0) -> CheckedRecipe:
    """Trains a member from ``start`` with ``recipe``, and again for more epochs until it is better than chance.

    Args:
      model: the architecture.
      start: encoder parameters from which the member starts.
      dataset: the data to learn; its splits "finetune", "validation" and "test" are used.
      recipe: the recipe to try first.
      seed: seed of the member.

    Example:
      >>> import wsr
      >>> from wsr.engine.recipe_check import check_recipe
      >>> base = wsr.load("tiny")
      >>> data = wsr.load_dataset("made_up_a1", base.processor, max_length=48)
      >>> short = wsr.Recipe(learning_rate=0.01, epochs=0.1)
      >>> found = check_recipe(base.model, base.params, data, short)
      checking the recipe: 1/1 steps, ...
      >>> found.learned, found.recipe.epochs > 0.1
      (True, True)
    """
    for split in ("validation", "test"):
        if not len(dataset.splits[split]):
            raise WsrError(f"dataset {dataset.name}: no {split} texts, so no recipe can be checked on it")
    validation, chance = len(dataset.splits["validation"]), chance_of(dataset, "validation")
    tried: list[tuple[float, CheckedRecipe]] = []
    for factor in LONGER:
        longer = replace(recipe, epochs=recipe.epochs * factor)
        job = Job(dataset, seed, longer)
        with progress("checking the recipe", job.steps, "steps") as counter:
            (member,) = finetune(model, start, [job], chunk=1, counter=counter)
        # The number of epochs is chosen on the validation texts, so that the score on the test texts stays honest.
        chosen_by, score = (
            float("nan")
            if member.failed_step is not None
            else score_member(model, member.params, member.head, dataset, s)
            for s in ("validation", "test")
        )
        learned = better_than_chance(chosen_by, chance, validation, dataset.metric)
        found = CheckedRecipe(longer, score, chance_of(dataset), len(dataset.splits["test"]), learned)
        if learned:
            return found
        tried.append((chosen_by if np.isfinite(chosen_by) else -np.inf, found))
    return max(tried, key=lambda one: one[0])[1]
