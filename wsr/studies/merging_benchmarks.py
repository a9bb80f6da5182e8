"""A standard table of model merging: every method on published models, options chosen on validation data.

A score is the accuracy on a test split, or Spearman's rho. A normalised score is divided by that of the member that was
fine-tuned on the task, as in the literature. Intervals are percentiles of a bootstrap over test texts or images, which
all models share; the models are given.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from safetensors.numpy import load_file, save

from wsr.errors import WsrError
from wsr.geometry.trees import flatten, nest
from wsr.merging.method import METHODS, OfData, find
from wsr.runtime.atomic import write_atomically
from wsr.runtime.progress import progress
from wsr.runtime.seeds import generator
from wsr.statistics.resampling import percentiles
from wsr.store.results import Results
from wsr.store.row import Row, result_row
from wsr.studies.merged_models import CHOOSE, Effort, Model, candidates, merge_of, not_merged, options_told
from wsr.studies.merging import LEFT_OUT, OF_FEW
from wsr.studies.suite_tasks import Judge, Sizes, fetched, judge_of
from wsr.studies.suites import Suite, Task

INDIVIDUAL, PRETRAINED, MEAN = "individual", "pretrained", "mean"
SCORE, NORMALISED = "score", "normalised score"
RESAMPLES, TOGETHER = 1000, 50
"""Number of resamples of the test texts, and how many of them are scored at a time."""
Draws = Float[np.ndarray, " draws"]
"""A score of all test texts, or the same score on resamples of them."""
Taken = Int[np.ndarray, "draws texts"]
"""Which texts each draw holds."""
Told = dict[str, tuple[int, dict[str, Any]]]
"""By method: the number of options that were tried, and those chosen."""


@dataclass(frozen=True, eq=False)
class Benchmark:
    """What came out."""

    rows: list[Row]
    """Rows as in ``results.jsonl``."""
    missing: dict[str, str]
    """Why methods are missing, by name."""
    notes: list[str]
    """Commits that were read, and what was cut or left out of the data."""


def left_out(suite: Suite) -> dict[str, str]:
    """Returns why a suite does not have each method that it does not have."""
    found = {
        **LEFT_OUT,
        **OF_FEW,
        **dict.fromkeys(CHOOSE, "chooses by a fresh probe; a table scores the published heads"),
    }
    if suite.scored == "choices":
        needs = {name: "reads texts under a linear head" for name in METHODS if issubclass(find(name), OfData)}
        found = {**needs, **found}
    return found


def methods_of(suite: Suite, names: Sequence[str] = ()) -> tuple[str, ...]:
    """Returns the methods of a suite, or those of them that are named; the average is always one of them.

    Raises:
      WsrError: if a named method does not exist or does not apply.
    """
    without = left_out(suite)
    wrong = [name for name in names if find(name) and name in without]
    if wrong:
        raise WsrError(f"{suite.name}: {wrong[0]} does not apply: {without[wrong[0]]}")
    return tuple(name for name in METHODS if name not in without and (not names or name in (*names, "uniform")))


def points_of(tasks: int, names: Sequence[str], effort: Effort) -> tuple[int, int]:
    """Returns how many points are scored on a validation split, and how many on a test split."""
    tried = [len(candidates(name, tasks, effort)) for name in names]
    return tasks * sum(number for number in tried if number > 1), tasks * (2 + len(names))


def merging_benchmark(
    suite: Suite, tasks: Sequence[Task], names: Sequence[str], effort: Effort, sizes: Sizes, folder: Path
) -> Benchmark:
    """Fetches the models and the data of a suite, merges the models and scores them.

    Models, merges and scores are kept in ``folder``; the same call resumes from them.

    Args:
      suite: the suite.
      tasks: its tasks, or some of them.
      names: the methods, see ``methods_of``.
      effort: how many options of each method are tried.
      sizes: how much data is used.
      folder: where everything is kept.
    """
    store, notes = fetched(suite, tasks, folder / "store")
    judge = judge_of(suite, tasks, store, Results.on_disk(folder / "points"), sizes, folder / "questions")
    models = list(not_merged(judge.region))
    merges, told, missing = _merges(judge, tasks, names, effort, folder / "merged")
    draws: dict[str, dict[str, Draws]] = {}
    counts: dict[str, int] = {}
    with progress("test scores", len(tasks) * (2 + len(merges)), "scores") as counter:
        for task in tasks:
            data: dict[str, Any] = {task.name: judge.load(task, test=True)}
            notes += judge.notes(data[task.name])
            own = next(model for model in models if model.name == f"member of {task.name}")
            found = {}
            for group, model in ((PRETRAINED, models[0]), (INDIVIDUAL, own), *((m.name, m) for m in merges)):
                found[group] = judge.outcomes(data, model, task.name, "test")
                counter.advance(note=f"{group} on {task.name}")
            draws[task.name] = score_draws(task.data.metric, found, generator(0, "test texts", task.name))
            counts[task.name] = len(found[INDIVIDUAL]["right"])
            del data  # before the next task's is read
    return Benchmark([*_rows(suite, tasks, draws, counts, told), *_published(suite, tasks)], missing, notes)


def _merges(
    judge: Judge, tasks: Sequence[Task], names: Sequence[str], effort: Effort, folder: Path
) -> tuple[list[Model], Told, dict[str, str]]:
    """Returns the merges, which lie in files, and their options; a method that refuses these models is noted."""
    data = {}
    with progress("validation data", len(tasks), "tasks") as counter:
        for task in tasks:
            data[task.name] = judge.load(task, test=False)
            counter.advance(note=task.name)
    merges: list[Model] = []
    told: Told = {}
    missing: dict[str, str] = {}
    with progress("merging", len(names), "methods") as counter:
        for name in names:
            scored = partial(judge.outcomes, data)
            try:
                options, model = merge_of(judge.region, name, effort, judge.given(data), scored)
                merges.append(_in_file(model, folder))
                told[name] = len(candidates(name, len(tasks), effort)), options
            except WsrError as error:
                missing[name] = str(error)
            counter.advance(note=name)
    return merges, told, missing


def _in_file(model: Model, folder: Path) -> Model:
    """Returns the model with its parameters in a file: memory holds one model at a time, and no merge is repeated."""
    file = folder / f"{model.name}-{model.key[:16]}.safetensors"
    if not file.exists():
        leaves = flatten(model.load())
        write_atomically(file, save({path: np.ascontiguousarray(leaf) for path, leaf in leaves.items()}))
    return replace(model, load=lambda: nest(load_file(file)))


def score_draws(
    metric: str, outcomes: Mapping[str, Mapping[str, np.ndarray]], random: np.random.Generator
) -> dict[str, Draws]:
    """Returns the score of each group and its bootstrap; every group has the same resamples of the texts.

    Args:
      metric: ``accuracy``, or ``spearman`` of the ``values`` and the ``labels``.
      outcomes: of each group, text by text.
      random: draws the resamples.
    """
    texts = len(next(iter(outcomes.values()))["right"])
    score = {"accuracy": _accuracy, "spearman": _spearman}[metric]
    found: dict[str, list[np.ndarray]] = {group: [] for group in outcomes}
    for drawn in (0, *[TOGETHER] * (RESAMPLES // TOGETHER)):
        taken = random.integers(texts, size=(drawn, texts)) if drawn else np.arange(texts)[None]
        for group, own in outcomes.items():
            found[group].append(score(own, taken))
    return {group: np.concatenate(values) for group, values in found.items()}


def _accuracy(outcomes: Mapping[str, np.ndarray], taken: Taken) -> Draws:
    return outcomes["right"][taken].mean(axis=1)


def _spearman(outcomes: Mapping[str, np.ndarray], taken: Taken) -> Draws:
    """Spearman's rho of each row of texts; 0 where all values are equal."""
    from scipy.stats import rankdata

    ranks = [rankdata(outcomes[name][taken], axis=1) for name in ("labels", "values")]
    first, second = (own - own.mean(axis=1, keepdims=True) for own in ranks)
    lengths = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    return np.divide((first * second).sum(axis=1), lengths, out=np.zeros(len(taken)), where=lengths > 0)


def _rows(
    suite: Suite,
    tasks: Sequence[Task],
    draws: Mapping[str, Mapping[str, Draws]],
    counts: Mapping[str, int],
    told: Told,
) -> list[Row]:
    names = [task.name for task in tasks]
    rows = []
    for group in draws[names[0]]:
        tried, options = told.get(group, (0, {}))
        how = f"exact; {tried} tried; {options_told(options)}" if tried else "exact"
        each = {name: draws[name][group] for name in names}
        own = {name: draws[name][INDIVIDUAL] for name in names}
        with np.errstate(divide="ignore", invalid="ignore"):  # a member that is never right has no normalised score
            shares = [each[name] / own[name] for name in names]
        values = [(task.name, task.data.metric, each[task.name], counts[task.name]) for task in tasks]
        values += [(MEAN, SCORE, np.mean(list(each.values()), axis=0), sum(counts.values()))]
        values += [(MEAN, NORMALISED, np.mean(shares, axis=0), sum(counts.values()))]
        for dataset, metric, of_draws, texts in values:
            rows.append(
                result_row(
                    group,
                    dataset,
                    metric,
                    of_draws[0],
                    texts=texts,
                    how=how,
                    members=names,
                    interval=percentiles(of_draws[1:], 0.95),
                    study="merging_benchmarks",
                    suite=suite.name,
                )
            )
    return rows


def _published(suite: Suite, tasks: Sequence[Task]) -> list[Row]:
    """Rows of the published figures of the same models, for these tasks."""
    places = {task.name: at for at, task in enumerate(suite.tasks)}
    rows = []
    for own in suite.published:
        how = f"published{f' with {own.setting}' * bool(own.setting)}, rounded; {own.source}"
        scores = {task.name: own.percent[places[task.name]] / 100 for task in tasks}
        named = [(task.name, task.data.metric, scores[task.name]) for task in tasks]
        for dataset, metric, value in (*named, (MEAN, SCORE, float(np.mean(list(scores.values()))))):
            rows.append(
                result_row(
                    f"published: {own.group}",
                    dataset,
                    metric,
                    value,
                    texts=0,
                    how=how,
                    study="merging_benchmarks",
                    suite=suite.name,
                )
            )
    return rows
