"""Which merge method does best on the field's standard tables?

Command:  python -m experiments.merging_benchmarks --suite=clip8
Cost:     fetches 8 to 9 models and their datasets from the Hugging Face hub; --dry_run says how much
Expect:   the published figures of the base, the members and the average, which stand below the measured table

It has no population and no preset of its own, so it is no study: the members come from the hub, and the suite says what
is scored and how. See docs/merging.md.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from wsr.cli.flags import Flag, Group, Page, Values
from wsr.cli.program import call
from wsr.cli.record_flags import flags_of, overridden
from wsr.runtime.atomic import write_atomically
from wsr.runtime.compilation import use_persistent_cache
from wsr.store.results import write_rows
from wsr.studies.harness.plan import same_plan_or_refuse
from wsr.studies.merged_models import Effort
from wsr.studies.merging_benchmarks import merging_benchmark, methods_of
from wsr.studies.suite_plan import planned
from wsr.studies.suite_table import table_of
from wsr.studies.suite_tasks import Sizes
from wsr.studies.suites import SUITES, some_tasks, suite


@dataclass(frozen=True)
class Settings:
    """How much is tried, and on how much data."""

    tasks: tuple[str, ...] = ()
    """Tasks of the suite; none for all."""
    methods: tuple[str, ...] = ()
    """Merge methods; none for all that apply. The average is always one of them."""
    budget: int = 9
    """Number of options that each method with any to choose tries."""
    densities: tuple[float, ...] = (0.1, 0.5)
    """Lowest and highest fraction of the entries that sparse methods keep."""
    scales: tuple[float, ...] = (1.0, 4.0)
    """Lowest and highest scale of the merged task vector, as a multiple of an average."""
    steps: int = 100
    """Number of gradient steps of AdaMerging."""
    texts: int = 256
    """Number of texts or images that Fisher, RegMean and AdaMerging read from each dataset; 0 for all."""
    validation_texts: int = 500
    """Largest number of validation texts or images of each task, taken from its training split; 0 for all."""
    test_texts: int = 0
    """Largest number of test texts or images of each task; 0 for all."""

    @property
    def effort(self) -> Effort:
        """How many options are tried."""
        return Effort(self.budget, self.densities, self.scales, self.steps, 0, 0, self.texts)

    @property
    def sizes(self) -> Sizes:
        """How much data is used."""
        return Sizes(self.validation_texts, self.texts, self.test_texts)


PAGE = Page(
    "merging_benchmarks",
    "python -m experiments.merging_benchmarks --suite=SUITE [options]",
    "Which merge method does best on the field's standard tables?",
    (
        "python -m experiments.merging_benchmarks --suite=gpt2_glue --dry_run",
        "python -m experiments.merging_benchmarks --suite=clip8 --tasks=mnist,svhn --methods=ties,iso_c",
    ),
    (
        Group(
            "What is run",
            (
                Flag(
                    "suite",
                    "Table: clip8 is CLIP ViT-B/32 on eight image tasks, flan_t5_glue Flan-T5-base on eight tasks of "
                    "GLUE, gpt2_glue GPT-2 on seven.",
                    allowed=SUITES,
                    required=True,
                ),
                Flag("dry_run", "Print what would be fetched and scored, and stop.", False),
            ),
        ),
        Group(
            "Effort", tuple(replace(flag, default=getattr(Settings(), flag.name)) for flag in flags_of(Settings, ""))
        ),
        Group("Output", (Flag("out", "Folder of the results.", value="FOLDER", otherwise="runs/suites/SUITE"),)),
    ),
    ("Rerun it after an interruption: it resumes from what is on disk.",),
)


def main(values: Values, positional: Sequence[str]) -> None:
    """Fetches, merges and scores, or says what it would do."""
    chosen, settings = suite(values.suite), overridden(Settings(), values)
    tasks = some_tasks(chosen, settings.tasks)
    names = methods_of(chosen, settings.methods)
    if values.dry_run:
        print(planned(chosen, tasks, names, settings.effort))
        return
    folder = Path(values.out or f"runs/suites/{chosen.name}")
    use_persistent_cache()
    same_plan_or_refuse(
        folder, {"experiment": "merging_benchmarks", "suite": chosen.name, "settings": asdict(settings)}
    )
    found = merging_benchmark(chosen, tasks, names, settings.effort, settings.sizes, folder)
    table = table_of(chosen, tasks, found)
    write_rows(folder / "results.jsonl", found.rows)
    write_atomically(folder / "table.md", table.encode())
    print(f"\n{table}\nresults: {folder / 'results.jsonl'}\ntable:   {folder / 'table.md'}")


if __name__ == "__main__":
    sys.exit(call(PAGE, main, sys.argv[1:]))
