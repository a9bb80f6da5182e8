"""What lies around the centroid: random directions get worse, the way back to the pretrained model does not."""

from functools import cache

import numpy as np

from wsr.compare import mean_interval
from wsr.region import Region
from wsr.report.document import Figure, Section, Table
from wsr.studies.context import Context, Request, score_all
from wsr.types import Params


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

    @cache
    def at_centre() -> Params:
        return region.params(centre)

    for number in range(directions):
        walk = _empty(region).joined(
            context.random_member(number, radius * unit, at_centre, "centroid") for radius in radii
        )
        requests.append(Request("random direction", walk, np.eye(len(radii)), target))
    # The pretrained model is where the centroid's own coefficients have shrunk to nothing.
    shrink = np.linspace(0.75, 0.0, 4)
    requests.append(Request("towards the pretrained model", region, shrink[:, None] * centre, target))
    requests.append(Request("member", region, np.eye(len(region)), target))
    middle, *walks, homewards, members = score_all(context, "directions", requests)

    rows = [
        row
        for request, own in zip(requests, (middle, *walks, homewards, members), strict=True)
        for row in own.rows(request.group, study="directions")
    ]
    start = float(middle.generalised_loss[0])
    losses = np.stack([walk.generalised_loss for walk in walks])
    beyond = np.asarray(radii) > 1 if max(radii) > 1 else np.asarray(radii) == max(radii)
    # Paired over the test texts: what a random step past the radius adds to the loss of each.
    added = np.mean([walk.losses[beyond] for walk in walks], axis=(0, 1)) - middle.losses[0]
    rise = mean_interval(added)
    home = homewards.generalised_loss
    homeward_rise = mean_interval(homewards.losses[:-1].mean(axis=0) - middle.losses[0])
    rises, flat = rise.low > 0, homeward_rise.low <= 0
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
        f"centroid {start:.3f}; random directions past the radius add {rise.value:.3f} nats, 95 % interval "
        f"{rise.low:.3f} to {rise.high:.3f}; points on the way to the pretrained model add {homeward_rise.value:.3f}, "
        f"{homeward_rise.low:.3f} to {homeward_rise.high:.3f}",
        "holds" if rises and flat else "partly" if rises or flat else "does not hold",
        text=(
            f"The centroid is that of all {len(region)} members, those of {target} among them. A random direction is "
            "the same at each of its distances. Intervals: Student's t over the test texts, paired.",
        ),
        figures=(curve,),
        tables=(table,),
        command=context.command,
    )
    return rows, section


def _empty(region: Region) -> Region:
    return region.where(lambda member: False)
