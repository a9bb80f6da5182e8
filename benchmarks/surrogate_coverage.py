"""How often the errors of a surrogate exceed their bounds: a simulation of requests and error laws of many kinds.

python -m benchmarks.surrogate_coverage [SEEDS [FILE [KIND ...]]]

It runs 1,000 seeds of each kind unless told otherwise, and prints and appends a row of rates for each to FILE, such as
benchmarks/results/surrogate_coverage.jsonl. The encoder is simulated: the features of a text are tanh of a linear
function of the coefficients, which no polynomial equals. wsr chooses nodes, held-out points, degrees and bounds as in
``wsr.evaluate_hull``, and every point is also evaluated exactly.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from absl import app
from jaxtyping import Float

from wsr.engine.fewer_probes import Points, Scores
from wsr.engine.hull_answers import LEVEL, Features, answer_hull, held_out_points
from wsr.geometry import sampling

MEMBERS, TEXTS, HIDDEN = 4, 12, 6

Draw = Callable[[np.random.Generator, int], Points]


def uniform(generator: np.random.Generator, points: int) -> Points:
    """Uniform in the hull."""
    return sampling.convex_hull(generator, points, MEMBERS)


def near(generator: np.random.Generator, points: int, spread: float = 0.02, centre: Points | None = None) -> Points:
    """Around a point of the hull, which is drawn unless it is given."""
    centre = sampling.convex_hull(generator, 1, MEMBERS) if centre is None else centre
    return (1 - spread) * centre + spread * uniform(generator, points)


def line(generator: np.random.Generator, points: int) -> Points:
    """Equally spaced between two members."""
    return sampling.line(np.linspace(0, 1, points)) @ np.eye(MEMBERS)[:2]


def line_and_middle(generator: np.random.Generator, points: int) -> Points:
    """A fifth on a line, the others on it near its middle."""
    middle = generator.normal(0.5, 0.003, size=points - points // 5)
    return np.concatenate([line(generator, points // 5), sampling.line(middle) @ np.eye(MEMBERS)[:2]])


def clusters(generator: np.random.Generator, points: int) -> Points:
    """Four clusters of equal size."""
    return np.concatenate([near(generator, points // 4) for _ in range(4)])


def corners(generator: np.random.Generator, points: int) -> Points:
    """Near members, edges and faces."""
    return sampling.convex_hull(generator, points, MEMBERS, concentration=0.2)


def rare_corner(generator: np.random.Generator, points: int) -> Points:
    """A cluster, and one point in twenty near a member."""
    rare = points // 20
    return np.concatenate([near(generator, points - rare), near(generator, rare, 0.1, np.eye(MEMBERS)[:1])])


def mixture(generator: np.random.Generator, points: int) -> Points:
    """Half uniform, a quarter on a line, a quarter in a cluster."""
    return np.concatenate([uniform(generator, points // 2), line(generator, points // 4), near(generator, points // 4)])


def near_duplicates(generator: np.random.Generator, points: int) -> Points:
    """Twenty points, each many times, a millionth apart."""
    return np.concatenate([near(generator, points // 20, 1e-6) for _ in range(20)])


@dataclass(frozen=True)
class Kind:
    """A kind of request."""

    draw: Draw
    points: int = 200
    far: float = 1.0
    """How many times as far as the others the first member is."""
    law: str | None = None
    """Law of an error that is added to each exact loss."""


KINDS = {
    "uniform": Kind(uniform),
    "uniform, 600 points": Kind(uniform, points=600),
    "tiny region": Kind(near),
    "line": Kind(line),
    "line and its middle": Kind(line_and_middle),
    "clusters": Kind(clusters),
    "corners and faces": Kind(corners),
    "cluster and a rare corner": Kind(rare_corner),
    "mixture": Kind(mixture),
    "near-duplicates": Kind(near_duplicates),
    "one member far away": Kind(uniform, far=10.0),
    "normal errors": Kind(uniform, law="normal"),
    "lognormal errors": Kind(uniform, law="lognormal"),
    "mixed errors": Kind(uniform, law="mixed"),
    "a probe that jumps": Kind(uniform, law="jumps"),
}
LAWS: dict[str, Callable[[np.random.Generator, int], Float[np.ndarray, " points"]]] = {
    "normal": lambda generator, points: generator.normal(size=points),
    "lognormal": lambda generator, points: generator.lognormal(0.0, 1.0, points) * generator.choice([-1, 1], points),
    "mixed": lambda generator, points: generator.normal(size=points) * generator.choice([1, 10], points, p=[0.9, 0.1]),
}


class Simulated:
    """An encoder, a probe, labels and a law of errors, all drawn."""

    def __init__(self, generator: np.random.Generator, kind: Kind, points: Points):
        distances = np.array([kind.far] + [1.0] * (MEMBERS - 1))
        distances *= 10 ** generator.uniform(-1, 0) / np.sqrt(kind.far)
        self.maps = distances[:, None, None] * generator.normal(size=(MEMBERS, TEXTS, HIDDEN))
        self.offset = generator.normal(size=(TEXTS, HIDDEN))
        self.head = generator.normal(size=(HIDDEN, 2)).astype(np.float32)
        self.labels = generator.integers(0, 2, TEXTS)
        self.numbers = {row.tobytes(): number for number, row in enumerate(points)}
        self.passes = 0
        self.added = np.zeros(len(points), np.float32)
        self.jump_above = np.inf
        spread = float(np.ptp(self.scores(points).means))
        self.tolerance = 10 ** generator.uniform(-3, -1) * spread
        size = self.tolerance * 10 ** generator.uniform(-2, -0.5)
        if kind.law == "jumps":
            self.jump_above = float(
                np.median(self._spread(np.asarray(next(self.features(points))["test"]) @ self.head))
            )
            self.jump = size
        elif kind.law:
            self.added = (size * LAWS[kind.law](generator, len(points))).astype(np.float32)

    def features(self, coefficients: Points) -> Iterator[Features]:
        """The features of all points at once."""
        self.passes += len(coefficients)
        yield {"test": np.tanh(self.offset + np.tensordot(coefficients, self.maps, axes=1)).astype(np.float32)}

    def logits_of(self, features: Features) -> Float[np.ndarray, "points texts classes"]:
        """A linear head, with another scale on one side of the hull, as of a probe that chooses its penalty."""
        logits = np.asarray(features["test"]) @ self.head
        if np.isfinite(self.jump_above):
            logits = (
                logits + np.array([self.jump, 0], np.float32) * (self._spread(logits) > self.jump_above)[:, None, None]
            )
        return logits

    def scores(self, coefficients: Points) -> Scores:
        """Exact scores, with the law's errors."""
        scores = Scores.of(self.logits_of(next(self.features(coefficients))), self.labels)
        numbers = [self.numbers[row.tobytes()] for row in coefficients]
        return Scores(scores.losses + self.added[numbers, None], scores.predictions)

    @staticmethod
    def _spread(logits: Float[np.ndarray, "points texts classes"]) -> Float[np.ndarray, " points"]:
        return logits.std(axis=(1, 2))


def trial(name: str, seed: int) -> dict[str, float]:
    """Counts the points over their bounds in one request; the tolerance is 0.1 to 10 % of the losses' range."""
    kind = KINDS[name]
    generator = np.random.default_rng([seed, list(KINDS).index(name)])
    points = kind.draw(generator, kind.points)
    world = Simulated(generator, kind, points)
    exact = world.scores(points).means
    world.passes = 0
    answers = answer_hull(
        points,
        world,
        world.logits_of,
        partial(Scores.of, labels=world.labels),
        tolerance=world.tolerance,
        held_out=held_out_points(len(points)),
        degree=None,
        generator=generator,
    )
    errors = np.abs(answers.scores.means - exact)
    own = answers.degrees > 0
    return {
        "points": len(points),
        "answered": int(own.sum()),
        "over": int((errors > answers.error_bounds)[own].sum()),
        "mean_over": bool(own.any() and errors.mean() > answers.error_bounds.mean()),
        "worst": float((errors[own] / world.tolerance).max(initial=0.0)),
        "not_finite": int((~np.isfinite(answers.scores.losses)).sum()),
        "bound_over_error": float(answers.error_bounds.sum() / max(errors.sum(), 1e-12)),
        "passes": world.passes,
    }


HEADER = """| request | used | answered | passes | points over | means over | largest error | bound / error |
|---|---|---|---|---|---|---|---|"""
WHOLE = ("share_of_points_answered", "share_of_forward_passes")
PRECISE = ("points_over_their_bound", "requests_with_mean_over_its_bound")


def rates(name: str, seeds: int) -> dict[str, float]:
    """Returns how often bounds were exceeded in requests of one kind."""
    began = time.perf_counter()
    trials = [trial(name, seed) for seed in range(seeds)]
    used = [each for each in trials if each["answered"]]
    answered = sum(each["answered"] for each in used)
    return {
        "requests": seeds,
        "requests_with_a_surrogate": len(used),
        "share_of_points_answered": answered / sum(each["points"] for each in trials),
        "share_of_forward_passes": sum(each["passes"] for each in trials) / sum(each["points"] for each in trials),
        "points_over_their_bound": sum(each["over"] for each in used) / max(answered, 1),
        "requests_with_mean_over_its_bound": sum(each["mean_over"] for each in used) / max(len(used), 1),
        "largest_error_in_tolerances": max(each["worst"] for each in trials),
        "median_of_mean_bound_over_mean_error": float(np.median([each["bound_over_error"] for each in used])),
        "numbers_not_finite": sum(each["not_finite"] for each in trials),
        "seconds": round(time.perf_counter() - began, 1),
    }


def main(arguments: list[str]) -> None:
    """Prints a table and appends the rates to a file."""
    seeds = int(arguments[1]) if len(arguments) > 1 else 1000
    print(HEADER)
    for name in arguments[3:] or KINDS:
        row = {"kind": name, **rates(name, seeds), "level": LEVEL}
        print(table_line(row), flush=True)
        if len(arguments) > 2:
            with Path(arguments[2]).open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def table_line(row: dict) -> str:
    """A row of rates as in the table of docs/surrogate.md."""
    shares = (row["requests_with_a_surrogate"] / row["requests"], *(row[name] for name in WHOLE))
    cells = (
        row["kind"],
        *(f"{100 * share:.0f} %" for share in shares),
        *(f"{100 * row[name]:.1f} %" for name in PRECISE),
        *(f"{row[name]:.1f}" for name in ("largest_error_in_tolerances", "median_of_mean_bound_over_mean_error")),
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    app.run(main)
