"""How does the loss run along the line between two members, and past them?"""

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from wsr import sampling
from wsr.compare import barrier_interval
from wsr.evaluate import Evaluation
from wsr.region import Member, Region
from wsr.report.document import Figure, Section, Table
from wsr.studies.context import Context, Request, score_all

KINDS = ("same dataset", "same family", "across families")


@dataclass(frozen=True, eq=False)
class Pair:
    """Two members whose connecting line is looked at, scored on a dataset."""

    kind: str
    region: Region
    target: str

    @property
    def name(self) -> str:
        """The two ends."""
        return " – ".join(self.region.names)


def lines(context: Context, *, alphas: Float[np.ndarray, " points"], pairs_a_kind: int) -> tuple[list[dict], Section]:
    """Scores the lines between members of the same dataset, of the same family and of different families."""
    pairs = draw_pairs(context, pairs_a_kind)
    evaluations = _score_pairs(context, "lines", pairs, alphas)
    rows, cells = [], []
    for pair, evaluation in zip(pairs, evaluations, strict=True):
        rows += _rows(evaluation, "lines", pair, alphas)
        height = barrier_interval(alphas, evaluation.losses, generator=context.generator("barrier", pair.name))
        loss = evaluation.generalised_loss
        best = int(loss.argmin())
        cells.append(
            (
                pair.kind,
                pair.name,
                pair.target,
                height.value,
                height.low,
                height.high,
                float(alphas[best]),
                float(loss[best] - min(loss[0], loss[-1])),
            )
        )
    table = Table(
        "Barriers",
        (
            "pair",
            "members",
            "scored on",
            "barrier",
            "95 % low",
            "95 % high",
            "best alpha",
            "best minus better end",
        ),
        tuple(cells),
        "Barrier: the largest rise of the loss over the straight line between the ends' losses, in nats; 0 or less "
        "means none. Interval: bootstrap over test texts.",
    )
    inside = {kind: [0 < c[6] < 1 for c in cells if c[0] == kind] for kind in KINDS}
    barriers = {kind: [c[3] for c in cells if c[0] == kind] for kind in KINDS}
    no_barrier = {kind: all(c[5] <= 0.02 for c in cells if c[0] == kind) for kind in KINDS}
    section = Section(
        "Between two members",
        "Is the loss between two members as low as at the members themselves?",
        "On the line between two models the loss is as low as at its ends, often lowest strictly between "
        "(MNLI–MNLI, MNLI–ESNLI, MNLI–SST2).",
        "; ".join(
            f"{kind}: largest barrier {max(barriers[kind]):.3f}, lowest strictly between in {sum(inside[kind])} of "
            f"{len(inside[kind])}"
            for kind in KINDS
            if barriers[kind]
        ),
        "holds" if all(no_barrier.values()) else "partly" if any(no_barrier.values()) else "does not hold",
        text=("The claim counts as holding for a pair when the interval of its barrier ends at 0.02 nats or less.",),
        figures=(_curves("Loss along the line", pairs, evaluations, alphas, "linear", "0 and 1 are members."),),
        tables=(table,),
        command=context.command,
    )
    return rows, section


def extrapolation(context: Context, *, alphas: Float[np.ndarray, " points"]) -> tuple[list[dict], Section]:
    """Scores the lines past the members, both ways."""
    pairs = [pair for pair in draw_pairs(context, 1) if pair.kind != "across families"]
    evaluations = _score_pairs(context, "extrapolation", pairs, alphas)
    rows = [
        row for pair, own in zip(pairs, evaluations, strict=True) for row in _rows(own, "extrapolation", pair, alphas)
    ]
    inside = (alphas >= 0) & (alphas <= 1)
    rises, cells = [], []
    for pair, evaluation in zip(pairs, evaluations, strict=True):
        loss = evaluation.generalised_loss
        between, beyond = float(loss[inside].max()), float(loss[~inside].min())
        far = float(np.mean([loss[0], loss[-1]]))
        rises.append(far - between)
        cells.append((pair.kind, pair.name, pair.target, between, beyond, far))
    table = Table(
        "Past the members",
        (
            "pair",
            "members",
            "scored on",
            "highest loss from 0 to 1",
            "lowest loss outside",
            "mean loss at the furthest points",
        ),
        tuple(cells),
    )
    risen = [rise > 0 for rise in rises]
    section = Section(
        "Past the members",
        "Does the loss rise beyond the members, as it would if they sat on the rim of a basin?",
        "Beyond the fine-tuned models the loss rises fast, in 10 logarithmic steps to alpha 32 and -31.",
        "; ".join(
            f"{pair.kind}: {rise:+.3f} nats at the furthest points" for pair, rise in zip(pairs, rises, strict=True)
        ),
        "holds" if all(risen) else "partly" if any(risen) else "does not hold",
        figures=(
            _curves(
                "Loss past the members",
                pairs,
                evaluations,
                alphas,
                "symlog",
                "0 and 1 are members; alpha on a symmetric log scale.",
            ),
        ),
        tables=(table,),
        command=context.command,
    )
    return rows, section


def draw_pairs(context: Context, pairs_a_kind: int) -> list[Pair]:
    """Draws pairs of each kind, each scored on the dataset of its first member, which is a target."""
    region = context.region
    pairs = []
    for kind in KINDS:
        found = [
            Pair(kind, _only(region, a, b), target)
            for target in context.targets
            for a, b in itertools.permutations(region.members, 2)
            if a.dataset == target
            and kind == _kind(a.dataset == b.dataset, a.family == b.family)
            and (a.name < b.name or a.dataset != b.dataset)
        ]
        # A stride over the targets: the first pairs of a kind are of different targets.
        order = context.generator("pairs", kind).permutation(len(found))
        chosen: list[Pair] = []
        for wanted in itertools.islice(itertools.cycle(context.targets), pairs_a_kind):
            options = [found[k] for k in order if found[k].target == wanted and found[k] not in chosen]
            chosen += options[:1]
        pairs += chosen
    return pairs


def _only(region: Region, first: Member, second: Member) -> Region:
    return Region(region.model, region.base, (first, second), base_sha256=region.base_sha256)


def _kind(same_dataset: bool, same_family: bool) -> str:
    return KINDS[0] if same_dataset else KINDS[1] if same_family else KINDS[2]


def _score_pairs(context: Context, what: str, pairs: list[Pair], alphas: np.ndarray) -> list[Evaluation]:
    rows = sampling.line(alphas)
    return score_all(context, what, [Request(pair.kind, pair.region, rows, pair.target) for pair in pairs])


def _rows(evaluation: Evaluation, study: str, pair: Pair, alphas: np.ndarray) -> list[dict]:
    rows = evaluation.rows(pair.kind, study=study)
    return [row | {"alpha": float(alphas[number // 2])} for number, row in enumerate(rows)]


def _curves(
    title: str, pairs: list[Pair], evaluations: list[Evaluation], alphas: np.ndarray, scale: str, caption: str
) -> Figure:
    return Figure(
        "curves",
        title,
        f"Generalised loss; {caption}",
        {
            "series": [
                {
                    "name": f"{pair.name} on {pair.target}",
                    "group": pair.kind,
                    "x": alphas,
                    "y": own.generalised_loss,
                }
                for pair, own in zip(pairs, evaluations, strict=True)
            ],
            "x_label": "alpha",
            "y_label": "generalised loss (nats)",
            "x_scale": scale,
            "marks": [{"x": 0.0, "label": "first member"}, {"x": 1.0, "label": "second member"}],
        },
    )
