"""What the page of the explorer knows, as JSON-able data: the map, the scored points and the polynomials."""

import base64
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from wsr.data.dataset import Dataset
from wsr.engine.hull_polynomial import CONFIDENCE, SHARE, Design, HullPolynomial, Points
from wsr.region.population_map import PopulationMap
from wsr.region.region import Region
from wsr.report.style import places
from wsr.store import Store

LABELS = {
    "generalised_loss": "generalised loss",
    "language_model_loss": "loss, nats per token",
    "choice_loss": "choice loss",
}
"""What the page calls each loss."""


class Front(NamedTuple):
    """Points on a front and their exact scores."""

    points: Points
    losses: Float[np.ndarray, "points datasets"]
    scores: Float[np.ndarray, "points datasets"]


def content_of(
    region: Region,
    population: PopulationMap,
    design: Design,
    polynomials: Sequence[HullPolynomial],
    *,
    front: Front | None = None,
) -> dict[str, Any]:
    """Returns the data of the page.

    Args:
      region: the population.
      population: its map.
      design: the points that were scored.
      polynomials: one per dataset.
      front: further scored points that the page shows as a front.
    """
    rows, kinds = design.points.tolist(), list(design.kinds)
    datasets = [_dataset(own) for own in polynomials]
    if front is not None:
        rows, kinds = rows + front.points.tolist(), [*kinds, *["front"] * len(front.points)]
        for own, losses, scores in zip(datasets, front.losses.T.tolist(), front.scores.T.tolist(), strict=True):
            own["exact_losses"], own["exact_scores"] = own["exact_losses"] + losses, own["exact_scores"] + scores
    colours, shapes = places(region.datasets), places(region.families)
    bases = {own.interpolation.degree: own.interpolation.inverse for own in polynomials}
    return {
        "title": f"Explore {_name_of(region.store)}" if region.store else f"Explore {len(region)} models",
        "store": str(region.store.path) if region.store else "STORE",
        "model": region.model.name,
        "share": SHARE,
        "confidence": CONFIDENCE,
        "members": [
            {
                "name": name,
                "dataset": dataset,
                "family": family,
                "color": colours[dataset],
                "shape": shapes[family],
                "cluster": cluster,
                "x": x,
                "y": y,
            }
            for name, dataset, family, cluster, (x, y) in zip(
                region.names,
                region.datasets,
                region.families,
                population.clusters.tolist(),
                population.positions.tolist(),
                strict=True,
            )
        ],
        "gram": region.gram.tolist(),
        "radius": region.radius(),
        "nodes": design.nodes.tolist(),
        "drawn": len(design.drawn),
        "bases": {str(degree): packed(inverse) for degree, inverse in bases.items()},
        "exact": {"coefficients": rows, "kinds": kinds},
        "datasets": datasets,
    }


def packed(values: Float[np.ndarray, "*shape"]) -> str:
    """Returns numbers as base64 of little-endian float32, in C order."""
    return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode("ascii")


def _name_of(store: Store) -> str:
    """The folder's name; the run's where the folder is called store, as in a run of ``wsr demo``."""
    path = store.path.absolute()
    return path.parent.name if path.name == "store" else path.name


def _dataset(own: HullPolynomial) -> dict[str, Any]:
    objective, terms, labels = own.objective, own.terms, own.objective.labels
    if objective.kind == "language_model":
        # Its loss is a mean over texts, so one polynomial is enough.
        terms, labels = (terms[..., 0] * labels).mean(axis=1, dtype=np.float64)[:, None, None], np.ones(1)
    return {
        "name": own.dataset.name,
        "metric": objective.metric,
        "loss": objective.loss,
        "label": LABELS[objective.loss] + (" (squared error)" if objective.kind == "regression" else ""),
        "kind": objective.kind,
        "outputs": terms.shape[2],
        "labels": labels.tolist(),
        "texts": own.terms.shape[1],
        "probe_texts": len(own.dataset.splits["probe"]) if isinstance(own.dataset, Dataset) else None,
        "inverse_l2": own.protocol.inverse_l2 if own.protocol else None,
        "degree": own.interpolation.degree,
        "terms": packed(terms),
        "loss_bound": vars(own.loss_bound),
        "score_bound": vars(own.score_bound),
        "held_out_error": own.check.error,
        "held_out_largest": own.check.largest,
        "exact_losses": own.exact_losses.tolist(),
        "exact_scores": own.exact_scores.tolist(),
    }
