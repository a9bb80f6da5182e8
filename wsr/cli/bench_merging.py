"""``wsr bench-merging``: which way to merge is best for the members of a store."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wsr.cli import dataset_flags
from wsr.cli.flags import Flag, Group, Page, Values

if TYPE_CHECKING:
    from wsr.data.dataset import Dataset
    from wsr.region.region import Region
    from wsr.store import Store
    from wsr.studies.bench_merging import MergeBench
    from wsr.studies.merged_models import Effort


PAGE = Page(
    "wsr bench-merging",
    "wsr bench-merging --store=STORE --on=DATASET,... [options]",
    "Merge the members of a store by every method, with equally many options chosen on validation splits, and rank the "
    "results on test splits.",
    (
        "wsr bench-merging --store=runs/mine --on=made_up_a1,made_up_b1 --max_length=48 --budget=2 "
        "--methods=ties,iso_c,fisher",
        "wsr bench-merging --store=runs/mine --on=made_up_a1,made_up_b1 --max_length=48 --methods=lines,regmean "
        "--members=made_up_a1-full-s0,made_up_b1-full-s0 --out=runs/ranking.jsonl",
    ),
    (
        Group(
            "What is merged",
            (
                Flag("store", "Folder or URL of the store that holds the members.", required=True),
                Flag(
                    "on",
                    "Datasets whose members are merged, and on which the merges are scored: names, files or folders.",
                    (),
                    value="DATASET,...",
                    required=True,
                ),
                Flag("members", "Members to merge.", (), otherwise="all members of these datasets"),
                dataset_flags.ALLOW_OVERLAP,
            ),
        ),
        Group(
            "How much is tried",
            (
                Flag("methods", "Methods to compare; the average is always one of them.", (), otherwise="all methods"),
                Flag("budget", "Number of options that each method with any to choose tries.", 4, at_least=1),
                Flag(
                    "densities",
                    "Lowest and highest fraction of the entries that sparse methods keep.",
                    ("0.1", "0.5"),
                    value="LOW,HIGH",
                ),
                Flag(
                    "scales",
                    "Lowest and highest scale of the merged task vector, as a multiple of an average.",
                    ("1", "3"),
                    value="LOW,HIGH",
                ),
                Flag("steps", "Number of gradient steps of AdaMerging.", 10, at_least=1),
                Flag(
                    "learned_points",
                    "Number of points that learned coefficients evaluate besides the members.",
                    30,
                    at_least=2,
                ),
                Flag("learned_steps", "Number of gradient steps of free learned coefficients.", 4, at_least=1),
                Flag(
                    "texts",
                    "Number of texts that Fisher, RegMean and AdaMerging read from each dataset; 0 for all.",
                    64,
                    at_least=0,
                ),
            ),
        ),
        Group(
            "How it is scored",
            (
                Flag("probe_size", "Number of texts on which a probe is fitted; 0 for all.", 300),
                Flag("validation_size", "Number of texts that choose options; 0 for all.", 300),
                Flag("test_size", "Number of texts on which accuracy is measured; 0 for all.", 300),
                Flag("seed", "Seed of the resamples behind the intervals.", 0),
            ),
        ),
        dataset_flags.GROUP,
        Group("Output", (Flag("out", "JSONL file to which the rows are written.", value="FILE"),)),
    ),
    (
        "A merge is scored under its members' own heads, as a mean over the datasets; several members of one dataset "
        "share the mean of their heads' outputs. Normalised accuracy is divided by that of each dataset's own members. "
        "The best member is the one with the lowest validation loss. Intervals are over test texts.",
        "Finished points are kept in the store's folder: after an interruption, the same command resumes.",
        "docs/merging.md shows the same table for many populations.",
    ),
)


def run(values: Values, positional: Sequence[str]) -> None:
    """Merges, scores and prints the ranking."""
    from pathlib import Path

    from wsr.cli.explore import chosen_members
    from wsr.region.learned import learned_region
    from wsr.runtime.compilation import use_persistent_cache
    from wsr.runtime.printable import printable
    from wsr.store import Store
    from wsr.store.results import write_rows
    from wsr.studies.bench_merging import bench_merging

    effort = _effort(values)
    use_persistent_cache()
    store = Store.open(values.store)
    region = chosen_members(values, learned_region(store))
    datasets = _datasets(values, store, region)
    found = bench_merging(
        region,
        datasets,
        heads={name: store.head(name) for name in region.names},
        methods=values.methods,
        effort=effort,
        results=store.results(),
        seed=values.seed,
    )
    _show(found)
    if found.outlook:
        print(printable(found.outlook))
    if values.out:
        write_rows(Path(values.out), found.rows)
        print(f"rows: {values.out}")


def _effort(values: Values) -> "Effort":
    from wsr.errors import WsrError
    from wsr.studies.merged_models import Effort

    def ends(flag: str) -> tuple[float, ...]:
        words = values[flag].value
        try:
            return tuple(float(word) for word in words)
        except ValueError:
            raise WsrError(f"--{flag}={','.join(words)}: expected two numbers, such as 0.1,0.5") from None

    return Effort(
        budget=values.budget,
        densities=ends("densities"),
        scales=ends("scales"),
        steps=values.steps,
        learned_points=values.learned_points,
        learned_steps=values.learned_steps,
        texts=values.texts,
    )


def _datasets(values: Values, store: "Store", region: "Region") -> "list[Dataset]":
    """The datasets under the names that the store has for them."""
    from dataclasses import replace

    from wsr.region.exposure import refuse_leaks

    processor, records = store.processor(), [store.record(name) for name in region.names]
    splits = ("probe", "validation", "test")
    sizes = {split: values[f"{split}_size"].value for split in splits}
    datasets = []
    for given in values.on:
        dataset = dataset_flags.load(
            values, given, processor, sizes={split: size for split, size in sizes.items() if size}
        )
        dataset = replace(dataset, name=dataset_flags.called_in_store(dataset, records))
        refuse_leaks(region, dataset, splits, allow_overlap=values.allow_overlap)
        datasets.append(dataset)
    return datasets


def _show(found: "MergeBench") -> None:
    from wsr.cli.tables import show_table
    from wsr.runtime.printable import printable
    from wsr.studies.merged_models import options_told

    table = found.table
    chosen = found.scored.chosen
    rows = [(*row, options_told(chosen[str(row[0])]) if row[0] in chosen else "") for row in table.rows]
    show_table((*table.columns, "chosen"), rows)
    print(f"best member: {printable(found.scored.best_member)}")
    for name, why in found.scored.missing.items():
        print(f"left out: {name} ({printable(why)})")
