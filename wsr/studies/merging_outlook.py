"""Will a merge help? A forecast from what is known before it, tried on populations that it was not fitted on.

A merge helps if it is more accurate than the best member, the one with the lowest validation loss. A population is
forecast from those that share no dataset with it.
"""

from collections.abc import Mapping, Sequence
from importlib.resources import files

import numpy as np

from wsr.errors import WsrError
from wsr.report.document import Figure, Section, Table
from wsr.report.tables import INTERVAL, interval_cell
from wsr.runtime import strict_json
from wsr.statistics.forecast import CANNOT_SAY, DOES_NOT, HELPS, LEVEL, Answer, Forecast, Seen, fit_forecast, held_out
from wsr.statistics.interval import Interval, mean_interval
from wsr.statistics.reliability import Bin, reliability
from wsr.store.row import Row, result_row
from wsr.studies.harness.context import Context
from wsr.studies.harness.verdict import above, power_told, verdict

FILE = "merge_forecast.json"
"""Beside this file: the forecast fitted on the kept rows; absent until these are measured."""
MEAN, ACCURACY, MINUS_BEST, FEATURE = "mean", "accuracy, own head", "minus the best member", "feature, "
"""Names in the rows of the benchmark."""
COPY = "passthrough"
"""The method that is not forecast: it copies the best member."""
STATED, SKILL = "stated probability", "Brier score, base rate minus forecast"
EACH, FORECASTS = "population", "forecasts"
"""What a row is about: one population, or all forecasts."""
Counts = Mapping[str, Sequence[tuple[Answer, float]]]
"""For each statement, the answers that made it, with what happened: 1 if the merge helped."""


def seen_in(rows: Sequence[Row]) -> tuple[list[str], Seen]:
    """Returns the names of the populations in the rows of the study, and what was seen of them.

    Args:
      rows: of the study ``merging``.

    Raises:
      WsrError: if the rows have no features.
    """
    own = [row for row in rows if row.get("over") == EACH]
    names = list(dict.fromkeys(row["population"] for row in own))
    place = {name: at for at, name in enumerate(names)}
    features: dict[str, np.ndarray] = {}
    outcomes: dict[str, np.ndarray] = {}
    datasets: list[set[str]] = [set() for _ in names]
    for row in own:
        at, metric = place[row["population"]], row["metric"]
        if metric.startswith(FEATURE):
            features.setdefault(metric.removeprefix(FEATURE), np.full(len(names), np.nan))[at] = row["value"]
        elif metric == MINUS_BEST and row["group"] != COPY:
            helped = outcomes.setdefault(row["group"], np.full(len(names), np.nan))
            helped[at] = float(row["value"] > 0)
        elif metric == ACCURACY and row["dataset"] != MEAN:
            datasets[at].add(row["dataset"])
    if not features or not outcomes:
        raise WsrError("forecast: the rows have no features of populations; run experiments.merging again")
    apart = np.array([[not first & second for second in datasets] for first in datasets])
    return names, Seen(features, outcomes, apart)


def outlook(rows: Sequence[Row], context: Context) -> tuple[list[Row], Section]:
    """Returns the rows and the section of the forecast on held-out populations.

    Args:
      rows: of the benchmark.
      context: gives the command and the random stream.
    """
    names, seen = seen_in(rows)
    kinds = {row["population"]: row["kind"] for row in rows if row.get("over") == EACH}
    answers = held_out(seen)
    found = [
        (at, method, answer, float(seen.outcomes[method][at]))
        for at, own in enumerate(answers)
        for method, answer in own.items()
    ]
    stated = np.array([answer.probability for _, _, answer, _ in found])
    happened = np.array([outcome for *_, outcome in found])
    places = np.array([at for at, *_ in found])
    curve = reliability(stated, happened, places, generator=context.generator("reliability"))
    skill = _skill(seen, answers)
    counts = {what: [(a, y) for _, _, a, y in found if a.statement == what] for what in (HELPS, DOES_NOT, CANNOT_SAY)}
    rows_of_answers = [
        _row(method, STATED, answer.probability, 0, EACH)
        | {"population": names[at], "kind": kinds[names[at]], "statement": answer.statement}
        for at, method, answer, _ in found
    ]
    return rows_of_answers + _summary(curve, counts, skill, len(names)), _section(
        context, len(names), curve, counts, skill
    )


def _row(group: str, metric: str, value: float, n: int, over: str, interval: Interval | None = None) -> Row:
    ends = None if interval is None else (interval.low, interval.high)
    how = "on populations that share no dataset with those it was fitted on"
    return result_row(group, MEAN, metric, value, texts=n, how=how, interval=ends, study="merging", over=over)


def _summary(curve: Sequence[Bin], counts: Counts, skill: Interval, populations: int) -> list[Row]:
    rows = []
    for own in curve:
        group = f"stated {own.low:.1f} to {own.high:.1f}"
        rows.append(_row(group, "mean stated probability", own.stated, own.count, FORECASTS))
        rows.append(_row(group, "share that helped", own.happened.value, own.count, FORECASTS, own.happened))
    total = sum(map(len, counts.values()))
    for what, said in counts.items():
        rows.append(_row(what, "share of the statements", len(said) / total, total, FORECASTS))
        if said and what != CANNOT_SAY:
            right = float(np.mean([outcome == (what == HELPS) for _, outcome in said]))
            rows.append(_row(what, "share that was right", right, len(said), FORECASTS))
    rows.append(_row("all methods", SKILL, skill.value, populations, FORECASTS, skill))
    return rows


def _skill(seen: Seen, answers: Sequence[Mapping[str, Answer]]) -> Interval:
    """How much lower the Brier score is than that of the share that helped, with its interval over populations."""
    gains = []
    for at, own in enumerate(answers):
        differences = []
        for method, answer in own.items():
            outcome, others = seen.outcomes[method][at], seen.outcomes[method][seen.apart[at]]
            rate = (np.nansum(others) + 0.5) / (np.isfinite(others).sum() + 1)
            differences.append((rate - outcome) ** 2 - (answer.probability - outcome) ** 2)
        if differences:
            gains.append(float(np.mean(differences)))
    return mean_interval(np.array(gains))


def _section(
    context: Context,
    populations: int,
    curve: Sequence[Bin],
    counts: Counts,
    skill: Interval,
) -> Section:
    total = sum(map(len, counts.values()))
    said = [(answer, outcome) for what in (HELPS, DOES_NOT) for answer, outcome in counts[what]]
    right = sum((answer.statement == HELPS) == bool(outcome) for answer, outcome in said)
    measured = (
        f"of {total} forecasts for {populations} held-out populations, {len(said)} said that a merge helps or does not "
        f"help, and {right} of these were right; {len(counts[CANNOT_SAY])} could not say; the Brier score is "
        f"{skill.value:+.3f} better than that of the share that helped, {skill.low:+.3f} to {skill.high:+.3f}"
    )
    return Section(
        "Whether a merge helps can be known before it",
        "Can one predict, from what is known before a merge, whether it will be more accurate than the best member?",
        "Not in the paper.",
        measured,
        verdict([above(skill, margin=0.01)]),
        text=(
            "Claim: the stated probabilities are better, by their Brier score, than the share of merges of the same "
            "method that helped. A population is forecast from populations that share no dataset with it.",
            "Known before a merge: the numbers of members and datasets, the lengths and cosines of the task vectors, "
            "the overlap of their leading subspaces, and the losses of the base and of the members on 50 validation "
            f"texts of each dataset. Statements are conformal: at most {100 * LEVEL:.0f} % of populations may get a "
            "wrong one. Otherwise the answer is that one cannot say.",
        ),
        figures=(
            Figure(
                "curves",
                "Reliability of the forecast",
                "How often a merge helped, by the probability stated before it. Whiskers: 95 % intervals over "
                "populations.",
                {
                    "series": [
                        {"name": "always right on average", "x": [0, 1], "y": [0, 1]},
                        {
                            "name": "held-out populations",
                            "x": [own.stated for own in curve],
                            "y": [own.happened.value for own in curve],
                            "low": [own.happened.low for own in curve],
                            "high": [own.happened.high for own in curve],
                        },
                    ],
                    "x_label": "stated probability that the merge beats the best member",
                    "y_label": "share of merges that did",
                },
            ),
        ),
        tables=(
            Table(
                "Reliability of the forecast",
                ("stated", "mean stated", "share that helped", INTERVAL, "forecasts"),
                tuple(
                    (
                        f"{own.low:.1f} to {own.high:.1f}",
                        own.stated,
                        own.happened.value,
                        interval_cell(own.happened.low, own.happened.high),
                        own.count,
                    )
                    for own in curve
                ),
                "Forecasts of all methods; intervals over populations.",
            ),
        ),
        command=context.command,
        headline=(
            f"{right} of {len(said)} statements that a merge helps or does not were right; in "
            f"{len(counts[CANNOT_SAY])} of {total} cases the forecast could not say."
        ),
        paper_short="not in the paper",
        measured_short=f"{right} of {len(said)} statements right",
        power=power_told({"": skill}, "of the Brier score"),
    )


def packaged_forecast() -> tuple[Forecast, dict[str, str]] | None:
    """Returns the forecast fitted on the kept rows, and where it comes from; None if there is none yet."""
    file = files("wsr.studies") / FILE
    if not file.is_file():
        return None
    content = strict_json.parse(file.read_text(encoding="utf-8"))
    return Forecast(**content["forecast"]), {key: content[key] for key in ("command", "commit", "base")}


def fitted(rows: Sequence[Row]) -> Forecast:
    """Returns the forecast that the rows of the study give."""
    return fit_forecast(seen_in(rows)[1])


def base_in(rows: Sequence[Row]) -> str:
    """Returns the hash of the base of the populations in the rows of the study.

    Raises:
      WsrError: if they do not have one base.
    """
    bases = {row["base"] for row in rows if "base" in row}
    if len(bases) != 1:
        raise WsrError(f"forecast: expected populations of one base, found {len(bases)}")
    return bases.pop()
