"""Coefficients chosen on the probe and validation splits of datasets, or on a half of plain texts or questions.

Test splits and the other halves are not read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Float

from wsr.merging.method import Given, OfData, at_least

if TYPE_CHECKING:
    from wsr.engine.evaluate import Protocol
    from wsr.engine.hull_search import HullSearch
    from wsr.engine.settings import Settings
    from wsr.region.exposure import Target
    from wsr.region.region import Region

Row = Float[np.ndarray, " members"]


class Chosen(OfData):
    """A method that chooses one row of coefficients."""

    needs: ClassVar = ("dataset",)
    several: ClassVar[bool] = False
    """Whether the method can choose on several datasets together."""
    of_decoders: ClassVar[bool] = False
    """Whether the method can choose on plain texts and questions, by the losses of decoders."""

    def row(self, region: "Region", given: Given) -> Row:
        """Returns the chosen coefficients.

        Args:
          region: the members.
          given: the datasets to choose on.
        """
        raise NotImplementedError

    def merge(self, region: "Region", given: Given) -> Mapping[str, Any]:
        """Returns the parameters of the chosen point."""
        return region.params(self.row(region, given))


@dataclass(frozen=True)
class GreedySoup(Chosen):
    """The greedy soup: adds members to an average, best first, as long as the validation loss does not rise.

    It needs ``2 n - 1`` exact evaluations for ``n`` members.

    Source: Wortsman et al., Model soups, 2022, recipe 1, with the loss in place of the accuracy.

    Example:
      >>> import wsr
      >>> method = wsr.merging.GreedySoup()
      >>> method.needs  # wsr.merge(region, method, wsr.merging.Given(dataset=sst2))
      ('dataset',)
    """

    of_decoders: ClassVar = True

    def row(self, region: "Region", given: Given) -> Row:
        """Returns the coefficients of the average of the members taken."""
        from wsr.engine.evaluate import Protocol
        from wsr.engine.settings import Settings

        (dataset,) = given.datasets
        return greedy_soup(region, dataset, given.protocol or Protocol(), given.settings or Settings())


@dataclass(frozen=True)
class Learned(Chosen):
    """A point in the convex hull of the members with a low loss on a dataset, plain texts or questions.

    It lies between the centroid and the minimum of ``L(base + sum_k c_k tau_k)`` over ``c_k >= 0`` with sum 1, where
    ``L`` is the validation loss. Cross-validation chooses how far from the centroid, see ``wsr.engine.hull_search``.
    With several datasets, ``L`` is the mean of the losses, each divided by the centroid's.

    Source: Wortsman et al., Model soups, 2022, the learned soup, on polynomials; the head is the optimal linear probe.

    Example:
      >>> import wsr
      >>> method = wsr.merging.Learned(points=50)
      >>> method.needs  # wsr.merge(region, method, wsr.merging.Given(dataset=[sst2, mnli]))
      ('dataset',)
    """

    several: ClassVar = True
    of_decoders: ClassVar = True

    points: int = at_least(2, 100, "Largest number of points that are evaluated exactly besides the members.")

    def search(self, region: "Region", given: Given) -> "HullSearch":
        """Returns all points that were evaluated, with what was predicted of them.

        Args:
          region: the members.
          given: the datasets to choose on.
        """
        from wsr.engine.evaluate import Protocol
        from wsr.engine.hull_search import search_hull
        from wsr.engine.settings import Settings
        from wsr.runtime.progress import progress

        names = ", ".join(own.name for own in given.datasets)
        most = (len(region) + self.points) * len(given.datasets)
        with progress(f"learning coefficients on {names}", most, "points") as counter:
            return search_hull(
                region,
                given.datasets,
                points=self.points,
                protocol=given.protocol or Protocol(),
                settings=replace(given.settings or Settings(), counter=counter),
            )

    def row(self, region: "Region", given: Given) -> Row:
        """Returns the chosen point."""
        return self.search(region, given).coefficients


@dataclass(frozen=True)
class LearnedFree(Chosen):
    """The point with the lowest validation loss under coefficients of any sign and sum, found by gradients.

    ``min_c L(base + sum_k c_k tau_k)``; see ``wsr.engine.learned_coefficients``. Polynomials are no guide outside the
    convex hull, so every step passes the texts through the model.

    Source: as for ``Learned``.

    Example:
      >>> import wsr
      >>> method = wsr.merging.LearnedFree(steps=5)
      >>> method.needs  # wsr.merge(region, method, wsr.merging.Given(dataset=sst2))
      ('dataset',)
    """

    steps: int = at_least(1, 10, "Number of gradient steps.")

    def row(self, region: "Region", given: Given) -> Row:
        """Returns the best visited point."""
        from wsr.engine.evaluate import Protocol
        from wsr.engine.learned_coefficients import learn_coefficients
        from wsr.engine.settings import Settings
        from wsr.runtime.progress import progress

        (dataset,) = given.datasets
        with progress(f"learning coefficients on {dataset.name}", self.steps + 1, "points") as counter:
            return learn_coefficients(
                region,
                dataset,
                space="free",
                steps=self.steps,
                protocol=given.protocol or Protocol(),
                settings=replace(given.settings or Settings(), counter=counter),
            ).coefficients


def greedy_soup(region: "Region", dataset: "Target", protocol: "Protocol", settings: "Settings") -> Row:
    """Returns the coefficients of the greedy soup.

    Args:
      region: the members.
      dataset: a dataset, whose probe and validation splits choose the members; or plain texts or questions, of which a
        half does.
      protocol: the classifier that measures a point on a dataset.
      settings: chunk size, memory, devices, precision and cache of results.
    """
    from wsr.engine.objective import evaluate_on, on_validation
    from wsr.geometry.sampling import centroid, corners
    from wsr.runtime.progress import progress
    from wsr.store.results import Results

    judged, results = on_validation(dataset), settings.results or Results.in_memory()
    with progress(f"greedy soup on {dataset.name}", 2 * len(region) - 1, "points") as counter:
        counted = replace(settings, results=results, counter=counter)

        def losses(rows: np.ndarray) -> np.ndarray:
            found = evaluate_on(region, rows, judged, protocol=protocol, settings=counted)
            return next(iter(found.values.values()))

        alone = losses(corners(len(region)))
        first, *others = np.argsort(alone, kind="stable").tolist()
        soup, best = [first], alone[first]
        for member in others:
            loss = losses(centroid(len(region), [*soup, member]))[0]
            if loss <= best:
                soup, best = [*soup, member], loss
    return centroid(len(region), soup)[0]
