"""Coefficients that a dataset's probe and validation splits choose; its test split is not read."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float

from wsr.merging.method import Given, OfData, at_least

if TYPE_CHECKING:
    from wsr.data.dataset import Dataset
    from wsr.engine.evaluate import Protocol
    from wsr.engine.settings import Settings
    from wsr.region.region import Region

Row = Float[np.ndarray, " members"]


class Chosen(OfData):
    """A method that answers with a row of coefficients."""

    needs: ClassVar = ("dataset",)

    def row(self, region: "Region", given: Given) -> Row:
        """Returns the coefficients over the region's members."""
        raise NotImplementedError

    def merge(self, region: "Region", given: Given) -> Mapping[str, Any]:
        """The point of these coefficients."""
        return region.params(self.row(region, given))


@dataclass(frozen=True)
class GreedySoup(Chosen):
    """The greedy soup: members join an average one by one, best first, where the validation loss does not rise.

    Exact evaluations: one a member, and one more for each member but the first. Source: Wortsman et al., Model soups,
    2022, recipe 1, with the generalised loss for the accuracy.
    """

    def row(self, region: "Region", given: Given) -> Row:
        """The average of those taken in."""
        from wsr.engine.evaluate import Protocol
        from wsr.engine.settings import Settings

        return greedy_soup(region, given.dataset, given.protocol or Protocol(), given.settings or Settings())


@dataclass(frozen=True)
class Learned(Chosen):
    """The point between the members with the lowest validation loss that gradients find; see learned_coefficients.

    ``min_c L(base + sum_k c_k tau_k)``, ``c`` a softmax. Source: Wortsman et al., Model soups, 2022, the learned soup,
    with the optimum of a linear probe for the head.
    """

    space: ClassVar[Literal["hull", "free"]] = "hull"
    steps: int = at_least(1, 10, "Number of gradient steps.")

    def row(self, region: "Region", given: Given) -> Row:
        """The best point that was visited."""
        from wsr.engine.evaluate import Protocol
        from wsr.engine.learned_coefficients import learn_coefficients
        from wsr.engine.settings import Settings
        from wsr.runtime.progress import progress

        with progress(f"learning coefficients on {given.dataset.name}", self.steps + 1, "points") as counter:
            return learn_coefficients(
                region,
                given.dataset,
                space=self.space,
                steps=self.steps,
                protocol=given.protocol or Protocol(),
                settings=replace(given.settings or Settings(), counter=counter),
            ).coefficients


@dataclass(frozen=True)
class LearnedFree(Learned):
    """As ``learned``, with coefficients of any sign and sum. Source: as there."""

    space: ClassVar[Literal["hull", "free"]] = "free"


def greedy_soup(region: "Region", dataset: "Dataset", protocol: "Protocol", settings: "Settings") -> Row:
    """Returns the coefficients of the greedy soup."""
    from wsr.engine.evaluate import evaluate
    from wsr.geometry.sampling import centroid, corners
    from wsr.runtime.progress import progress
    from wsr.store.results import Results

    judged, results = on_validation(dataset), settings.results or Results.in_memory()
    with progress(f"greedy soup on {dataset.name}", 2 * len(region) - 1, "points") as counter:
        counted = replace(settings, results=results, counter=counter)

        def losses(rows: np.ndarray) -> np.ndarray:
            return evaluate(region, rows, judged, protocol=protocol, settings=counted).generalised_loss

        alone = losses(corners(len(region)))
        first, *others = np.argsort(alone, kind="stable").tolist()
        soup, best = [first], alone[first]
        for member in others:
            loss = losses(centroid(len(region), [*soup, member]))[0]
            if loss <= best:
                soup, best = [*soup, member], loss
    return centroid(len(region), soup)[0]


def on_validation(dataset: "Dataset") -> "Dataset":
    """The dataset with its validation split in the place of the test split: what a choice may be judged on."""
    return dataset.with_split("test", dataset.splits["validation"])
