"""Does the centroid gain more from a checkpoint that was pretrained and nothing else? (20, claims 9 and 10 again)

Command:  python -m experiments.plain_base --preset=packaged
Cost:     a pretraining of 60 to 80 minutes (experiments/pretrain.py), 140 members (70 of the shared population) and
          1,232 short trainings; see README.md beside this file
Expect:   the paper's checkpoint was pretrained only; that of the preset `packaged` was tuned to embed sentences
"""

from dataclasses import dataclass

from experiments.launcher import Found, launch
from wsr.studies.few_shot import FewShot, bitfit
from wsr.studies.harness.context import Context
from wsr.studies.harness.lab import Lab
from wsr.studies.harness.preset import GENERAL, TWELVE, Preset
from wsr.studies.harness.pretrained import PLANS, members_need, perplexity_told, pretrained, said_of
from wsr.studies.harness.work import Work
from wsr.studies.plain_base import plain_base


@dataclass(frozen=True)
class Settings:
    """Values of this experiment."""

    seeds: int
    """Number of members per dataset."""
    plain: str
    """Checkpoint that was pretrained and nothing else; empty to pretrain one from seed 0."""
    tuned: str
    """Checkpoint that was tuned to embed sentences; empty for --base."""
    pretraining: str
    """Name of the pretraining preset: smoke, packaged or packaged_large."""
    texts: int
    """Number of examples on which a member of the plain checkpoint is fine-tuned; 0 for --finetune_texts."""
    passes: float
    """Number of passes over these examples; 0 for --epochs."""
    rate: float
    """Highest learning rate of the encoder for these members; 0 for --learning_rate."""
    runs: int
    """Number of trainings from each start on few examples, each on its own examples."""
    sizes: tuple[int, ...]
    """Numbers of few examples."""
    few_epochs: float
    """Least number of passes of BitFit over few examples; it makes at least 40 steps."""
    examples: int
    """Largest number of examples of a target; 0 for --finetune_texts. Few examples are drawn from these."""
    all_runs: int
    """Number of trainings from each start on all of these examples."""
    all_epochs: float
    """Least number of passes of BitFit over all of these examples."""
    bitfit_batch_size: int
    """Number of texts per step of BitFit."""
    bitfit_learning_rate: float
    """Highest learning rate of BitFit."""
    averaged: tuple[str, ...] = ()
    """Datasets whose members are averaged, for a target without its own; none for the preset's."""
    starts_on: tuple[str, ...] = ()
    """Targets to train on; none for the preset's."""


SETTINGS = {
    "smoke": Settings(
        seeds=2,
        plain="",
        tuned="",
        pretraining="smoke",
        texts=0,
        passes=0.0,
        rate=0.0,
        runs=2,
        sizes=(16,),
        few_epochs=2.0,
        examples=0,
        all_runs=1,
        all_epochs=1.0,
        bitfit_batch_size=32,
        bitfit_learning_rate=3e-3,
    ),
    "packaged": Settings(
        seeds=5,
        plain="",
        tuned="",
        pretraining="packaged_large",
        texts=512,
        passes=4.0,
        rate=1e-3,
        runs=5,
        sizes=(32, 256),
        few_epochs=5.0,
        examples=1024,
        all_runs=1,
        all_epochs=2.0,
        bitfit_batch_size=16,
        bitfit_learning_rate=3e-3,
    ),
    "paper": Settings(
        seeds=5,
        plain="roberta-base",
        tuned="sentence-transformers/nli-roberta-base-v2",
        pretraining="",
        texts=0,
        passes=0.0,
        rate=0.0,
        runs=5,
        sizes=(1000,),
        few_epochs=10.0,
        examples=0,
        all_runs=1,
        all_epochs=10.0,
        bitfit_batch_size=32,
        bitfit_learning_rate=5e-4,
        averaged=GENERAL,
        starts_on=TWELVE,
    ),
}


def main(lab: Lab, settings: Settings) -> Found:
    """Trains each target from both checkpoints and both centroids, on each number of examples."""
    plain, what = settings.plain, ""
    if not plain:
        corpus, plan = PLANS[settings.pretraining]
        folder = pretrained(lab.shelf / f"pretrained-{settings.pretraining}-0", corpus, plan, seed=0)
        plain, what = str(folder), f"The checkpoint is {said_of(corpus, plan)}. {perplexity_told(folder)}"
    needed = members_need(lab.preset, texts=settings.texts, passes=settings.passes, rate=settings.rate)
    bases = (lab.with_preset(base=plain, **needed), lab.with_preset(base=settings.tuned or lab.preset.base))
    of_plain, of_tuned = (_context(own, settings, lab.preset) for own in bases)
    found = [plain_base(of_plain, of_tuned, plan, what) for plan in plans(lab.preset, settings)]
    return [*(alone for alone, _ in found), *(compared for _, compared in found)]


def _context(lab: Lab, settings: Settings, preset: Preset) -> Context:
    """The members of one checkpoint, and the targets, on which all trainings have the same examples."""
    region = lab.population(lab.jobs(seeds=settings.seeds, datasets=settings.averaged or None))
    drawn_from = lab.with_preset(finetune_texts=settings.examples or preset.finetune_texts)
    return drawn_from.context(region, settings.starts_on or None)


def plans(preset: Preset, settings: Settings) -> list[FewShot]:
    """How the starts are compared: on each number of few examples, then on all."""

    def planned(size: int, runs: int, epochs: float) -> FewShot:
        recipe = bitfit(
            preset,
            learning_rate=settings.bitfit_learning_rate,
            batch_size=settings.bitfit_batch_size,
            epochs=epochs,
        )
        return FewShot(size, runs, recipe, inverse_l2=preset.protocol.inverse_l2)

    few = [planned(size, settings.runs, settings.few_epochs) for size in settings.sizes]
    return [*few, planned(0, settings.all_runs, settings.all_epochs)]


def work(preset: Preset, settings: Settings) -> Work:
    """What it would train and evaluate: two checkpoints, two starts each, two ways to train."""
    datasets, targets = settings.averaged or preset.datasets, settings.starts_on or preset.targets
    needed = members_need(preset, texts=settings.texts, passes=settings.passes, rate=settings.rate)
    usual = all(getattr(preset, name) == value for name, value in needed.items())
    bases = [(settings.plain, usual), (settings.tuned or preset.base, True)]
    each = settings.seeds * len(datasets)
    own = sum(not usual or base != preset.base for base, usual in bases)
    texts = settings.examples or preset.finetune_texts
    trainings = tuple(plan.trainings(targets, texts) for plan in plans(preset, settings))
    return Work(
        members=2 * each,
        points=0,
        few_shot=2 * trainings,
        epochs=needed["epochs"],
        own_members=own * each,
        own_texts=needed["finetune_texts"] or None,
        datasets=datasets,
    )


if __name__ == "__main__":
    launch(main, SETTINGS, work)
