"""How long must members be trained until they reach the rim, and points between them are better? (14, beyond the paper)

Command:  python -m experiments.training_length --preset=packaged
Cost:     126 members of 4 to 80 steps, 518 points (packaged); see README.md beside this file
Expect:   not in the paper, whose members are trained for up to 10 epochs: In' beats In, past the members the loss rises
"""

from dataclasses import dataclass

from experiments.launcher import Found, launch
from wsr.studies.harness.lab import Lab
from wsr.studies.harness.preset import Preset
from wsr.studies.harness.work import Work
from wsr.studies.training_length import LengthSizes, training_length


@dataclass(frozen=True)
class Settings:
    """Values of this experiment."""

    seeds: int
    """Number of members per target and length."""
    lengths: tuple[float, ...]
    """Lengths of training, in epochs."""
    interior: int
    """Number of In' points per target and length."""
    random_directions: int
    """Number of random directions from the centroid."""


SETTINGS = {
    "smoke": Settings(2, (4.0, 6.0), 2, 1),
    "packaged": Settings(3, (0.5, 2.0, 10.0), 3, 2),
    "paper": Settings(5, (0.5, 1.0, 2.0, 5.0, 10.0), 5, 4),
}


def main(lab: Lab, settings: Settings) -> Found:
    """Trains a population of the targets for each length and looks at the rim of each."""
    targets = lab.preset.targets
    populations = {
        length: lab.context(
            lab.population(lab.jobs(seeds=settings.seeds, datasets=targets, epochs=length), unlearned=True)
        )
        for length in settings.lengths
    }
    return [training_length(populations, LengthSizes(settings.interior, settings.random_directions))]


def work(preset: Preset, settings: Settings) -> Work:
    """What it would train and evaluate: In, past them, In', their centroid, Ex; the pretrained model once a target."""
    targets, lengths = len(preset.targets), len(settings.lengths)
    each = 2 * settings.seeds + settings.interior + 1 + settings.random_directions
    own = [length for length in settings.lengths if length != preset.epochs]
    return Work(
        members=settings.seeds * targets * lengths,
        points=targets * (lengths * each + 1),
        epochs=sum(own) / len(own) if own else None,
        own_members=settings.seeds * targets * len(own),
        datasets=preset.targets,
    )


if __name__ == "__main__":
    launch(main, SETTINGS, work)
