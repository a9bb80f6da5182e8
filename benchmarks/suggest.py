"""How often the intervals of ``wsr suggest`` hold and the truly best start is named. Prints the table of the docs.

The tiny encoder, members of made-up datasets, and new made-up datasets of their families. The features of 2,000 texts
under every start are worked out once; from them samples of a few texts are drawn again and again. The truth is the mean
loss, over other texts, of probes fitted on such samples.

python -m benchmarks.suggest
"""

import numpy as np
from absl import app

from wsr.data.dataset import AnySplit, Dataset
from wsr.data.examples import Columns
from wsr.data.load import load_dataset
from wsr.data.made_up import MadeUp
from wsr.data.table import DatasetSpec, register
from wsr.engine.evaluate import Protocol, score_features
from wsr.engine.region_features import region_features
from wsr.engine.suggest import FOLDS, against_the_best, fitted_across, labelled, starts
from wsr.models import Checkpoint, load
from wsr.region.region import Region, from_params
from wsr.runtime import seeds
from wsr.training import Job, Recipe, finetune

SIZES = (40, 100, 200, 400)
DRAWS = 60
TRUTH = 40
CONFIDENCE = 0.95


def main(arguments: list[str]) -> None:
    """Prints the table."""
    base = load("tiny")
    region = trained(base)
    count = len(starts(region))
    print(f"{count} starts, {DRAWS} draws, confidence {CONFIDENCE}\n")
    columns = (
        "data of",
        "texts",
        "all intervals hold",
        "the lowest is the best",
        "above the best",
        "upper end",
        "named",
    )
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for family in ("made_up_a", "made_up_b", "made_up_c"):
        dataset = new_dataset(base, family)
        for size in SIZES:
            print(f"| {family} | {size} | {measured(region, dataset, size)} of {count} |", flush=True)


def trained(base: Checkpoint) -> Region:
    """A population of four datasets of two families, two seeds each; nobody of the family made_up_c."""
    data = [
        load_dataset(name, base.processor, max_length=48)
        for name in ("made_up_a1", "made_up_a2", "made_up_b1", "made_up_b2")
    ]
    recipe = Recipe(learning_rate=0.01, batch_size=32, epochs=4.0, warmup=0.006)
    jobs = [Job(own, seed, recipe) for own in data for seed in range(2)]
    region = Region(base.model, base.params, [], base_sha256="tiny")
    for member in finetune(base.model, base.params, jobs, chunk=1):
        own, dataset = member.job, member.job.dataset
        params = {f"{dataset.name} {own.seed}": member.params}
        region = region.joined(
            from_params(base.model, base.params, params, dataset=dataset.name, family=dataset.family).members
        )
    return region


def new_dataset(base: Checkpoint, family: str) -> Dataset:
    """A dataset of a family that nobody was trained on, with fewer telling words than theirs."""
    name = f"{family}_new"
    register(DatasetSpec(name, family, MadeUp(family, name, texts=2000, signal=0.3), Columns("text"), classes=2))
    return load_dataset(name, base.processor, max_length=48)


def measured(region: Region, dataset: Dataset, size: int) -> str:
    """Draws samples and returns what came of them, as cells of the table."""
    protocol = Protocol(inverse_l2=1.0)  # choosing C by cross-validation would take many times as long
    draw = seeds.generator(0, "benchmark of suggest", dataset.name, size)
    everything = labelled(dataset, 10**6, draw)
    rows = np.stack([start.coefficients for start in starts(region)])
    features = np.empty((len(rows), len(everything), region.model.hidden), np.float32)
    for numbers, found in region_features(region, rows, {"all": everything}):
        features[numbers] = np.asarray(found["all"])[: len(numbers)]
    truth = np.mean(
        [_loss_elsewhere(features, everything, dataset, size, draw, protocol) for _ in range(TRUTH)], axis=0
    )
    best = int(truth.argmin())
    held, right, regret, upper, many = 0, 0, 0.0, 0.0, 0
    for _ in range(DRAWS):
        sample = draw.choice(len(everything), size, replace=False)
        losses, _ = fitted_across(features[:, sample], everything.take(sample), dataset, protocol)
        _, low, high = against_the_best(losses, CONFIDENCE, draw)
        lowest = int(losses.mean(axis=1).argmin())
        held += bool(((low <= truth - truth[best]) & (truth - truth[best] <= high)).all())
        right += lowest == best
        regret += truth[lowest] - truth[best]
        upper += high[lowest]
        many += int((low <= 0).sum())
    shares = f"{100 * held / DRAWS:.0f} % | {100 * right / DRAWS:.0f} %"
    return f"{shares} | {regret / DRAWS:.4f} | {upper / DRAWS:.3f} | {many / DRAWS:.1f}"


def _loss_elsewhere(
    features: np.ndarray,
    texts: AnySplit,
    dataset: Dataset,
    size: int,
    draw: np.random.Generator,
    protocol: Protocol,
) -> np.ndarray:
    """Mean loss of each start, by a probe fitted on as many texts as all folds but one hold."""
    order = draw.permutation(len(texts))
    fitted, others = order[: size * (FOLDS - 1) // FOLDS], order[size:]
    split = dataset.with_split("probe", texts.take(fitted)).with_split("test", texts.take(others))
    own = {"probe": features[:, fitted], "test": features[:, others]}
    return score_features(own, split, protocol)[0].mean(axis=1)


if __name__ == "__main__":
    app.run(main)
