"""Which start is best to fine-tune from, and does `wsr suggest` find it? (21, beyond the paper)

Command:  python -m experiments.which_start --preset=packaged
Cost:     70 members of the shared population, short trainings from each of about 16 starts; see README.md beside this
          file
Expect:   not in the paper, which starts from the centroid of all members
"""

from dataclasses import dataclass, replace

from experiments.launcher import Found, launch
from wsr.studies.few_shot import bitfit
from wsr.studies.harness.lab import Lab
from wsr.studies.harness.preset import Preset
from wsr.studies.harness.work import Work
from wsr.studies.which_start import Plan, count_starts, which_start


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
    short_epochs: float
    """Least number of passes over the examples; a training makes at least 40 steps."""
    short_batch_size: int
    """Number of texts per step."""
    bitfit_learning_rate: float
    """Highest learning rate of BitFit."""
    full_learning_rate: float
    """Highest learning rate of training everything."""


SETTINGS = {
    "smoke": Settings(2, 1, (16,), 0, 1.0, 16, 3e-3, 1e-3),
    "packaged": Settings(5, 1, (32, 512), 1024, 2.0, 16, 3e-3, 5e-5),
    "paper": Settings(5, 3, (32, 512), 0, 5.0, 16, 5e-4, 5e-5),
}


def main(lab: Lab, settings: Settings) -> Found:
    """Trains each target from every start, on each number of examples."""
    region = lab.population(lab.jobs(seeds=settings.seeds))
    drawn_from = lab.with_preset(finetune_texts=settings.drawn_from or lab.preset.finetune_texts)
    return [which_start(drawn_from.context(region), plan(lab.preset, settings))]


def plan(preset: Preset, settings: Settings) -> Plan:
    """How the starts are compared."""
    biases = bitfit(
        preset,
        learning_rate=settings.bitfit_learning_rate,
        batch_size=settings.short_batch_size,
        epochs=settings.short_epochs,
    )
    full = replace(biases, mode="full", learning_rate=settings.full_learning_rate)
    return Plan(settings.sizes, settings.runs, biases, full, preset.protocol.inverse_l2)


def work(preset: Preset, settings: Settings) -> Work:
    """What it would train and evaluate, besides the short trainings of the rules themselves."""
    texts = settings.drawn_from or preset.finetune_texts
    asked = plan(preset, settings)
    trainings = tuple(
        replace(
            asked.few_shot("bitfit", size).trainings([target], texts),
            starts=count_starts(target, preset.datasets, settings.seeds),
            modes=2,
        )
        for target in preset.targets
        for size in settings.sizes
    )
    return Work(settings.seeds * len(preset.datasets), 0, trainings)


if __name__ == "__main__":
    launch(main, SETTINGS, work)
