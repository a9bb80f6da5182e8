"""What lies around the centroid: random directions get worse, the way back to the pretrained model does not."""

import numpy as np

from wsr.region import Region
from wsr.report.document import Figure, Section, Table
from wsr.studies.context import Context, Request, score_all


def random_directions(context: Context, *, radii: tuple[float, ...], directions: int) -> tuple[list[dict], Section]:
    """Walks away from the centroid of all members in random directions and towards the pretrained model.

    Args:
      context: the population; the first target is scored.
      radii: distances from the centroid, in units of the members' mean distance from it.
      directions: random directions to walk.
    """
    region, target = context.region, context.targets[0]
    unit, centre = region.radius(), region.centroid()
    to_origin = float(np.sqrt(centre @ region.gram @ centre))
    requests = [Request("centroid", region, centre[None], target)]
    for number in range(directions):
        walk = _empty(region).joined(context.random_member(number, radius * unit, centre) for radius in radii)
        requests.append(Request("random direction", walk, np.eye(len(radii)), target))
    # The pretrained model is where the centroid's own coefficients have shrunk to nothing.
    shrink = np.linspace(0.75, 0.0, 4)
    requests.append(Request("towards the pretrained model", region, shrink[:, None] * centre, target))
    requests.append(Request("member", region, np.eye(len(region)), target))
    at_centre, *walks, homewards, members = score_all(context, "directions", requests)

    rows = [
        row
        for request, own in zip(requests, (at_centre, *walks, homewards, members), strict=True)
        for row in own.rows(request.group, study="directions")
    ]
    start = float(at_centre.generalised_loss[0])
    losses = np.stack([walk.generalised_loss for walk in walks])
    past_rim = losses[:, np.asarray(radii) > 1].mean() if any(radius > 1 for radius in radii) else losses[:, -1].mean()
    home = homewards.generalised_loss
    rises = past_rim > start
    flat = float(home.max()) < past_rim
    distances = (1 - shrink) * to_origin / unit
    curve = Figure(
        "curves",
        f"Leaving the centroid, scored on {target}",
        "Distance in units of the members' mean distance from the centroid (its radius).",
        {
            "series": [
                *(
                    {
                        "name": f"random direction {n}",
                        "group": "random direction",
                        "x": [0.0, *radii],
                        "y": [start, *own],
                    }
                    for n, own in enumerate(losses)
                ),
                {
                    "name": "towards the pretrained model",
                    "group": "towards pretrained",
                    "x": [0.0, *distances],
                    "y": [start, *home],
                },
            ],
            "x_label": "distance from the centroid (radii)",
            "y_label": "generalised loss (nats)",
            "marks": [{"x": 1.0, "label": "radius of the members"}],
        },
    )
    table = Table(
        "Losses around the centroid",
        ("way", *(f"{radius:g} radii" for radius in radii)),
        tuple((f"random direction {n}", *map(float, own)) for n, own in enumerate(losses)),
        f"At the centroid {start:.3f}; the pretrained model {float(home[-1]):.3f}; the members "
        f"{float(members.generalised_loss.mean()):.3f} on average.",
    )
    section = Section(
        "Random directions",
        "Does a random step from the centroid, as long as the members are away from it, make the model worse?",
        "A random direction of the same length from the centroid degrades past the fine-tuned radius; the direction "
        "towards the origin does not.",
        f"centroid {start:.3f}; random directions past the radius {past_rim:.3f}; worst point on the way to the "
        f"pretrained model {float(home.max()):.3f}",
        "holds" if rises and flat else "partly" if rises or flat else "does not hold",
        figures=(curve,),
        tables=(table,),
        command=context.command,
    )
    return rows, section


def _empty(region: Region) -> Region:
    return region.where(lambda member: False)
