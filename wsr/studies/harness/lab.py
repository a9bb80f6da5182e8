"""``Lab`` makes the material that a study's preset names when it is needed, and keeps it for the next study."""

import copy
import dataclasses
import zlib
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from wsr.data.dataset import Dataset
from wsr.data.load import load_dataset
from wsr.data.table import in_catalogue
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
    """Makes the material of one study: checkpoint, datasets, members and finished points.

    Args:
      preset: the population and the protocol.
      folder: receives this study's results.
      shelf: holds what studies share, a store for each recipe and finished points, so that each member is trained once.
      command: command line that reproduces the study.
      run: trains the members in this process, as a share of the sweep, or on Ray.
    """

    def __init__(self, preset: Preset, folder: Path, shelf: Path, *, command: str, run: Run = HERE):
        self.preset, self.folder, self.shelf, self.command, self.run = preset, folder, shelf, command, run
        self.dataset = cache(self._dataset)

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint from which all members start."""
        return load(self.preset.base, pooling=self.preset.pooling)

    def with_preset(self, **changes: str | int | float) -> "Lab":
        """Returns the same lab with changed fields of its preset, for example another base, sizes or recipe."""
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
        **recipe: Any,
    ) -> list[Job]:
        """Returns a job for each dataset and seed.

        Args:
          seeds: number of seeds of each dataset.
          datasets: their names; None: the preset's.
          size: number of fine-tuning examples; None: all.
          shared_streams: see ``wsr.Job``.
          recipe: fields of ``wsr.Recipe`` that differ from the preset's recipe.
        """
        if size == self.preset.finetune_texts:  # the members of other studies: train them once for all studies
            size = None
        changed = dataclasses.replace(self.preset.recipe, **recipe)
        names = self.preset.datasets if datasets is None else datasets
        return [Job(self.dataset(name), seed, changed, size, shared_streams) for name in names for seed in range(seeds)]

    def population(self, jobs: Sequence[Job], *, unlearned: bool = False) -> Region:
        """Returns the region of the members that learned their dataset, and trains those that no study has trained yet.

        Args:
          jobs: the members.
          unlearned: whether to include members that did not learn, for studies of training itself.

        Raises:
          WsrError: no member learned its dataset.
          Unfinished: other processes still have members to train.
        """
        return self.with_and_without_chance(jobs)[unlearned]

    def trained(self, jobs: Sequence[Job]) -> tuple[Region, list[MemberRecord]]:
        """Returns the region of the members that learned their dataset, and the records of all members.

        Raises:
          WsrError: no member learned its dataset.
          Unfinished: other processes still have members to train.
        """
        model, store = self.checkpoint.model, self._store(jobs)
        records = train_members(model, store, jobs, run=self.run)
        return learned_region(store, records, model=model), records

    def with_and_without_chance(self, jobs: Sequence[Job]) -> tuple[Region, Region]:
        """Returns the region of the members that learned their dataset, and that of all members, as in the paper.

        Raises:
          WsrError: no member learned its dataset.
          Unfinished: other processes still have members to train.
        """
        region, records = self.trained(jobs)
        if len(records) == len(region):
            return region, region
        names = [record.name for record in records]
        return region, Region.from_store(self._store(jobs), self.checkpoint.model, names=names)

    def heads(self, jobs: Sequence[Job]) -> dict[str, Head]:
        """Returns the heads of trained members, by the member's name."""
        store = self._store(jobs)
        names = [member_name(job) for job in jobs]
        return {name: store.head(name) for name in names if name in store}

    def context(self, region: Region, targets: Sequence[str] | None = None) -> Context:
        """Returns the input of a study.

        Args:
          region: the population.
          targets: datasets on which points are scored, which need no members; None: the preset's.
        """
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
            self.preset.precision,
        )

    @cached_property
    def results(self) -> Results:
        """The cache of finished points. Studies share it, since a point's key names everything that determines it."""
        return Results.on_disk(self.shelf / "points")

    def _dataset(self, name: str) -> Dataset:
        preset = self.preset
        return load_dataset(
            name,
            self.checkpoint.processor,
            max_length=preset.max_length,
            sizes=preset.sizes,
            at_most=True,
            paper_text=preset.paper_text,
            finetune_share=preset.finetune_share,
            tfds=preset.tfds and in_catalogue(name),
        )

    def _store(self, jobs: Sequence[Job]) -> Store:
        """Returns the store of the jobs' recipe; each recipe has one, since names do not tell recipes apart."""
        (recipe,) = {job.recipe for job in jobs}
        preset = self.preset
        made_by: tuple[object, ...] = (
            tuple(recipe.settings.values()),
            preset.base,
            preset.pooling,
            preset.max_length,
            preset.sizes,
        )
        # Absent otherwise, so that stores keep their names.
        if preset.paper_text or preset.finetune_share:
            made_by += (preset.paper_text, preset.finetune_share)
        if preset.tfds:
            made_by += ("tfds",)
        name = f"{recipe.mode}-{recipe.epochs:g}-epochs-{zlib.crc32(repr(made_by).encode()):08x}"
        checkpoint = self.checkpoint
        return Store.create_for(self.shelf / "stores" / name, checkpoint)
