"""How often intervals and verdicts are wrong where models depend on each other: simulations with a known truth.

Each row of benchmarks/results/coverage.jsonl is a design with its nominal and its measured rate.

python -m benchmarks.coverage [--only=groups,chord,suggest,crossed] [--runs=400]
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from jaxtyping import Float

from wsr.engine.early import Size, look_in_rounds, schedule
from wsr.engine.suggest import FOLDS, against_the_best
from wsr.statistics.better import probability_better
from wsr.statistics.chord import chord_difference
from wsr.statistics.sources import Sources

RESULTS = Path(__file__).parent / "results" / "coverage.jsonl"
TEXTS = 200
POINTS = 30
NOMINAL = 0.05

_RUNS = flags.DEFINE_integer("runs", 400, "Simulated data sets of each design.")
_ONLY = flags.DEFINE_list("only", ["groups", "chord", "suggest", "crossed"], "Which simulations.")

Losses = Float[np.ndarray, "models texts"]
Row = dict[str, Any]


def main(arguments: list[str]) -> None:
    """Runs the simulations and writes their rows in place of earlier ones of the same kind."""
    for name in _ONLY.value:
        rows = []
        for row in SIMULATIONS[name](_RUNS.value):
            print(json.dumps(row), flush=True)
            rows.append({"simulation": name, **row})
        kept = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
        rows += [row for row in kept if row["simulation"] != name]
        RESULTS.write_text("".join(f"{json.dumps(row)}\n" for row in sorted(rows, key=lambda row: row["simulation"])))


# Two groups of models.


def groups(runs: int) -> Iterator[Row]:
    """How often a group is named better, or p is below 0.05, with equal laws (shift 0) and with unequal ones."""
    for name, draw in DESIGNS.items():
        for shift in (0.0, 1.0, 2.0) if name.endswith("others") else (0.0,):
            yield {"design": name, "shift": shift, "runs": runs, "nominal": NOMINAL} | _rates(draw, shift, runs)


def _rates(draw: Callable, shift: float, runs: int) -> Row:
    named, wrong, small, naive = 0, 0, 0, 0
    for seed in range(runs):
        generator = np.random.default_rng(seed)
        (a, of_a), (b, of_b) = draw(generator)
        b = b + shift
        full = Size(len(a), len(b), TEXTS)
        sizes = schedule(full, (of_a, of_b), 1 - NOMINAL)

        def first(size: Size, a: Losses = a, b: Losses = b) -> tuple[Losses, Losses]:
            return a[: size.models_a, : size.texts], b[: size.models_b, : size.texts]

        last = look_in_rounds(first, sizes, (of_a, of_b), 1 - NOMINAL, generator)[-1]
        named += last.better is not None
        wrong += last.better == "b" if shift else last.better is not None
        small += probability_better(a, b, sources_a=of_a, sources_b=of_b, generator=generator).p_value < NOMINAL
        naive += probability_better(a, b, generator=generator).p_value < NOMINAL
    rates = {"named": named, "named wrongly": wrong, "p below 0.05": small, "p below 0.05 if independent": naive}
    return {what: round(count / runs, 4) for what, count in rates.items()}


def _members(
    generator: np.random.Generator, datasets: int, each: int, icc: float
) -> tuple[Losses, Float[np.ndarray, "models datasets"]]:
    """Losses of members; datasets make the share ``icc`` of the variance between members, which is 1."""
    effects = np.repeat(np.sqrt(icc) * generator.normal(size=datasets), each)
    effects = effects + np.sqrt(1 - icc) * generator.normal(size=datasets * each)
    losses = effects[:, None] + 0.5 * generator.normal(size=(datasets * each, TEXTS))
    return losses, np.repeat(np.eye(datasets), each, axis=0)


def _named(kind: str, shares: Float[np.ndarray, "models sources"]) -> Sources:
    return Sources(tuple(f"{kind} {number}" for number in range(shares.shape[1])), shares)


def _hull(generator: np.random.Generator, members: int, *, own: bool) -> tuple:
    """Points between independent members, against those members or against 16 others."""
    corners, shares = _members(generator, members, 1, 1.0)
    coefficients = generator.dirichlet(np.ones(members), POINTS)
    inside = coefficients @ corners + 0.2 * generator.normal(size=(POINTS, TEXTS))
    other = (corners, _named("corner", shares)) if own else _datasets_of(generator, 16, 1, 1.0, "other")
    text = generator.normal(size=(1, TEXTS))
    return (inside + text, _named("corner", coefficients)), (other[0] + text, other[1])


def _datasets_of(
    generator: np.random.Generator, datasets: int, each: int, icc: float, kind: str
) -> tuple[Losses, Sources]:
    losses, shares = _members(generator, datasets, each, icc)
    order = np.arange(datasets * each).reshape(datasets, each).T.ravel()  # a member of each dataset in turn
    return losses[order], _named(kind, shares[order])


def _clustered(generator: np.random.Generator, datasets_a: int, datasets_b: int, each: int, icc: float) -> tuple:
    """Members of a few datasets against members of others."""
    a = _datasets_of(generator, datasets_a, each, icc, "a")
    b = _datasets_of(generator, datasets_b, each, icc, "b")
    text = generator.normal(size=(1, TEXTS))
    return (a[0] + text, a[1]), (b[0] + text, b[1])


DESIGNS: Mapping[str, Callable] = {
    **{
        f"points between {members} members, against {'these' if own else '16 others'}": (
            lambda generator, members=members, own=own: _hull(generator, members, own=own)
        )
        for own in (True, False)
        for members in (3, 5, 6, 9)
    },
    **{
        f"members of {a} and {b} datasets, 5 each, correlation {icc}, others": (
            lambda generator, a=a, b=b, icc=icc: _clustered(generator, a, b, 5, icc)
        )
        for a, b in ((3, 3), (4, 10), (6, 6))
        for icc in (0.7, 0.9)
    },
}
"""Designs of two groups with equal laws: P_B is one half."""


# Points against their chords.


def chord(runs: int) -> Iterator[Row]:
    """Coverage of the interval of the mean difference, its error where the truth is 0, and its power."""
    for members, points in ((3, 10), (5, 10), (5, 30), (8, 30)):
        for bend in (0.0, 1.0):
            held = low = 0
            widths = []
            for seed in range(runs):
                found, truth = _one_chord(np.random.default_rng(seed), members, points, bend)
                held += found.low <= truth <= found.high
                low += found.high < 0
                widths.append(found.high - found.low)
            yield {
                "design": f"{points} points between {members} members, mean bend {bend:g}",
                "runs": runs,
                "nominal": 1 - NOMINAL,
                "coverage": round(held / runs, 4),
                "below the chord": round(low / runs, 4),
                "width over the truth at bend 1": round(float(np.median(widths)) / _truth(members, 1.0), 2),
            }


DIMENSIONS = 20


def _one_chord(generator: np.random.Generator, members: int, points: int, bend: float) -> tuple:
    """A quadratic loss with a curvature for each text and direction, and members at different distances."""
    length = np.exp(0.3 * generator.normal(size=(members, 1)))
    members_at = length * generator.normal(size=(members, DIMENSIONS)) / np.sqrt(DIMENSIONS)
    curvature = bend + _directions()
    of_texts = curvature + 2 * generator.normal(size=(TEXTS, 1)) + generator.normal(size=(TEXTS, DIMENSIONS))
    slopes = 5 * generator.normal(size=(TEXTS, DIMENSIONS))
    text = generator.normal(size=(1, TEXTS))
    hull = generator.dirichlet(np.ones(members), points)

    def losses(at: Float[np.ndarray, "points dimensions"]) -> Losses:
        smooth = text + at @ slopes.T + 0.5 * at**2 @ of_texts.T
        return smooth + 0.02 * generator.normal(size=smooth.shape)

    return chord_difference(losses(hull @ members_at), losses(members_at), hull), -_truth(members, bend)


def _directions() -> Float[np.ndarray, " dimensions"]:
    """Curvatures by direction that add up to nothing, so that pairs of members differ in bend."""
    return np.tile([2.0, -2.0], DIMENSIONS // 2)


def _truth(members: int, bend: float) -> float:
    """Mean depth below the chord: half the curvature times the variance of the members under the coefficients."""
    squares = 2 / (members + 1)  # mean of sum c^2 under a flat Dirichlet law
    return 0.5 * bend * float(np.exp(2 * 0.3**2)) * (1 - squares)


# Starts against the best of them.


def suggest(runs: int) -> Iterator[Row]:
    """How often the intervals of all starts hold together, with losses whose mean is known and no probe."""
    for starts, texts in ((8, 60), (16, 60), (24, 60), (8, 150), (24, 150), (16, 400)):
        for tails in TAILS:
            for gap, lead in ((0.0, 0.0), (0.3, 0.0), (0.3, 3.0)):
                draws = (
                    start_losses(np.random.default_rng(seed), starts, texts, tails, gap, lead) for seed in range(runs)
                )
                design = f"{starts} starts, {texts} texts, {tails}, gap {gap:g}, lead of the best {lead:g}"
                yield {"design": design, "nominal": 0.95} | _starts(draws)


TAILS: Mapping[str, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]] = {
    "normal": lambda generator, shape: generator.normal(size=shape),
    "t": lambda generator, shape: generator.standard_t(3, size=shape),
    "skewed": lambda generator, shape: generator.lognormal(size=shape) - np.exp(0.5),
}
"""Noise of a loss; t has three degrees of freedom."""


def start_losses(
    generator: np.random.Generator, starts: int, texts: int, tails: str, gap: float, lead: float = 0.0
) -> tuple[Float[np.ndarray, "starts texts"], Float[np.ndarray, " starts"]]:
    """Returns losses of starts and their true means, from 0 to nearly ``gap``, and ``lead`` higher after the first.

    Texts are hard or easy for all starts, and noisier where they are hard; starts agree on three kinds of texts.
    """
    means = gap * np.arange(starts) / starts + lead * (np.arange(starts) > 0)
    hard = generator.lognormal(size=texts)
    common = 0.06 * generator.normal(size=(starts, 3)) @ generator.normal(size=(3, texts))
    return means[:, None] + hard * (1 + common + 0.15 * TAILS[tails](generator, (starts, texts))), means


def crossed(runs: int) -> Iterator[Row]:
    """The same with probes, which the texts of a fold share; the truth is the mean loss over probes on new texts."""
    for starts in (8, 16):
        for texts in (60, 200):
            for strengths in ("equal", "unequal"):
                design = f"{starts} starts, {texts} texts, probes over {FOLDS} folds, {strengths} starts"
                yield {"design": design, "nominal": 0.95} | _starts(_probed(runs, starts, texts, strengths))


def _starts(draws: Iterable[tuple[np.ndarray, np.ndarray]]) -> Row:
    held, best, named, upper = [], [], [], []
    for number, (losses, means) in enumerate(draws):
        worse, low, high = against_the_best(losses, 0.95, np.random.default_rng(number))
        above = means - means.min()
        held.append(bool(((low <= above) & (above <= high)).all()))
        best.append(low[above.argmin()] == 0)
        named.append(int((low == 0).sum()))
        upper.append(high[worse.argmin()])
    return {
        "runs": len(held),
        "all intervals hold": round(float(np.mean(held)), 4),
        "the best is named": round(float(np.mean(best)), 4),
        "starts named": round(float(np.mean(named)), 1),
        "upper end of the lowest": round(float(np.mean(upper)), 3),
    }


HIDDEN, PENALTY, TRUTHS = 32, 10.0, 200


def _probed(runs: int, starts: int, texts: int, strengths: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Losses of cross-fitted ridge probes on correlated features, and the mean loss of such probes on other texts."""
    worlds = 5
    for world in range(worlds):
        generator = np.random.default_rng(world)
        maps = generator.normal(size=(HIDDEN, HIDDEN)) + 0.5 * generator.normal(size=(starts, HIDDEN, HIDDEN))
        strength = np.ones(starts) if strengths == "equal" else np.linspace(1, 0.5, starts)

        def sample(size: int, maps: np.ndarray = maps, strength: np.ndarray = strength) -> tuple:
            labels = np.where(generator.random(size) < 0.5, 1.0, -1.0)  # noqa: B023
            shared = generator.normal(size=(size, HIDDEN))  # noqa: B023
            shared[:, :2] += 0.6 * labels[:, None]
            seen = np.repeat(shared[None], len(maps), axis=0)
            seen[:, :, 0] *= strength[:, None]
            own = generator.normal(size=seen.shape) * (2 - strength)[:, None, None]  # noqa: B023
            return seen @ maps / np.sqrt(HIDDEN) + 0.5 * own, labels

        elsewhere = sample(3000)
        size = texts * (FOLDS - 1) // FOLDS
        truths = [_logistic(elsewhere[0], elsewhere[1], _ridge(*sample(size))) for _ in range(TRUTHS)]
        means = np.mean(truths, axis=(0, 2))
        for _ in range(runs // worlds):
            features, labels = sample(texts)
            fold = np.arange(texts) % FOLDS
            losses = np.empty(features.shape[:2])
            for number in range(FOLDS):
                inside = fold == number
                probe = _ridge(features[:, ~inside], labels[~inside])
                losses[:, inside] = _logistic(features[:, inside], labels[inside], probe)
            yield losses, means


def _ridge(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    inner = features.swapaxes(1, 2) @ features + PENALTY * np.eye(HIDDEN)
    return np.linalg.solve(inner, (features.swapaxes(1, 2) @ labels)[..., None])


def _logistic(features: np.ndarray, labels: np.ndarray, probe: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, -3 * labels * (features @ probe)[..., 0])


SIMULATIONS: Mapping[str, Callable[[int], Iterator[Row]]] = {
    "groups": groups,
    "chord": chord,
    "suggest": suggest,
    "crossed": crossed,
}


if __name__ == "__main__":
    app.run(main)
