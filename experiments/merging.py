"""Which way to merge members is best, on populations of many kinds, and can one know beforehand whether it will help?

Command:  python -m experiments.merging --preset=packaged
Cost:     34 populations of 2 to 4 members, merged by 37 methods (packaged); --dry_run says the rest
Expect:   not in the paper, whose merged model is the centroid

`wsr bench-merging` does the same for the members of one store. See docs/merging.md.
"""

from dataclasses import dataclass
from typing import Any

from experiments.launcher import Found, launch
from wsr.data.load import spec_of
from wsr.studies.harness.lab import Lab
from wsr.studies.harness.preset import Preset
from wsr.studies.harness.work import Work
from wsr.studies.merged_models import Effort
from wsr.studies.merged_populations import Population
from wsr.studies.merging import merging, methods_compared
from wsr.studies.merging_draws import LONG, LORA, SHORT, Draw, drawn_populations
from wsr.studies.merging_work import work_of
from wsr.training.members import member_name


@dataclass(frozen=True)
class Settings:
    """Values of this experiment."""

    each: int
    """Number of populations of each kind but one dataset, which has one for each dataset."""
    one_dataset: tuple[str, ...]
    """Datasets with a population of their own; none for all."""
    sizes: tuple[int, ...]
    """Numbers of members of a population, which take turns."""
    short_epochs: float
    """Epochs of short training."""
    long_epochs: float
    """Epochs of long training."""
    lora_epochs: float
    """Epochs of LoRA."""
    lora_learning_rate: float
    """Highest learning rate of LoRA."""
    methods: tuple[str, ...]
    """Merge methods; none for all. The average is always one of them."""
    budget: int
    """Number of options that each method with any to choose tries."""
    densities: tuple[float, ...]
    """Lowest and highest fraction of the entries that sparse methods keep."""
    scales: tuple[float, ...]
    """Lowest and highest scale of the merged task vector, as a multiple of an average."""
    steps: int
    """Number of gradient steps of AdaMerging."""
    learned_points: int
    """Number of points that learned coefficients evaluate besides the members."""
    learned_steps: int
    """Number of gradient steps of free learned coefficients."""
    texts: int
    """Number of texts that Fisher, RegMean and AdaMerging read from each dataset."""

    @property
    def effort(self) -> Effort:
        """How much is tried."""
        return Effort(
            self.budget,
            self.densities,
            self.scales,
            self.steps,
            self.learned_points,
            self.learned_steps,
            self.texts,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The methods."""
        return tuple(name for name in methods_compared() if not self.methods or name in (*self.methods, "uniform"))

    def draws(self, preset: Preset) -> list[Draw]:
        """Which members make the populations."""
        specs = {name: spec_of(name) for name in preset.datasets}
        families = {name: spec.family for name, spec in specs.items() if spec.classes != 1}  # 1: numbers, not classes
        return drawn_populations(families, self.sizes, self.each, preset.seed, one_dataset=self.one_dataset)

    def recipe(self, kind: str) -> dict[str, Any]:
        """How the members of a kind are trained, where it differs from the preset."""
        changes: dict[str, dict[str, Any]] = {
            SHORT: {"epochs": self.short_epochs},
            LONG: {"epochs": self.long_epochs},
            LORA: {"mode": "lora", "learning_rate": self.lora_learning_rate, "epochs": self.lora_epochs},
        }
        return changes.get(kind, {})


SETTINGS = {
    "smoke": Settings(
        1,
        ("made_up_a1",),
        (2,),
        2.0,
        6.0,
        6.0,
        3e-2,
        ("task_arithmetic", "tsv_m", "greedy", "learned", "learned_free", "fisher", "adamerging"),
        2,
        (0.5, 0.5),
        (1.0, 2.0),
        2,
        3,
        1,
        8,
    ),
    "packaged": Settings(4, (), (2, 3, 4), 1.0, 10.0, 10.0, 2e-3, (), 4, (0.1, 0.5), (1.0, 3.0), 10, 12, 4, 64),
    "paper": Settings(
        4,
        ("mnli", "rte", "sst2", "cola"),
        (2, 4),
        1.0,
        10.0,
        10.0,
        5e-4,
        (),
        4,
        (0.1, 0.5),
        (1.0, 3.0),
        100,
        30,
        10,
        256,
    ),
}


def main(lab: Lab, settings: Settings) -> Found:
    """Trains the members of each kind, merges the populations and ranks the methods."""
    draws = settings.draws(lab.preset)
    populations = [own for kind_draws in _by_recipe(settings, draws) for own in _populations(lab, settings, kind_draws)]
    names = list(dict.fromkeys(name for draw in draws for name, _ in draw.members))
    context = lab.context(populations[0].region.emptied(), names)
    return merging(context, populations, settings.names, settings.effort)


def _by_recipe(settings: Settings, draws: list[Draw]) -> list[list[Draw]]:
    groups: dict[str, list[Draw]] = {}
    for draw in draws:
        groups.setdefault(repr(settings.recipe(draw.kind)), []).append(draw)
    return list(groups.values())


def _populations(lab: Lab, settings: Settings, draws: list[Draw]) -> list[Population]:
    """The populations of one recipe; members that did not learn are left out of them."""
    wanted = {member for draw in draws for member in draw.members}
    names, seeds = list(dict.fromkeys(name for name, _ in sorted(wanted))), 1 + max(seed for _, seed in wanted)
    jobs = [
        job
        for job in lab.jobs(seeds=seeds, datasets=names, **settings.recipe(draws[0].kind))
        if (job.dataset.name, job.seed) in wanted
    ]
    region, heads = lab.population(jobs), lab.heads(jobs)
    called = {(job.dataset.name, job.seed): member_name(job) for job in jobs}
    found = []
    for draw in draws:
        own = [called[member] for member in draw.members]
        kept = region.where(lambda member, own=own: member.name in own)  # type: ignore[misc]
        found.append(Population(draw.kind, draw.name, kept, {name: heads[name] for name in kept.names}))
    return found


def work(preset: Preset, settings: Settings) -> Work:
    """What it would train and evaluate; the merges themselves come on top."""
    return work_of(preset, settings.draws(preset), settings.recipe, settings.names, settings.effort)


if __name__ == "__main__":
    launch(main, SETTINGS, work)
