"""What learned coefficients gain on new texts where the truth is known: a simulation of many populations.

python -m benchmarks.learned_simulated [SEEDS [FILE]]

The logit of a text is a linear function of tanh of a linear function of the coefficients, which no polynomial equals.
Labels are drawn from the logits of a hidden point of the hull, times a signal. Every way chooses on the same validation
texts with as many forward passes as the greedy soup takes, or four times as many (the greedy soup has no use for more).
A gain is how far the loss on 4,000 other texts is below the centroid's, with a 95 % interval over populations. "Lowest
loss" is what ``learned`` would be without its cross-validation.
"""

import dataclasses
from pathlib import Path

import numpy as np
from absl import app, logging
from jaxtyping import Float

from benchmarks.learned import PASSES_OF_A_STEP
from wsr.data.dataset import Dataset
from wsr.data.load import load_dataset
from wsr.engine.hull_search import search
from wsr.engine.learned_coefficients import LEARNING_RATES
from wsr.models.load import load
from wsr.statistics.interval import mean_interval
from wsr.store.results import write_rows

MEMBERS, HIDDEN, NEW = 15, 8, 4000
GREEDY = 2 * MEMBERS - 1
PASSES = (GREEDY, 4 * GREEDY)
COLUMNS = ("greedy soup", "gradients", "lowest loss", "learned", "learned less greedy soup", "learned less gradients")

Point = Float[np.ndarray, " members"]


class Population:
    """Members and texts at random; the first ``validation`` texts choose, the others judge."""

    def __init__(self, seed: int, validation: int, signal: float):
        draw, texts = np.random.default_rng([seed, validation]), validation + NEW
        self.offset, self.head = draw.normal(size=(texts, HIDDEN)), draw.normal(size=HIDDEN)
        self.maps = 0.6 * draw.normal(size=(MEMBERS, texts, HIDDEN))
        chances = 1 / (1 + np.exp(-signal * self._hidden(draw.dirichlet(np.full(MEMBERS, 0.3))) @ self.head))
        self.labels = (draw.random(texts) < chances).astype(np.int32)
        self.validation = validation

    def outputs(self, points: Float[np.ndarray, "points members"]) -> list[Float[np.ndarray, "points texts 1"]]:
        """The logits of the validation texts."""
        return [np.stack([(self._hidden(own) @ self.head)[: self.validation] for own in points])[..., None]]

    def losses(self, point: Point) -> tuple[float, float]:
        """Mean loss on the validation texts and on new texts."""
        signed = np.where(self.labels, -1, 1) * (self._hidden(point) @ self.head)
        losses = np.log1p(np.exp(signed))
        return float(losses[: self.validation].mean()), float(losses[self.validation :].mean())

    def gradient(self, point: Point) -> Point:
        """Gradient of the validation loss."""
        texts = slice(self.validation)
        hidden, signs = self._hidden(point)[texts], np.where(self.labels, -1, 1)[texts]
        weights = signs / (1 + np.exp(-signs * (hidden @ self.head))) / self.validation
        return np.einsum("t,th,mth->m", weights, (1 - hidden**2) * self.head, self.maps[:, texts])

    def _hidden(self, point: Point) -> Float[np.ndarray, "texts hidden"]:
        return np.tanh(self.offset + np.tensordot(point, self.maps, axes=1))


def gains(seed: int, validation: int, signal: float, dataset: Dataset) -> dict[int, dict[str, float]]:
    """Returns how far each way's loss on new texts is below the centroid's in one population, by number of passes.

    Args:
      seed: seed of the population.
      validation: number of validation texts.
      signal: factor of the hidden logits.
      dataset: any dataset of two classes; its labels are replaced.
    """
    world = Population(seed, validation, signal)
    split = dataset.splits["test"]
    split = dataclasses.replace(split.take(np.arange(validation) % len(split)), labels=world.labels[:validation])
    judged = dataset.with_split("test", split)
    centroid, greedy, each = world.losses(np.full(MEMBERS, 1 / MEMBERS))[1], _greedy(world), {}
    for passes in PASSES:
        found = search(world.outputs, [judged], MEMBERS, points=passes - MEMBERS)
        points = {
            "greedy soup": greedy,
            "gradients": _by_gradients(world, (passes - 1) // PASSES_OF_A_STEP),
            "lowest loss": found.points[found.order[0]],
            "learned": found.coefficients,
        }
        own = {name: centroid - world.losses(point)[1] for name, point in points.items()}
        less = {f"learned less {rival}": own["learned"] - own[rival] for rival in ("greedy soup", "gradients")}
        each[passes] = own | less
    return each


def _greedy(world: Population) -> Point:
    """The greedy soup."""
    alone = [world.losses(own)[0] for own in np.eye(MEMBERS)]
    first, *others = np.argsort(alone, kind="stable").tolist()
    soup, best = [first], alone[first]
    for member in others:
        loss = world.losses(np.eye(MEMBERS)[[*soup, member]].mean(axis=0))[0]
        if loss <= best:
            soup, best = [*soup, member], loss
    return np.eye(MEMBERS)[soup].mean(axis=0)


def _by_gradients(world: Population, steps: int) -> Point:
    """The best of the points that Adam visits from the centroid, as ``learn_coefficients`` does in a hull."""
    logits, first, second = np.zeros((3, MEMBERS))
    visited = []
    for step in range(1, steps + 2):
        point = np.exp(logits - logits.max())
        point /= point.sum()
        visited.append(point)
        slope = world.gradient(point)
        slope = point * (slope - point @ slope)
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        scaled = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        logits = logits - LEARNING_RATES["hull"] * scaled
    return min(visited, key=lambda own: world.losses(own)[0])


def main(arguments: list[str]) -> None:
    """Prints the table and writes its rows."""
    logging.set_verbosity(logging.WARNING)
    populations = int(arguments[1]) if len(arguments) > 1 else 20
    dataset, rows = load_dataset("made_up_a1", load("tiny").processor, max_length=48), []
    print(f"| validation texts | signal | passes | {' | '.join(COLUMNS)} |\n{'|---' * (len(COLUMNS) + 3)}|")
    for validation in (100, 300):
        for signal in (0.5, 1.0, 2.0):
            each = [gains(seed, validation, signal, dataset) for seed in range(populations)]
            for passes in PASSES:
                cells = []
                for column in COLUMNS:
                    mean = mean_interval(np.array([own[passes][column] for own in each]))
                    cells.append(f"{mean.value:+.4f} ({mean.low:+.4f} to {mean.high:+.4f})")
                    row = {"validation_texts": validation, "signal": signal, "passes": passes, "what": column}
                    row |= {"value": mean.value, "low": mean.low, "high": mean.high, "populations": populations}
                    rows.append(row)
                print(f"| {validation} | {signal:g} | {passes} | {' | '.join(cells)} |", flush=True)
    if len(arguments) > 2:
        write_rows(Path(arguments[2]), rows)


if __name__ == "__main__":
    app.run(main)
