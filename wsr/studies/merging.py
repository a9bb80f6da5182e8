"""A benchmark of ways to merge: every method on many populations, options chosen on validation data, ranks at the end.

Populations differ in what their members share and in how these were trained (``merging_draws``). A merge is one model
for all datasets of its members, and is scored on their test splits under the members' own heads
(``merged_populations``). The means over populations are in ``merging_ranking``. ``merging_outlook`` asks what could be
known before a merge.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from wsr.errors import WsrError
from wsr.merging.method import METHODS
from wsr.report.document import Cell, Figure, Section, Table
from wsr.report.tables import INTERVAL, interval_cell
from wsr.runtime.progress import progress
from wsr.statistics.interval import Interval
from wsr.statistics.resampling import percentiles
from wsr.store.row import Row, result_row
from wsr.studies.harness.context import Context
from wsr.studies.harness.verdict import NO_EFFECT_SHARE, above, any_of, power_told, verdict
from wsr.studies.merged_models import Effort, options_told
from wsr.studies.merged_populations import CENTROID, Population, Scored, scored
from wsr.studies.merging_outlook import ACCURACY, EACH, MEAN, MINUS_BEST, outlook
from wsr.studies.merging_ranking import BEST_MEMBER, COMPARED, Drawn, Ranking, drawn_scores, ranking

NORMALISED, RANK = "normalised accuracy", "rank"
MINUS_CENTROID = "minus the centroid"
HELPED, OPTIONS, TEXTS = "share better than the best member", "options tried", "texts read"
ALL = "all populations"
OVER = "kind"
"""What a row is about that is not about one population: all populations of a kind."""
TWO = "two members"
"""The populations on which methods that merge two members are compared as well."""
LEFT_OUT = {"weighted": "with equal weights it is uniform", "linear": "the same"}
OF_FEW = {
    "slerp": "merges two; multislerp is its form for more",
    "nuslerp": "merges two",
    "nearswap": "merges one member into the base, here the best member",
    "arcee_fusion": "the same",
    "passthrough": "copies one member, here the best member",
}
"""Methods that merge two members or one, whatever a population has."""


def methods_compared() -> tuple[str, ...]:
    """Returns the names of the methods that are compared."""
    return tuple(name for name in METHODS if name not in LEFT_OUT)


def merging(
    context: Context, populations: Sequence[Population], names: Sequence[str], effort: Effort
) -> list[tuple[list[Row], Section]]:
    """Merges each population by each method, ranks the methods, and asks what could be known beforehand.

    Args:
      context: datasets, protocol, and where finished points are kept.
      populations: their members.
      names: the methods.
      effort: how many options are tried.

    Raises:
      WsrError: if no population has two members.
    """
    small = [own.name for own in populations if len(own.region) < 2]
    populations = [own for own in populations if len(own.region) > 1]
    if not populations:
        raise WsrError("merging: no population has two members that learned their dataset; train longer")
    total = sum(1 + len(own.region) + len(names) for own in populations)
    with progress("merging", total, "models") as counter:
        found = [
            scored(own, context.datasets, names, effort, context.settings, context.protocol, counter)
            for own in populations
        ]
    rankings, rows = ranked(found, context.generator("merging"))
    more, section = outlook(rows, context)
    return [(rows, _section(context, found, rankings, small)), (more, section)]


def ranked(found: Sequence[Scored], generator: np.random.Generator) -> tuple[list[Ranking], list[Row]]:
    """Returns the ranking of each kind, of populations of two, of all populations last, and the rows of results.

    Args:
      found: the populations.
      generator: source of the resamples.
    """
    drawn = drawn_scores(found, generator)
    kinds = list(dict.fromkeys(own.population.kind for own in found))
    rankings = [
        ranking(kind, [own for own in drawn if own.scored.population.kind == kind], generator) for kind in kinds
    ]
    two = [own for own in drawn if len(own.scored.population.region) == 2]
    if 0 < len(two) < len(drawn):
        rankings.append(ranking(TWO, two, generator))
    if len(kinds) > 1:
        rankings.append(ranking(ALL, drawn, generator))
    rows = [row for own in drawn for row in _rows_of_population(own)]
    return rankings, rows + [row for own in rankings for row in _rows_of_kind(own)]


def _rows_of_population(own: Drawn) -> list[Row]:
    found, population = own.scored, own.scored.population
    texts = sum(len(right) for right in found.individual.values())
    rows = []

    def add(group: str, dataset: str, metric: str, value: float, n: int, interval: Interval | None = None) -> None:
        how = f"exact; {options_told(found.chosen[group])}" if group in found.chosen else "exact"
        row = result_row(
            group,
            dataset,
            metric,
            value,
            texts=n,
            how=f"exact; {found.best_member}" if group == BEST_MEMBER else how,
            members=population.region.names,
            interval=None if interval is None else (interval.low, interval.high),
            study="merging",
            over=EACH,
            population=population.name,
            kind=population.kind,
        )
        rows.append(row)

    for group, by_dataset in found.right.items():
        for dataset, right in by_dataset.items():
            add(group, dataset, ACCURACY, float(right.mean()), len(right))
    for group in own.accuracy:
        add(group, MEAN, ACCURACY, float(own.accuracy[group][0]), texts)
        add(group, MEAN, NORMALISED, float(own.normalised[group][0]), texts)
    for group in found.methods:
        gain = (own.accuracy[group] - own.accuracy[BEST_MEMBER]).round(12)
        add(group, MEAN, MINUS_BEST, float(gain[0]), texts, Interval(gain[0], *percentiles(gain[1:], 0.95)))
    for name, value in found.features.items():
        add("before the merge", MEAN, f"feature, {name}", value, 0)
        rows[-1] |= {"base": population.region.base_sha256}
    return rows


def _rows_of_kind(own: Ranking) -> list[Row]:
    tables: list[tuple[str, Mapping[str, Interval]]] = [
        (ACCURACY, own.accuracy),
        (NORMALISED, own.normalised),
        (RANK, own.rank),
        (MINUS_CENTROID, own.minus_centroid),
        (MINUS_BEST, own.minus_best),
    ]

    def row(group: str, metric: str, value: float, ends: tuple[float, float] | None = None) -> Row:
        about = {"study": "merging", "over": OVER, "kind": own.kind}
        return about | result_row(group, MEAN, metric, value, texts=own.populations, how="exact", interval=ends)

    rows = []
    names = [*COMPARED, *own.methods]  # the best first
    for metric, values in tables:
        for group, found in ((name, values[name]) for name in names if name in values):
            adjusted = {"p_holm": own.p_values[group]} if metric == MINUS_CENTROID else {}
            rows.append(row(group, metric, found.value, (found.low, found.high)) | adjusted)
    for group, cost in ((name, own.costs[name]) for name in own.methods):
        rows.append(row(group, HELPED, own.helped[group]))
        rows.append(row(group, OPTIONS, cost.options))
        rows.append(row(group, TEXTS, cost.texts))
    return rows


def ranking_table(own: Ranking) -> Table:
    """Returns the models that are compared and the methods, best first, with what each took."""
    rows: list[tuple[Cell, ...]] = []
    for name in (*COMPARED, *own.methods):
        accuracy, normalised = own.accuracy[name], own.normalised[name]
        scores: tuple[Cell, ...] = (accuracy.value, interval_cell(accuracy.low, accuracy.high), normalised.value)
        if name in COMPARED:
            rows.append((name, *scores, "", "", "", "", "", ""))
            continue
        rank, gain, cost = own.rank[name], own.minus_best[name], own.costs[name]
        rows.append(
            (
                name,
                *scores,
                rank.value,
                interval_cell(rank.low, rank.high),
                gain.value,
                interval_cell(gain.low, gain.high),
                cost.options,
                cost.texts,
            )
        )
    columns = ("model", "accuracy", INTERVAL, "normalised", RANK, INTERVAL, MINUS_BEST, INTERVAL, OPTIONS, TEXTS)
    several = "s" if own.populations > 1 else ""
    note = (
        f"{own.populations} population{several}. Accuracy on test splits under the members' own heads, a mean over "
        "datasets; normalised: divided by that of each dataset's own members. Options and the best member were chosen "
        "by the loss on validation splits. A text counts once for each pass through an encoder."
    )
    return Table(f"Ways to merge, {own.kind}", columns, tuple(rows), note)


def _section(context: Context, found: Sequence[Scored], rankings: Sequence[Ranking], small: Sequence[str]) -> Section:
    whole = rankings[-1]
    gains = whole.minus_centroid
    better = [name for name, gain in gains.items() if gain.value > 0]
    sure = [name for name in better if whole.p_values[name] < 0.05]
    first = whole.methods[0]
    rank = whole.rank[first]
    centroid = whole.accuracy[CENTROID].value
    measured = (
        f"over {whole.populations} populations the centroid has {100 * centroid:.1f} %; {len(better)} of {len(gains)} "
        f"other methods have more, {len(sure)} of them beyond chance (Holm); first: {first}, mean rank "
        f"{rank.value:.1f}, {rank.low:.1f} to {rank.high:.1f}"
    )
    missing = {name: why for own in found for name, why in own.missing.items()}
    return Section(
        "Some merging beats the plain average",
        "Does any way to merge members beat their plain average on the members' own tasks, over populations of many "
        "kinds?",
        "Not in the paper, whose merged model is the centroid.",
        measured,
        verdict([any_of(above(gain, p=whole.p_values[name], margin=NO_EFFECT_SHARE) for name, gain in gains.items())]),
        text=(
            "Claim: some method is more accurate than the centroid under the members' own heads, beyond chance. "
            "Options were chosen by the loss on validation splits, and every method with options to choose tried the "
            "same number. Intervals draw populations and test texts.",
            "Not compared: " + "; ".join(f"{name} ({why})" for name, why in LEFT_OUT.items()) + ".",
            *(f"Not on every population: {name} ({why})." for name, why in missing.items()),
            *([f"Left out, as fewer than two members learned: {', '.join(small)}."] if small else []),
        ),
        figures=(
            Figure(
                "intervals",
                "Mean rank",
                "1 is the best; over all populations.",
                {"rows": [_drawn_as(name, whole.rank[name]) for name in whole.methods], "x_label": "rank"},
            ),
            Figure(
                "intervals",
                "Accuracy minus that of the best member",
                "Above 0, the merge is better than the one member chosen on validation data.",
                {
                    "rows": [_drawn_as(name, whole.minus_best[name]) for name in whole.methods],
                    "x_label": "difference of accuracies",
                },
            ),
        ),
        tables=tuple(ranking_table(own) for own in reversed(rankings)),
        command=context.command,
        headline=(
            f"{len(better)} of {len(gains)} ways to merge models are more accurate than their plain average "
            f"({100 * centroid:.1f} %), {len(sure)} of them beyond chance; {first} ranks first."
        ),
        paper_short="not in the paper; it merges by average",
        measured_short=f"{len(sure)} of {len(gains)} methods, first {first}",
        power=power_told(gains, "points", scale=100),
    )


def _drawn_as(name: str, own: Interval) -> dict:
    return {"name": name, "series": [{"name": name, "mean": own.value, "low": own.low, "high": own.high}]}
