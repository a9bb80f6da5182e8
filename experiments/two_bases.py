"""Do members fine-tuned from two pretrainings of one architecture cluster by checkpoint? (claim 11)

Command:  python -m experiments.two_bases --preset=packaged
Cost:     two small pretrainings (experiments/pretrain.py) and 84 members of theirs; see README.md beside this file
Expect:   yes: in the paper, models from two RoBERTa-base pretrainings cluster by checkpoint
"""

from dataclasses import dataclass

from experiments.launcher import Found, launch
from wsr.studies.harness.lab import Lab
from wsr.studies.harness.preset import Preset
from wsr.studies.harness.pretrained import PLANS, members_need, pretrained, said_of
from wsr.studies.harness.work import Work
from wsr.studies.two_bases import two_bases


@dataclass(frozen=True)
class Settings:
    """Values of this experiment."""

    seeds: int
    """Number of members per dataset."""
    bases: tuple[str, ...]
    """Two checkpoints; none to pretrain two from seeds 0 and 1."""
    pretraining: str
    """Name of the pretraining preset: smoke or packaged."""
    examples: int
    """Number of examples on which a member is fine-tuned, because a weak encoder needs more; 0 for --finetune_texts."""
    passes: float
    """Number of passes over the examples; 0 for --epochs."""
    rate: float
    """Highest learning rate of the encoder; 0 for --learning_rate."""


SETTINGS = {
    "smoke": Settings(2, (), "smoke", 0, 0.0, 0.0),
    "packaged": Settings(3, (), "packaged", 1024, 6.0, 1e-3),
    "paper": Settings(5, ("roberta-base", "nyu-mll/roberta-base-1B-1"), "", 0, 0.0, 0.0),
}


def main(lab: Lab, settings: Settings) -> Found:
    """Trains a population from each checkpoint and clusters them together."""
    bases = settings.bases
    what: list[str] = []
    if not bases:
        corpus, plan = PLANS[settings.pretraining]
        folders = [lab.shelf / f"pretrained-{settings.pretraining}-{seed}" for seed in (0, 1)]
        bases = tuple(str(pretrained(folder, corpus, plan, seed=seed)) for seed, folder in enumerate(folders))
        what = [
            f"Each checkpoint is {said_of(corpus, plan)}. The two differ in the seed of parameters, order and masks, "
            "and share tokenizer, texts and recipe. This tests geometry and no useful model."
        ]
    regions = {}
    for number, base in enumerate(bases, start=1):
        own = lab.with_preset(base=base, **_needed(lab.preset, settings))
        regions[f"checkpoint {number}"] = own.population(own.jobs(seeds=settings.seeds))
    return [two_bases(regions, what, seed=lab.preset.seed, command=lab.command)]


def work(preset: Preset, settings: Settings) -> Work:
    """What it would train and evaluate."""
    each = settings.seeds * len(preset.datasets)
    needed = _needed(preset, settings)
    usual = all(getattr(preset, name) == value for name, value in needed.items())
    own = sum(not usual or base != preset.base for base in settings.bases or ("", ""))
    return Work(
        members=2 * each,
        points=0,
        epochs=needed["epochs"],
        own_members=own * each,
        own_texts=needed["finetune_texts"] or None,
    )


def _needed(preset: Preset, settings: Settings) -> dict[str, int | float]:
    return members_need(preset, texts=settings.examples, passes=settings.passes, rate=settings.rate)


if __name__ == "__main__":
    launch(main, SETTINGS, work)
