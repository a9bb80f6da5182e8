"""A population in, one model out."""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

from wsr.data.dataset import Dataset
from wsr.evaluate import Protocol, evaluate
from wsr.learned_coefficients import STEPS, Space, learn_coefficients
from wsr.progress import progress
from wsr.region import Region
from wsr.results import Points
from wsr.sampling import centroid, corners
from wsr.types import Params

Row = Float[np.ndarray, " members"]


def uniform_soup(region: Region) -> Params:
    """The uniform average of all members, which is the region's centroid.

    ``theta = (1 / n) sum_k theta_k``. Source: Wortsman et al., Model soups, 2022. To leave members out, merge a part of
    the region: ``uniform_soup(region.without_dataset("sst2"))``.
    """
    return region.params(region.centroid())


METHODS: Mapping[str, Callable[[Region], Params]] = {"uniform": uniform_soup}
"""Merges by name."""


def greedy_soup(region: Region, dataset: Dataset, protocol: Protocol, points: Points) -> Row:
    """The average of members taken in one by one, best first, each kept where the validation loss does not rise.

    Source: Wortsman et al., Model soups, 2022, recipe 1, with the generalised loss for the accuracy. Exact evaluations:
    one a member, and one more for each member but the first.
    """
    judged = on_validation(dataset)
    with progress(f"greedy soup on {dataset.name}", 2 * len(region) - 1, "points") as counter:

        def losses(rows: Float[np.ndarray, "points members"]) -> Float[np.ndarray, " points"]:
            return evaluate(region, rows, judged, protocol=protocol, points=points, counter=counter).generalised_loss

        alone = losses(corners(len(region)))
        first, *others = np.argsort(alone, kind="stable").tolist()
        soup, best = [first], alone[first]
        for member in others:
            loss = losses(centroid(len(region), [*soup, member]))[0]
            if loss <= best:
                soup, best = [*soup, member], loss
    return centroid(len(region), soup)[0]


def learned_in_hull(region: Region, dataset: Dataset, protocol: Protocol, points: Points) -> Row:
    """The point between the members with the lowest validation loss that gradients find."""
    return _learned(region, dataset, protocol, "hull")


def learned_freely(region: Region, dataset: Dataset, protocol: Protocol, points: Points) -> Row:
    """The point with the lowest validation loss that gradients find, with coefficients of any sign and sum."""
    return _learned(region, dataset, protocol, "free")


CHOICES: Mapping[str, Callable[..., Row]] = {
    "greedy": greedy_soup,
    "learned": learned_in_hull,
    "learned_free": learned_freely,
}
"""Coefficients chosen by a dataset's probe and validation splits: ``(region, dataset, protocol, points) -> row``."""


def on_validation(dataset: Dataset) -> Dataset:
    """The dataset with its validation split in the place of the test split: what a choice may be judged on."""
    return dataset.with_split("test", dataset.splits["validation"])


def _learned(region: Region, dataset: Dataset, protocol: Protocol, space: Space) -> Row:
    with progress(f"learning coefficients on {dataset.name}", STEPS + 1, "points") as counter:
        return learn_coefficients(
            region, dataset, space=space, steps=STEPS, protocol=protocol, counter=counter
        ).coefficients
