"""The demo: a population fine-tuned from a real encoder on real text, mapped, evaluated between its members, and turned
into a better starting point, in minutes on two CPU cores."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import jaxlib
import numpy as np

import wsr
from wsr.data.dataset import Dataset
from wsr.data.load import load_dataset
from wsr.engine.evaluate import Protocol
from wsr.errors import WsrError
from wsr.geometry.sampling import extrapolation_alphas
from wsr.models.load import load
from wsr.models.precision import Precision, quickest
from wsr.region.learned import learned_region
from wsr.report.document import Document, Section
from wsr.runtime.atomic import write_atomically
from wsr.store import Store
from wsr.store.results import Results, write_rows
from wsr.studies.centroid_start import centroid_start
from wsr.studies.convex_hull import Sizes, groups
from wsr.studies.few_shot import FewShot
from wsr.studies.harness.context import Context
from wsr.studies.harness.members import members_section
from wsr.studies.harness.plan import same_plan_or_refuse
from wsr.studies.lines import extrapolation, lines
from wsr.studies.random_directions import random_directions
from wsr.studies.same_dataset_clusters import clusters
from wsr.training import Job, Recipe
from wsr.training.members import train_members


@dataclass(frozen=True)
class DemoPlan:
    """Everything that determines the demo's numbers."""

    base: str
    pooling: str
    datasets: tuple[str, ...]
    """Datasets of at least two families, and an outsider."""
    group_targets: tuple[str, ...]
    start_targets: tuple[str, ...]
    seeds: int
    recipe: Recipe
    max_length: int
    split_sizes: dict[str, int]
    alphas: tuple[float, ...] = tuple(np.round(np.linspace(0, 1, 5), 10).tolist())
    pairs_a_kind: int = 2
    furthest_alpha: float = 8.0
    extrapolation_steps: int = 4
    sizes: Sizes = field(default_factory=Sizes)
    radii: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
    directions: int = 2
    few_shot: FewShot = field(default_factory=FewShot)
    protocol: Protocol = field(default_factory=Protocol)
    seed: int = 0


PRESETS = {
    "packaged": DemoPlan(
        base="minilm",
        pooling="mean",
        datasets=(
            "vader_movie",
            "vader_amazon",
            "vader_tweets",
            "newsgroups_rec_sci",
            "reuters_r8",
            "election_tweets",
        ),
        group_targets=("vader_tweets", "reuters_r8"),
        start_targets=("vader_movie", "vader_tweets", "newsgroups_rec_sci"),
        seeds=3,
        recipe=Recipe(
            learning_rate=2e-4,
            head_learning_rate=3e-3,
            batch_size=32,
            epochs=2,
            warmup=0.1,
            dropout=False,
            row_length=64,
        ),
        max_length=32,
        split_sizes={"finetune": 256, "probe": 160, "validation": 40, "test": 160},
        few_shot=FewShot(examples=16),
        protocol=Protocol(),
    ),
    "smoke": DemoPlan(
        base="tiny",
        pooling="mean",
        datasets=("made_up_a1", "made_up_a2", "made_up_b1", "made_up_b2", "made_up_c1"),
        group_targets=("made_up_a1", "made_up_b1"),
        start_targets=("made_up_a1",),
        seeds=2,
        recipe=Recipe(learning_rate=1e-2, batch_size=32, epochs=4, warmup=0.006, dropout=False),
        max_length=48,
        split_sizes={"finetune": 160, "probe": 40, "validation": 20, "test": 40},
        alphas=(0.0, 0.5, 1.0),
        pairs_a_kind=1,
        extrapolation_steps=2,
        sizes=Sizes(interior=2, random_directions=1),
        radii=(1.0, 2.0),
        directions=1,
        few_shot=FewShot(examples=16, seeds=2),
    ),
}


@dataclass(frozen=True)
class DemoRun:
    """Where the demo left what it found."""

    document: Document
    results: Path
    report: Path


def demo(out: str | Path = "runs/demo", *, preset: str = "packaged", precision: Precision | None = None) -> "DemoRun":
    """Trains, maps, evaluates and merges a real population, and writes a report; rerun, it resumes.

    Args:
      out: folder of the run.
      preset: "packaged", MiniLM on the packaged corpora in minutes, or "smoke", a tiny encoder in seconds.
      precision: precision of the encoder's matrix products; None: see ``plan_of``.
    """
    return run_demo(plan_of(preset, precision), Path(out), command=f"wsr demo --preset={preset}")


def plan_of(preset: str, precision: Precision | None = None) -> DemoPlan:
    """Returns the plan of a preset.

    Args:
      preset: name of the preset.
      precision: precision of the encoder's matrix products; None: the quickest of this machine for "packaged", where
        ``make bench`` compares both, and float32 for "smoke".
    """
    plan = PRESETS[preset]
    chosen = precision or (quickest() if preset == "packaged" else "float32")
    few_shot = replace(plan.few_shot, recipe=replace(plan.few_shot.recipe, precision=chosen))
    return replace(plan, recipe=replace(plan.recipe, precision=chosen), few_shot=few_shot)


def run_demo(plan: DemoPlan, folder: Path, *, command: str) -> DemoRun:
    """Runs the demo in ``folder``; after an interruption it resumes from what is on disk.

    Raises:
      WsrError: the folder holds the run of another plan.
    """
    from wsr.report.page import write_page

    same_plan_or_refuse(folder, plan)
    clock = _Clock()
    with clock.phase("loading the checkpoint and the datasets"):
        checkpoint = load(plan.base, pooling=plan.pooling)
        datasets = {
            name: load_dataset(name, checkpoint.processor, max_length=plan.max_length, sizes=plan.split_sizes)
            for name in plan.datasets
        }
    model = checkpoint.model
    store = Store.create_for(folder / "store", checkpoint)
    with clock.phase("fine-tuning"):
        jobs = [Job(dataset, seed, plan.recipe) for dataset in datasets.values() for seed in range(plan.seeds)]
        records = train_members(model, store, jobs)
    region = learned_region(store, records, model=model)
    if len(set(region.datasets)) < 3:
        raise WsrError(f"demo: only {len(region)} of {len(records)} members learned their dataset; nothing to compare")
    context = Context(
        region,
        datasets,
        [target for target in plan.group_targets if target in region.datasets],
        Results.on_disk(folder / "points"),
        plan.protocol,
        plan.seed,
        command,
        plan.recipe.precision,
    )
    starts = replace(context, targets=[name for name in plan.start_targets if name in region.datasets])

    rows: list[dict] = []
    sections: dict[str, Section] = {}
    for name, study in (
        ("members", lambda: members_section(records, datasets, command=command)),
        ("similarity", lambda: clusters(region, seed=plan.seed, command=command)),
        ("lines", lambda: lines(context, alphas=np.array(plan.alphas), pairs_a_kind=plan.pairs_a_kind)),
        ("groups", lambda: groups(context, plan.sizes)),
        ("extrapolation", lambda: extrapolation(context, alphas=_far_alphas(plan))),
        ("directions", lambda: random_directions(context, radii=plan.radii, directions=plan.directions)),
        ("starts", lambda: centroid_start(starts, plan.few_shot)),
    ):
        with clock.phase(name):
            own_rows, section = study()
        rows += own_rows
        sections[name] = section

    document = Document(
        "wsr demo: a region of weight space, from nothing",
        tuple(f"{section.headline} {section.verdict.capitalize()}." for section in sections.values()),
        _facts(plan, datasets, records, clock, command),
        tuple(sections.values()),
    )
    write_rows(folder / "results.jsonl", rows)
    write_atomically(folder / "document.json", document.to_json().encode())
    write_page(document, folder / "report.html")
    return DemoRun(document, folder / "results.jsonl", folder / "report.html")


def _far_alphas(plan: DemoPlan) -> np.ndarray:
    return extrapolation_alphas(plan.extrapolation_steps, plan.furthest_alpha)


def _facts(
    plan: DemoPlan, datasets: dict[str, Dataset], records: list[Any], clock: "_Clock", command: str
) -> dict[str, str]:
    device = jax.devices()[0]
    families = {
        dataset.family: [d.name for d in datasets.values() if d.family == dataset.family]
        for dataset in datasets.values()
    }
    return {
        "Base": f"{plan.base}, {plan.pooling} pooling",
        "Datasets": "; ".join(f"{family}: {', '.join(names)}" for family, names in families.items()),
        "Members": f"{len(records)}: {plan.seeds} seeds a dataset, {plan.recipe.mode} fine-tuning",
        "Recipe": f"AdamW, learning rate {plan.recipe.learning_rate:g}, batch {plan.recipe.batch_size}, "
        f"{plan.recipe.epochs:g} epochs of {plan.split_sizes['finetune']} examples, {plan.max_length} tokens a text",
        "Precision": f"matrix products in {plan.recipe.precision}; sums and weights in float32",
        "Scoring": f"{plan.protocol.told}, on {plan.split_sizes['probe']} texts; loss on "
        f"{plan.split_sizes['test']} others; both are held out from all training",
        "Device": f"{len(jax.devices())} x {device.device_kind}, {os.cpu_count()} CPU threads",
        "Versions": f"wsr {wsr.__version__}, jax {jax.__version__}, jaxlib {jaxlib.__version__}",
        "Time": clock.told(),
        "command": command,
    }


class _Clock:
    """Seconds spent in each phase."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self._seconds[name] = time.monotonic() - start

    def told(self) -> str:
        parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self._seconds.items())
        return f"{sum(self._seconds.values()):.0f} s in this run ({parts})"
