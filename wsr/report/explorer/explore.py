"""Writes the explorer of a region: scores the few points that its polynomials need, then one HTML file."""

from collections.abc import Sequence
from pathlib import Path

from wsr.data.dataset import Dataset
from wsr.engine.evaluate import Protocol
from wsr.engine.hull_polynomial import HullPolynomial, design_of, fit_hull_polynomial, one_penalty
from wsr.engine.settings import Settings
from wsr.errors import WsrError
from wsr.region.exposure import Target
from wsr.region.population_map import map_region
from wsr.region.region import Region
from wsr.report.explorer.content import content_of
from wsr.report.explorer.page import explorer_html
from wsr.runtime.atomic import write_atomically

POINTS = 250
"""Largest number of points that are scored on each dataset, unless another is given."""
MOST_BYTES = 10_000_000
"""A page is smaller than this."""


def explore(
    region: Region,
    datasets: Target | Sequence[Target],
    to: str | Path = "explorer.html",
    *,
    points: int = POINTS,
    inverse_l2: float | None = None,
    seed: int = 0,
    settings: Settings = Settings(),
) -> tuple[HullPolynomial, ...]:
    """Writes one offline HTML file in which a reader walks through a region and sees its loss and score on datasets.

    Some points of the hull are scored exactly; polynomials give all others, with a bound on their error
    (``wsr.engine.hull_polynomial``). The page evaluates the polynomials itself: it needs no server and no network.

    Args:
      region: the population, at least two members.
      datasets: what is scored: datasets, whose probe and test splits are used; or, for decoders, plain texts or
        questions.
      to: the file to write.
      points: largest number of points to score exactly on each dataset; more allow polynomials of a higher degree.
      inverse_l2: inverse of the L2 penalty of all probes, ``C`` in scikit-learn; None: for each dataset the one that
        cross-validation chooses at the centroid.
      seed: seed of the held-out points and of the map.
      settings: chunk size, memory, devices, precision, cache of results and counter, advanced once per scored point.

    Returns:
      The polynomials of each dataset.

    Raises:
      WsrError: if there are fewer than two members, too few points for them, no dataset, or the page would exceed 10
        MB.

    Example:
      >>> import tempfile, wsr
      >>> region = wsr.made_up_region(2)
      >>> data = wsr.load_dataset("made_up_a1", wsr.load("tiny").processor, max_length=48)
      >>> (found,) = wsr.explore(region, data, tempfile.mkdtemp() + "/explorer.html", points=70, inverse_l2=1.0)
      >>> found.dataset.name, found.interpolation.nodes.shape
      ('made_up_a1', (7, 2))
    """
    wanted = list(datasets) if isinstance(datasets, Sequence) else [datasets]
    if not wanted:
        raise WsrError("explorer: no dataset is given; name at least one")
    design = design_of(len(region), points=points, seed=seed)
    found = []
    for dataset in wanted:
        protocol = protocol_for(region, dataset, inverse_l2, settings)
        found.append(fit_hull_polynomial(region, dataset, design, protocol=protocol, settings=settings))
    html = explorer_html(content_of(region, map_region(region, seed=seed), design, found)).encode()
    if len(html) > MOST_BYTES:
        raise WsrError(
            f"explorer: the page would be {len(html) / 1e6:.0f} MB, more than {MOST_BYTES / 1e6:.0f}; take fewer "
            "datasets, test texts or points"
        )
    write_atomically(Path(to), html)
    return tuple(found)


def protocol_for(region: Region, dataset: Target, inverse_l2: float | None, settings: Settings) -> Protocol | None:
    """Returns the classifier that all points share on a dataset; None for what decoders are scored on.

    Args:
      region: the population.
      dataset: what is scored.
      inverse_l2: inverse of the L2 penalty; None: the one that cross-validation chooses at the centroid.
      settings: chunk size, memory, devices and precision.
    """
    if not isinstance(dataset, Dataset):
        return None
    return Protocol(inverse_l2=one_penalty(region, dataset, settings=settings) if inverse_l2 is None else inverse_l2)
