"""Is the centroid a better start for BitFit, and for the head alone, than the pretrained model? (claim 9)

Command:  python -m experiments.centroid_start --preset=packaged
Cost:     70 members; 280 trainings from a start (packaged); see README.md beside this file
Expect:   the paper's BitFit gains 3.06 points of accuracy on average, and wins on 11 of 12 datasets
"""

from dataclasses import dataclass

from experiments.launcher import Found, launch
from wsr.studies.centroid_start import centroid_start
from wsr.studies.few_shot import FewShot, bitfit
from wsr.studies.harness.lab import Lab
from wsr.studies.harness.preset import GENERAL, TWELVE, Preset
from wsr.studies.harness.work import Work


@dataclass(frozen=True)
class Settings:
    """Values of this experiment."""

    seeds: int
    """Number of members per dataset."""
    runs: int
    """Number of trainings from each start."""
    examples: int
    """Largest number of examples of a target to train on; 0 for --finetune_texts."""
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
    "smoke": Settings(2, 2, 0, 1.0, 32, 3e-3),
    "packaged": Settings(5, 5, 1024, 2.0, 16, 3e-3),
    "paper": Settings(5, 5, 0, 10.0, 256, 5e-4, GENERAL, TWELVE),
}


def main(lab: Lab, settings: Settings) -> Found:
    """Trains on all data of each target from both starts."""
    region = lab.population(lab.jobs(seeds=settings.seeds, datasets=settings.averaged or None))
    targets = lab.with_preset(finetune_texts=settings.examples or lab.preset.finetune_texts)
    return [centroid_start(targets.context(region, settings.starts_on or None), plan(lab.preset, settings))]


def plan(preset: Preset, settings: Settings) -> FewShot:
    """How the starts are compared: on all examples."""
    recipe = bitfit(
        preset,
        learning_rate=settings.bitfit_learning_rate,
        batch_size=settings.bitfit_batch_size,
        epochs=settings.bitfit_epochs,
    )
    return FewShot(0, settings.runs, recipe, inverse_l2=preset.protocol.inverse_l2)


def work(preset: Preset, settings: Settings) -> Work:
    """What it would train and evaluate: two starts, two ways to train."""
    datasets = settings.averaged or preset.datasets
    texts = settings.examples or preset.finetune_texts
    trainings = plan(preset, settings).trainings(settings.starts_on or preset.targets, texts)
    return Work(settings.seeds * len(datasets), 0, (trainings,), datasets=datasets)


if __name__ == "__main__":
    launch(main, SETTINGS, work)
