"""``wsr pareto``: the best compromises of a population between datasets."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wsr.cli import dataset_flags, device_flags
from wsr.cli.explore import INVERSE_L2, LOSS, MEMBERS, POINTS, chosen_members, load_all, scoring
from wsr.cli.flags import Flag, Group, Page, Values

if TYPE_CHECKING:
    from wsr.report.explorer.pareto import ParetoFront


PAGE = Page(
    "wsr pareto",
    "wsr pareto --store=STORE --on=DATASET,DATASET,... [options]",
    "Find the models between the members that compromise best between two or more datasets, score them exactly, and "
    "print the commands that write them.",
    (
        "wsr pareto --store=runs/mine --on=made_up_a2,made_up_b1 --max_length=48 --points=90 --front=6 "
        "--out=runs/front.jsonl",
        "wsr pareto --store=runs/mine --on=made_up_a2,made_up_b1 --max_length=48 --points=90 --front=6 "
        '"--constraint=made_up_a2>=0.5" --page=runs/front.html',
    ),
    (
        Group(
            "What is searched",
            (
                Flag("store", "Folder or URL of the store that holds the members.", required=True),
                Flag("on", "Two or more datasets: names, files or folders.", (), value="DATASET,...", required=True),
                MEMBERS,
                Flag("front", "Number of directions between the datasets that are searched.", 24, at_least=2),
                Flag(
                    "constraint",
                    "Smallest or largest scores allowed on the validation split, such as mnli>=0.84, or notes<=12 for "
                    "a perplexity.",
                    (),
                    value="DATASET>=SCORE,...",
                    otherwise="no constraint",
                ),
                dataset_flags.ALLOW_OVERLAP,
            ),
        ),
        Group(
            "How it is scored",
            (
                LOSS,
                POINTS,
                *(
                    Flag(f"{split}_size", f"Number of texts of the {split} split; 0 for all.", 300)
                    for split in ("probe", "validation", "test")
                ),
                INVERSE_L2,
                dataset_flags.BETWEEN,
                Flag("seed", "Seed of the held-out points and of the search.", 0),
            ),
        ),
        dataset_flags.GROUP,
        device_flags.GROUP,
        Group(
            "Output",
            (
                Flag("out", "JSONL file to which the rows are written.", value="FILE"),
                Flag("page", "Page of wsr explore with the front in it.", value="FILE"),
            ),
        ),
    ),
    (
        "The validation splits choose the points; the table shows exact scores on the test splits with 95 % intervals. "
        "A point is undominated if no other point of the table is better on one dataset and as good on all others.",
        "Plain texts and questions have no splits: a random half of them chooses the points, and the other half gives "
        "the scores.",
        "docs/explore.md explains the search.",
    ),
)


def run(values: Values, positional: Sequence[str]) -> None:
    """Searches, scores, prints the table and the commands."""
    from dataclasses import replace
    from pathlib import Path

    from wsr.engine.hull_search import SUPPORT
    from wsr.region.learned import learned_region
    from wsr.report.explorer.pareto import pareto
    from wsr.runtime.compilation import use_persistent_cache
    from wsr.store import Store
    from wsr.store.results import write_rows

    use_persistent_cache()
    limits = [_limit(text) for text in values.constraint]
    least, most = ({name: score for name, sign, score in limits if sign == own} for own in (">=", "<="))
    store = Store.open(values.store)
    region = chosen_members(values, learned_region(store))
    datasets = load_all(values, store, region, ("probe", "validation", "test"))
    with scoring(values, min(len(region), SUPPORT)) as settings:
        found = pareto(
            region,
            datasets,
            values.page,
            front=values.front,
            at_least=least,
            at_most=most,
            points=values.points,
            inverse_l2=values.inverse_l2,
            seed=values.seed,
            settings=replace(settings, results=store.results()),
        )
    _show(found, values.store)
    if values.page:
        print(f"page: {values.page}")
    if values.out:
        groups = ["front"] * len(found.points) + ["member"] * len(region) + ["centroid"]
        rows = [row for own in found.evaluations for row in own.rows("")]
        names = [group for own in found.evaluations for group in groups for _ in own.values]  # a row for each metric
        write_rows(Path(values.out), [{**row, "group": group} for row, group in zip(rows, names, strict=True)])
        print(f"rows: {values.out}")


def _limit(text: str) -> tuple[str, str, float]:
    from wsr.errors import WsrError

    sign = "<=" if "<=" in text else ">="
    name, _, number = text.partition(sign)
    try:
        return name.strip(), sign, float(number)
    except ValueError:
        raise WsrError(
            f"--constraint={text}: expected DATASET>=SCORE or DATASET<=SCORE, for example mnli>=0.84"
        ) from None


def _show(found: "ParetoFront", store: str) -> None:
    import shlex

    from wsr.cli.tables import show_table
    from wsr.runtime.printable import printable
    from wsr.statistics.interval import mean_interval

    count, names = len(found.points), found.region.names
    labels = [f"front {number + 1}" for number in range(count)] + [*names, "centroid"]
    cells = []
    for at, label in enumerate(labels):
        row: list[str | float] = [label, "yes" if found.on_test[at] else ""]
        for own in found.evaluations:
            told = mean_interval(own.by_text[at])
            _, *scores = own.values.values()
            row += [told.value, f"{told.low:.3f} to {told.high:.3f}", *(float(values[at]) for values in scores)]
        cells.append(row)
    columns = [
        heading
        for own in found.evaluations
        for heading in (f"loss on {own.name}", "95 % interval", *(name.replace("_", " ") for name in [*own.values][1:]))
    ]
    show_table(("point", "undominated", *columns), cells)
    for own, check in zip(found.evaluations, found.checks, strict=True):
        print(
            f"{own.name}: searched on polynomials of degree {check.degree}; errors of the validation loss at "
            f"held-out points: mean {check.error:.4f}, largest {check.largest:.4f}"
        )
    volumes = (f"{which} {found.volume(which):.5g}" for which in ("front", "members and centroid", "members"))
    print(f"hypervolume on the test splits: {', '.join(volumes)}")
    for number, row in enumerate(found.points):
        used = [(name, f"{own:.6g}") for name, own in zip(names, row, strict=True) if own]
        members, weights = (",".join(column) for column in zip(*used, strict=True))
        print(
            printable(
                f"front {number + 1}: wsr merge --store={shlex.quote(store)} --method=weighted "
                f"--members={shlex.quote(members)} --weights={weights} --to=front-{number + 1}"
            )
        )
