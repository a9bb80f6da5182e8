"""The benchmark of merge methods on members of your own: the ranked table, and the forecast that comes before it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wsr.data.dataset import Dataset
from wsr.engine.evaluate import Protocol
from wsr.engine.settings import Settings
from wsr.errors import WsrError
from wsr.merging.method import Given, find
from wsr.merging.own_texts import own_head
from wsr.region.region import Region
from wsr.report.document import Table
from wsr.runtime.progress import progress
from wsr.runtime.seeds import generator
from wsr.statistics.forecast import CANNOT_SAY, DOES_NOT, HELPS, Answer
from wsr.store.results import Results
from wsr.store.row import Row
from wsr.studies.merged_models import Effort
from wsr.studies.merged_populations import CENTROID, Population, Scored, refuse_numbers, scored
from wsr.studies.merging import LEFT_OUT, methods_compared, ranked, ranking_table
from wsr.studies.merging_outlook import packaged_forecast
from wsr.studies.merging_ranking import Ranking
from wsr.types import Head

YOURS = "your members"


@dataclass(frozen=True, eq=False, repr=False)
class MergeBench:
    """What came out: the ranking, the options, and the forecast of each method."""

    ranking: Ranking
    scored: Scored
    rows: list[Row]
    """Rows as in ``results.jsonl``."""
    forecasts: Mapping[str, Answer]
    """What the packaged forecast says of each method; empty if there is none."""

    @property
    def table(self) -> Table:
        """The methods, best first."""
        return ranking_table(self.ranking)

    @property
    def outlook(self) -> str:
        """Returns the forecast in one line; empty if there is none."""
        if not self.forecasts:
            return ""
        by_statement: dict[str, list[str]] = {}
        for name, answer in self.forecasts.items():
            by_statement.setdefault(answer.statement, []).append(name)
        told = [f"{what}: {', '.join(by_statement[what])}" for what in (HELPS, DOES_NOT) if what in by_statement]
        unsure = by_statement.get(CANNOT_SAY, [])
        if unsure:
            reasons = dict.fromkeys(self.forecasts[name].why for name in unsure)
            told.append(f"{CANNOT_SAY} for {len(unsure)} methods: {'; '.join(reasons)}")
        return f"forecast before the merges, against the best member: {'. '.join(told)}"

    def __repr__(self) -> str:
        first, best = self.ranking.methods[0], self.scored.best_member
        accuracy = self.ranking.accuracy[first]
        return (
            f"{len(self.ranking.methods)} ways to merge {len(self.scored.population.region)} members\n"
            f"  first: {first}, accuracy {accuracy.value:.3f} ({accuracy.low:.3f} to {accuracy.high:.3f}); {best}: "
            f"{self.ranking.accuracy['best member'].value:.3f}"
        )


def bench_merging(
    region: Region,
    datasets: Sequence[Dataset],
    *,
    heads: Mapping[str, Head] | None = None,
    methods: Sequence[str] = (),
    effort: Effort | None = None,
    results: Results | None = None,
    seed: int = 0,
) -> MergeBench:
    """Merges the members of some datasets by every method and ranks the results.

    Validation splits choose the options of each method, and the member that merges are compared with. Test splits
    only score.

    Args:
      region: the members; those of other datasets than the named ones are left out.
      datasets: datasets that members were fine-tuned on. Each merge is one model for all of them.
      heads: head of each member, by the member's name; a linear probe is fitted for a member without one.
      methods: names of the methods; none for all. The average is always one of them.
      effort: how many options are tried; None: the defaults of ``Effort``.
      results: finished points; those of an earlier run are read, not computed again.
      seed: of the resamples behind the intervals.

    Raises:
      WsrError: if fewer than two members are left, a dataset has no members or no classes, or a method does not apply.

    Example:
      >>> import wsr
      >>> base = wsr.load("tiny")
      >>> recipe = wsr.Recipe(learning_rate=0.01, batch_size=32, epochs=2.0)
      >>> sizes = {"finetune": 64, "probe": 30, "validation": 30, "test": 40}
      >>> data = wsr.load_dataset("made_up_a1", base.processor, max_length=48, sizes=sizes)
      >>> trained = wsr.finetune(base.model, base.params, [wsr.Job(data, seed, recipe) for seed in (0, 1)])
      >>> members = {f"seed {own.job.seed}": own for own in trained}
      >>> region = wsr.from_params(
      ...     base.model, base.params, {name: own.params for name, own in members.items()}, dataset="made_up_a1"
      ... )
      >>> heads = {name: own.head for name, own in members.items()}
      >>> bench = wsr.bench_merging(region, [data], heads=heads, methods=["ties"])
      merging: 5/5 models, ...
      >>> sorted(bench.ranking.methods), bench.ranking.costs["ties"].options
      (['ties', 'uniform'], 4)
    """
    names = [own.name for own in datasets]
    without = [name for name in names if name not in region.datasets]
    if without:
        known = ", ".join(dict.fromkeys(region.datasets))
        raise WsrError(f"{', '.join(without)}: no member was fine-tuned on it; there are members of {known}")
    refuse_numbers(datasets)
    region = region.where(lambda member: member.dataset in names)
    if len(region) < 2:
        raise WsrError(
            f"only {', '.join(region.names)} was fine-tuned on {', '.join(names)}; a merge takes two members"
        )
    wrong = [name for name in methods if find(name) and name in LEFT_OUT]
    if wrong:
        raise WsrError(f"{wrong[0]} is not compared: {LEFT_OUT[wrong[0]]}")
    tried = [name for name in methods_compared() if not methods or name in (*methods, CENTROID)]
    by_name = {own.name: own for own in datasets}
    given = Given(own=by_name, heads=heads or {})
    own_heads = {
        member.name: {part: np.asarray(leaf) for part, leaf in own_head(region, member, member.load(), given).items()}
        for member in region.members
    }
    population = Population(YOURS, YOURS, region, own_heads)
    with progress("merging", 1 + len(region) + len(tried), "models") as counter:
        found = scored(
            population,
            by_name,
            tried,
            effort or Effort(),
            Settings(results=results or Results.in_memory()),
            Protocol(),
            counter,
        )
    (ranking,), rows = ranked([found], generator(seed, "merging"))
    return MergeBench(ranking, found, rows, _forecasts(found))


def _forecasts(found: Scored) -> dict[str, Answer]:
    kept = packaged_forecast()
    if kept is None:
        return {}
    forecast, about = kept
    known = [name for name in found.methods if name in forecast.intercepts]
    if about["base"] != found.population.region.base_sha256:
        why = f"the forecast was fitted on models of another checkpoint ({about['command']})"
        return {name: Answer(forecast.answer(found.features, name).probability, CANNOT_SAY, why) for name in known}
    return {name: forecast.answer(found.features, name) for name in known}
