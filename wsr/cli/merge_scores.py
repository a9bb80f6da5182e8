"""What ``wsr merge`` shows of a merge that was scored on datasets."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from wsr.cli.tables import Cell
    from wsr.engine.evaluate import Protocol
    from wsr.engine.hull_search import HullSearch
    from wsr.merging.method import Given
    from wsr.region.exposure import Target
    from wsr.region.region import Region

RUNNERS_UP = 4


def show_search(search: "HullSearch", region: "Region", datasets: "Sequence[Target]") -> None:
    """Shows what polynomials predicted of the best points, what an exact evaluation found, and what the search cost."""
    from wsr.cli.tables import show_table

    lowest = int(search.order[0])
    member = int(search.relative[1 : len(region) + 1].argmin())
    shown = [("learned", search.answer), ("lowest loss", lowest)]
    others = [own for own in search.proposed.tolist() if own not in (search.answer, lowest)]
    shown += [(f"runner-up {number}", own) for number, own in enumerate(others[:RUNNERS_UP], start=1)]
    shown += [("centroid", 0), (f"best member, {region.names[member]}", 1 + member)]
    rows: list[list[Cell]] = []
    for name, point in shown:
        row: list[Cell] = [name]
        for predicted, exact in zip(search.predicted[point].tolist(), search.losses[point].tolist(), strict=True):
            row += [None if math.isnan(predicted) else f"{predicted:.4f}", f"{exact:.4f}"]
        rows.append(row)
    several = len(datasets) > 1
    columns = [f"{what} on {own.name}" if several else what for own in datasets for what in ("predicted", "exact")]
    show_table(("point", *columns), rows, title="Validation loss")
    penalties = ", ".join(
        f"C = {own.inverse_l2:g}" + f" on {dataset.name}" * several
        for own, dataset in zip(search.protocols, datasets, strict=True)
        if own is not None
    )
    each, probes = " on each dataset" * several, f"; linear probes with {penalties}" if penalties else ""
    print(
        f"cross-validation over the validation texts chose the point {100 * search.share:.0f} % of the way from the "
        "centroid to that of lowest loss"
    )
    print(f"{len(search.points)} points were evaluated exactly{each}{probes}")
    if len(search.proposed):
        errors = abs(search.predicted - search.losses)[search.proposed]
        mean, most = f"{errors.mean():.4f}", f"{errors.max():.4f}"
        print(f"the predictions of {len(errors)} points were off by {mean} on average, {most} at most")


def show_coefficients(region: "Region", coefficients: "np.ndarray") -> None:
    """Shows the coefficient of each member."""
    from wsr.cli.tables import show_table

    show_table(("member", "coefficient"), zip(region.names, coefficients.tolist(), strict=True))


def show_scores(
    method: str,
    region: "Region",
    given: "Given",
    merged: Mapping[str, Any],
    protocols: "Sequence[Protocol | None] | None" = None,
) -> None:
    """Shows the scores of a merge next to those of the centroid, on each dataset.

    Args:
      method: name of the merge method.
      region: the members.
      given: the datasets, the classifier and the settings.
      merged: parameters of the merge.
      protocols: the classifier of each dataset, if the method chose by one of its own.
    """
    import numpy as np

    from wsr.cli.tables import show_table
    from wsr.engine.evaluate import Protocol
    from wsr.engine.objective import evaluate_on, on_test, on_validation
    from wsr.engine.settings import Settings
    from wsr.region.region import from_params

    merge = from_params(region.model, region.base, {method: merged}).members
    both = region.joined(merge)
    rows = np.zeros((2, len(both)))
    rows[0, : len(region)] = region.centroid()
    rows[1, -1] = 1
    usual = [given.protocol or Protocol()] * len(given.datasets)
    for dataset, protocol in zip(given.datasets, protocols or usual, strict=True):
        validation, test = (
            evaluate_on(both, rows, own, protocol=protocol or Protocol(), settings=given.settings or Settings())
            for own in (on_validation(dataset), on_test(dataset))
        )
        _, *metrics = test.values
        columns = (next(iter(validation.values.values())), *test.values.values())
        show_table(
            ("point", "validation loss", "test loss", *(f"test {metric.replace('_', ' ')}" for metric in metrics)),
            [(name, *(float(column[row]) for column in columns)) for row, name in enumerate(("centroid", method))],
            title=_halved(dataset),
        )


def _halved(target: "Target") -> str:
    """Returns the name of what was scored, and how many plain texts or questions chose the coefficients."""
    from wsr.data.dataset import Dataset
    from wsr.data.halves import halves

    if isinstance(target, Dataset):
        return target.name
    return f"{target.name}: validation on {len(halves(target)[0])} of {len(target)}, test on the others"
