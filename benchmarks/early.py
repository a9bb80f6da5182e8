"""How often early answers are wrong, and what they save: a simulation where P_B is known. Prints the table of the docs.

The models are independent of one another; benchmarks/coverage.py simulates models that are not.

python -m benchmarks.early
"""

import math

import numpy as np
from absl import app
from scipy.stats import norm

from wsr.engine.early import Look, Size, look_in_rounds, schedule
from wsr.statistics.sources import Sources

FULL = Size(30, 16, 300)
INDEPENDENT = Sources.independent(FULL.models_a, "a"), Sources.independent(FULL.models_b, "b")
PROBE_TEXTS = 160
EVEN: dict[str, dict[str, float]] = {
    "one law": {},
    "a ten times as narrow as b": {"spread": 0.1},
    "a three times as wide as b": {"spread": 3.0},
    "a skewed": {"skewed": 1.0},
    "texts that suit one group": {"spread": 0.1, "spread_b": 0.1, "interaction": 1.0},
}
"""Laws with P_B one half: whichever group is named is the wrong one."""
SHIFTS = (0.5, 1.0, 1.5, 2.0, 4.0)
"""Group b is worse by so many standard deviations between models."""


def main(arguments: list[str]) -> None:
    """Prints both tables."""
    print(f"rounds: {[(size.models_a, size.models_b, size.texts) for size in schedule(FULL, INDEPENDENT, 0.95)]}\n")
    print("| law, P_B 0.5 | a group named | interval holds P_B |\n|---|---|---|")
    for name, law in EVEN.items():
        looks, _ = simulated_answers(300, **law)
        named = sum(look.better is not None for look in looks)
        print(f"| {name} | {_share(named, looks)} | {_share(_holding(looks, 0.5), looks)} |", flush=True)
    print(
        "\n| P_B | right group named | wrong group named | interval holds P_B | forward passes |\n|---|---|---|---|---|"
    )
    for shift in SHIFTS:
        looks, used = simulated_answers(300, shift=shift)
        right, wrong = (sum(look.better == group for look in looks) for group in "ab")
        truth = true_probability(shift)
        print(
            f"| {truth:.2f} | {_share(right, looks)} | {_share(wrong, looks)} "
            f"| {_share(_holding(looks, truth), looks)} | {100 * used:.0f} % |",
            flush=True,
        )


def simulated_answers(runs: int, *, confidence: float = 0.95, **law: float) -> tuple[list[Look], float]:
    """Returns the last look of each run, and the mean share of the forward passes of the full evaluation."""
    sizes = schedule(FULL, INDEPENDENT, confidence)
    last, used = [], []
    for seed in range(runs):
        generator = np.random.default_rng(seed)
        a, b = simulated_losses(generator, **law)

        def first(size: Size, a: np.ndarray = a, b: np.ndarray = b) -> tuple[np.ndarray, np.ndarray]:
            return a[: size.models_a, : size.texts], b[: size.models_b, : size.texts]

        last.append(look_in_rounds(first, sizes, INDEPENDENT, confidence, generator)[-1])
        used.append(_passes(last[-1].size) / _passes(FULL))
    return last, float(np.mean(used))


def simulated_losses(
    generator: np.random.Generator,
    *,
    spread: float = 1.0,
    spread_b: float = 1.0,
    shift: float = 0.0,
    interaction: float = 0.0,
    skewed: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Losses of two groups: an effect of each model, one of each text, one of each text on group a, and noise."""

    def normal(models: int, texts: int) -> np.ndarray:
        return generator.normal(size=(models, texts))

    models_a, models_b, texts = FULL.models_a, FULL.models_b, FULL.texts
    effect = np.exp(normal(models_a, 1)) - 1 if skewed else normal(models_a, 1)
    text = normal(1, texts)
    a = spread * effect + text + interaction * normal(1, texts) + 0.5 * normal(models_a, texts)
    b = spread_b * normal(models_b, 1) + text + 0.5 * normal(models_b, texts) + shift
    return a, b


def true_probability(shift: float) -> float:
    """P_B of the law with this shift on endless texts."""
    return float(norm.cdf(shift / math.sqrt(2)))


def _passes(size: Size) -> int:
    return (size.models_a + size.models_b) * (PROBE_TEXTS + size.texts)


def _holding(looks: list[Look], truth: float) -> int:
    return sum(look.low <= truth <= look.high for look in looks)


def _share(count: int, looks: list[Look]) -> str:
    return f"{100 * count / len(looks):.1f} %"


if __name__ == "__main__":
    app.run(main)
