"""Where a study runs: the material that its preset names, made when it is asked for and kept for the next study."""

import copy
import dataclasses
import zlib
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path

from wsr.data.dataset import Dataset
from wsr.data.load import load_dataset
from wsr.models import Checkpoint, load
from wsr.region.learned import learned_region
from wsr.region.region import Region
from wsr.store import MemberRecord, Store
from wsr.store.results import Results
from wsr.studies.harness.context import Context
from wsr.studies.harness.preset import Preset
from wsr.training import Job
from wsr.training.members import member_name, train_members
from wsr.training.sweep.run import HERE, Run
from wsr.types import Head


class Lab:
    """The material of one study.

    Args:
      preset: the population and the protocol.
      folder: of this study's results.
      shelf: shared by studies: a store for each recipe, and finished points; members are trained once for all studies.
      command: what reproduces the study.
      run: where members are trained.
    """

    def __init__(self, preset: Preset, folder: Path, shelf: Path, *, command: str, run: Run = HERE):
        self.preset, self.folder, self.shelf, self.command, self.run = preset, folder, shelf, command, run
        self.dataset = cache(self._dataset)

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """What all members start from."""
        return load(self.preset.base, pooling=self.preset.pooling)

    def with_preset(self, **changes: str | int | float) -> "Lab":
        """Returns the same lab with another base, other sizes or another recipe."""
        other = copy.copy(self)
        other.preset = dataclasses.replace(self.preset, **changes)  # type: ignore[arg-type]
        other.__dict__.pop("checkpoint", None)
        other.dataset = cache(other._dataset)
        return other

    def jobs(
        self,
        *,
        seeds: int,
        datasets: Sequence[str] | None = None,
        size: int | None = None,
        shared_streams: bool = False,
        **recipe: float,
    ) -> list[Job]:
        """Returns a job for each dataset (None: the preset's) and seed; ``recipe`` changes values of the preset's."""
        if size == self.preset.finetune_texts:  # everybody's members: to be trained once for all studies
            size = None
        changed = dataclasses.replace(self.preset.recipe, **recipe)  # type: ignore[arg-type]
        names = self.preset.datasets if datasets is None else datasets
        return [Job(self.dataset(name), seed, changed, size, shared_streams) for name in names for seed in range(seeds)]

    def population(self, jobs: Sequence[Job], *, unlearned: bool = False) -> Region:
        """Returns the members of ``jobs`` that learned their dataset; trains those that no study has trained before.

        With ``unlearned`` also the others, for a study that asks what training does.
        """
        region, records = self.trained(jobs)
        if not unlearned:
            return region
        return Region.from_store(self._store(jobs), self.checkpoint.model, names=[record.name for record in records])

    def trained(self, jobs: Sequence[Job]) -> tuple[Region, list[MemberRecord]]:
        """Returns the region of the members that learned, and the records of all.

        Raises:
          WsrError: where nobody learned.
          Unfinished: where other processes have members left to train.
        """
        model, store = self.checkpoint.model, self._store(jobs)
        records = train_members(model, store, jobs, run=self.run)
        return learned_region(store, records, model=model), records

    def heads(self, jobs: Sequence[Job]) -> dict[str, Head]:
        """Returns the heads of the members that ``trained`` has stored, by name."""
        store = self._store(jobs)
        names = [member_name(job) for job in jobs]
        return {name: store.head(name) for name in names if name in store}

    def context(self, region: Region, targets: Sequence[str] | None = None) -> Context:
        """Returns what the studies of ``wsr.studies`` are given; targets (None: the preset's) need no member."""
        wanted = self.preset.targets if targets is None else targets
        names = dict.fromkeys([*region.datasets, *wanted])
        return Context(
            region,
            {name: self.dataset(name) for name in names},
            list(wanted),
            self.results,
            self.preset.protocol,
            self.preset.seed,
            self.command,
        )

    @cached_property
    def results(self) -> Results:
        """Finished points; shared by studies, since a point is named by all that determines it."""
        return Results.on_disk(self.shelf / "points")

    def _dataset(self, name: str) -> Dataset:
        return load_dataset(name, self.checkpoint.processor, max_length=self.preset.max_length, sizes=self.preset.sizes)

    def _store(self, jobs: Sequence[Job]) -> Store:
        """One store for each recipe: members of one name in one store are made in one way."""
        (recipe,) = {job.recipe for job in jobs}
        preset = self.preset
        made_by = (tuple(recipe.settings.values()), preset.base, preset.pooling, preset.max_length, preset.sizes)
        name = f"{recipe.mode}-{recipe.epochs:g}-epochs-{zlib.crc32(repr(made_by).encode()):08x}"
        checkpoint = self.checkpoint
        return Store.create_for(self.shelf / "stores" / name, checkpoint)
