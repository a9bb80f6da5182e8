"""Does the centroid help most as a start where examples are few? (claim 10)

Command:  python -m experiments.few_shot --preset=packaged
Cost:     70 members; 1,344 short trainings from a start (packaged); see README.md beside this file
Expect:   with at most 1,000 examples the paper's BitFit gains 10.66 points of accuracy on average, perhaps because its
          centroid was trained on all data: the centroid's row is the same in both of the paper's tables
"""

from dataclasses import dataclass

from experiments.launcher import Found, launch
from wsr.studies.centroid_start import centroid_start
from wsr.studies.few_shot import FewShot, bitfit
from wsr.studies.fewer_examples import fewer_examples
from wsr.studies.harness.lab import Lab
from wsr.studies.harness.preset import GENERAL, TWELVE, Preset
from wsr.studies.harness.work import Work


@dataclass(frozen=True)
class Settings:
    """Values of this experiment."""

    seeds: int
    """Number of members per dataset."""
    runs: int
    """Number of trainings from each start, each on its own examples."""
    sizes: tuple[int, ...]
    """Numbers of examples to train on."""
    drawn_from: int
    """Largest number of examples of a target from which these are drawn; 0 for --finetune_texts."""
    bitfit_epochs: float
    """Least number of passes of BitFit over the examples; it makes at least 40 steps."""
    bitfit_batch_size: int
    """Number of texts per step of BitFit."""
    bitfit_learning_rate: float
    """Highest learning rate of BitFit."""
    averaged: tuple[str, ...] = ()
    """Datasets whose members are averaged, for a target without its own; none for the preset's."""
    starts_on: tuple[str, ...] = ()
    """Targets to train on; none for the preset's."""


SETTINGS = {
    "smoke": Settings(2, 2, (16, 32), 0, 2.0, 16, 3e-3),
    "packaged": Settings(5, 8, (32, 96, 256), 1024, 5.0, 16, 3e-3),
    "paper": Settings(5, 5, (100, 300, 1000), 0, 10.0, 32, 5e-4, GENERAL, TWELVE),
}


def main(lab: Lab, settings: Settings) -> Found:
    """Trains on a few examples of each target from both starts, for each size, and compares the sizes."""
    region = lab.population(lab.jobs(seeds=settings.seeds, datasets=settings.averaged or None))
    drawn_from = lab.with_preset(finetune_texts=settings.drawn_from or lab.preset.finetune_texts)
    context = drawn_from.context(region, settings.starts_on or None)
    found = [centroid_start(context, plan) for plan in plans(lab.preset, settings)]
    if len(found) > 1:
        found.append(fewer_examples(context, [row for rows, _ in found for row in rows]))
    return found


def plans(preset: Preset, settings: Settings) -> list[FewShot]:
    """How the starts are compared, for each number of examples."""
    recipe = bitfit(
        preset,
        learning_rate=settings.bitfit_learning_rate,
        batch_size=settings.bitfit_batch_size,
        epochs=settings.bitfit_epochs,
    )
    return [FewShot(size, settings.runs, recipe, inverse_l2=preset.protocol.inverse_l2) for size in settings.sizes]


def work(preset: Preset, settings: Settings) -> Work:
    """What it would train and evaluate: two starts, two ways to train."""
    datasets, targets = settings.averaged or preset.datasets, settings.starts_on or preset.targets
    texts = settings.drawn_from or preset.finetune_texts
    trainings = tuple(plan.trainings(targets, texts) for plan in plans(preset, settings))
    return Work(settings.seeds * len(datasets), 0, trainings, datasets=datasets)


if __name__ == "__main__":
    launch(main, SETTINGS, work)
