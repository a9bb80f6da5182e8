"""What lies around the centroid: random directions get worse, the way back to the pretrained model does not."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from jaxtyping import Float

from wsr.engine.evaluate import Evaluation
from wsr.geometry.trees import flatten
from wsr.report.document import Figure, Section, Table
from wsr.report.tables import interval_cell
from wsr.statistics.bootstrap import bootstrap_mean
from wsr.statistics.interval import Interval
from wsr.store.row import result_row
from wsr.studies.harness.context import Context, Request, score_all
from wsr.studies.harness.verdict import Part, above, below, power_told, verdict
from wsr.studies.lines import NO_BARRIER_NATS
from wsr.types import Params

HOMEWARD_STEPS = 4
"""Points on the way from the centroid to the pretrained model, the latter among them."""


def random_directions(
    context: Context, *, radii: tuple[float, ...], directions: int, targets: int = 1
) -> tuple[list[dict], Section]:
    """Walks away from the centroid of all members in random directions and towards the pretrained model.

    Args:
      context: the population; the first target is scored.
      radii: distances from the centroid, in units of the members' mean distance from it.
      directions: random directions to walk.
      targets: how many are asked the same question: all their intervals hold together.
    """
    region, target = context.region, context.targets[0]
    unit, centre = region.radius(), region.centroid()
    to_origin = float(np.sqrt(centre @ region.gram @ centre))
    requests = [Request("centroid", region, centre[None], target)]

    @cache
    def at_centre() -> Params:
        return region.params(centre)

    for number in range(directions):
        walk = region.emptied().joined(
            context.random_member(number, radius * unit, at_centre, "centroid") for radius in radii
        )
        requests.append(Request("random direction", walk, np.eye(len(radii)), target))
    # The pretrained model is where the centroid's own coefficients have shrunk to nothing.
    shrink = np.linspace(0.75, 0.0, HOMEWARD_STEPS)
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
    # Bonferroni: a step of each length and the way home, on each target.
    confidence = 1 - 0.05 / (targets * (len(radii) + 1))
    rises = [
        bootstrap_mean(
            [np.stack([walk.losses_by_draw[:, step], middle.losses_by_draw[:, 0]], axis=1) for walk in walks],
            [target] * directions,
            _added,
            generator=context.generator("rise", target, repr(radius)),
            confidence=confidence,
            resamples=10_000,
        )
        for step, radius in enumerate(radii)
    ]
    risen = [radius for radius, rise in zip(radii, rises, strict=True) if rise.low > 0]
    home = homewards.generalised_loss
    homeward_rise = bootstrap_mean(
        [np.stack([homewards.losses_by_draw[:, :-1].mean(axis=1), middle.losses_by_draw[:, 0]], axis=1)],
        [target],
        _added,
        generator=context.generator("rise", target, "home"),
        confidence=confidence,
        resamples=10_000,
    )
    rows += _interval_rows(target, region.names, radii, rises, homeward_rise, middle)
    weights = float(np.linalg.norm([np.linalg.norm(leaf) for leaf in flatten(region.base).values()]))
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
        "What a random step from the centroid adds to the loss",
        ("length (radii)", "mean over directions (nats)", "interval"),
        tuple(
            (radius, rise.value, interval_cell(rise.low, rise.high)) for radius, rise in zip(radii, rises, strict=True)
        ),
        f"Loss at the centroid {start:.3f}; at the pretrained model {float(home[-1]):.3f}; at the members "
        f"{float(members.generalised_loss.mean()):.3f} on average. Intervals: bootstrap over directions and "
        f"test texts, paired over the texts; 95 % for all {targets * (len(radii) + 1)} intervals of {targets} "
        f"{'target' if targets == 1 else 'targets'} together (Bonferroni).",
    )
    onset = f"from {risen[0]:g} radii on" if risen else f"at no length up to {radii[-1]:g} radii"
    measured = (
        f"random steps add to the loss {onset} ({rises[0].value:+.3f} nats at {radii[0]:g}, {rises[-1].value:+.3f} at "
        f"{radii[-1]:g}); the way to the pretrained model adds {homeward_rise.value:+.3f}, interval "
        f"{homeward_rise.low:+.3f} to {homeward_rise.high:+.3f}"
    )
    section = Section(
        f"A random step hurts, on {target}",
        "Does a random step from the centroid, as long as the members are away from it, make the model worse?",
        "A random direction of the same length from the centroid degrades past the fine-tuned radius; the direction "
        "towards the origin does not.",
        measured,
        _verdict(radii, rises, homeward_rise),
        text=(
            f"The centroid is that of all {len(region)} members, those of {target} among them, so the way to the "
            "pretrained model gives up what they learned.",
            f"The members' mean distance from the centroid, one radius, is {unit:.2f}, which is "
            f"{100 * unit / weights:.1f} % of the length of the base's own weights ({weights:.0f}): a random step of "
            "that length, spread over all of them, is small for each.",
        ),
        figures=(curve,),
        tables=(table,),
        command=context.command,
        headline=(
            f"A random step from the centroid {_hurts_told(risen, radii, target)}; one towards the pretrained model "
            f"adds {homeward_rise.value:+.3f} nats."
        ),
        paper_short="past the radius; not towards pretrained",
        measured_short=(
            f"from {risen[0]:g} {'radius' if risen[0] == 1 else 'radii'} on"
            if risen
            else f"not up to {radii[-1]:g} radii"
        )
        + f"; to pretrained {homeward_rise.value:+.3f} nats",
        power=power_told(
            {f"a step of {radii[0]:g} radii": rises[0], "the way to the pretrained model": homeward_rise},
            confidence=confidence,
        ),
    )
    return rows, section


def _hurts_told(risen: Sequence[float], radii: Sequence[float], target: str) -> str:
    if risen:
        times = "the models' distance" if risen[0] == 1 else f"{risen[0]:g} times the models' distance"
        return f"raises the loss on {target} from {times} on"
    return f"raises no loss on {target} beyond doubt, up to {radii[-1]:g} times the models' distance"


def _added(losses: Float[np.ndarray, "points draws"]) -> Float[np.ndarray, " draws"]:
    """What the first point has above the second."""
    return losses[0] - losses[1]


def _interval_rows(
    target: str,
    names: Sequence[str],
    radii: Sequence[float],
    rises: Sequence[Interval],
    homeward: Interval,
    middle: Evaluation,
) -> list[dict]:
    found = [("random direction", f"rise at {radius:g} radii", rise) for radius, rise in zip(radii, rises, strict=True)]
    found.append(("towards the pretrained model", "mean rise on the way", homeward))
    return [
        result_row(
            group,
            target,
            metric,
            rise.value,
            texts=middle.losses.shape[1],
            how=middle.how[0],
            members=names,
            interval=(rise.low, rise.high),
            study="directions",
        )
        for group, metric, rise in found
    ]


def _verdict(radii: tuple[float, ...], rises: Sequence[Interval], homeward: Interval) -> str:
    """Whether random steps just past the radius hurt, and the way home does not."""
    past = [rise for radius, rise in zip(radii, rises, strict=True) if radius >= 1]
    # The second length of them leaves the radius; what adds less than a barrier would does not hurt.
    hurts: Part = above(past[min(1, len(past) - 1)], NO_BARRIER_NATS) if past else "open"
    return verdict([hurts, below(homeward, NO_BARRIER_NATS)])
