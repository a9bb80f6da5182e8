"""The populations of the study of merge methods: how they are drawn, ranked and told beforehand."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.stats import rankdata

import wsr
from wsr.errors import WsrError
from wsr.runtime.seeds import generator
from wsr.statistics.forecast import CANNOT_SAY, HELPS, Forecast
from wsr.studies import bench_merging as benchmark
from wsr.studies import merging_outlook
from wsr.studies.merged_populations import Cost, Population, Scored
from wsr.studies.merging import ALL, TWO, ranked
from wsr.studies.merging_draws import AGAIN, FAMILIES, KINDS, ONE_DATASET, ONE_FAMILY, drawn_populations
from wsr.studies.merging_outlook import fitted, packaged_forecast, seen_in

FAMILY = {f"{family}{number}": family for family, count in (("s", 5), ("t", 4), ("u", 1)) for number in range(count)}


def test_no_member_is_in_two_populations_of_a_recipe():
    draws = drawn_populations(FAMILY, (2, 3, 4), 6, seed=0)
    assert draws == drawn_populations(FAMILY, (2, 3, 4), 6, seed=0) != drawn_populations(FAMILY, (2, 3, 4), 6, seed=1)
    assert len({draw.name for draw in draws}) == len(draws) == len(FAMILY) + 5 * 6
    assert tuple(dict.fromkeys(draw.kind for draw in draws)) == KINDS
    for kinds in ((ONE_DATASET, ONE_FAMILY, FAMILIES), *((kind,) for kind in AGAIN)):
        members = [member for draw in draws if draw.kind in kinds for member in draw.members]
        assert len(members) == len(set(members))
    for draw in draws:
        names = [name for name, _ in draw.members]
        families = {FAMILY[name] for name in names}
        assert len(names) in (2, 3, 4)
        if draw.kind == ONE_DATASET:
            assert len(set(names)) == 1
        else:
            assert len(set(names)) == len(names)
            assert len(families) == 1 if draw.kind == ONE_FAMILY else len(families) > 1
    across = [draw.members for draw in draws if draw.kind == FAMILIES]
    for kind in AGAIN:
        assert [draw.members for draw in draws if draw.kind == kind] == across


def test_datasets_that_give_no_populations_are_refused():
    with pytest.raises(WsrError, match="a population to merge has at least 2 members"):
        drawn_populations(FAMILY, (1,), 2, seed=0)
    with pytest.raises(WsrError, match="2 datasets of 1 families"):
        drawn_populations({"a": "s", "b": "s"}, (2,), 2, seed=0)


MADE_UP = wsr.made_up_region(2)


def simulated(number, gap, random):
    """A population whose merge by ties beats its best member if ``gap`` is positive, and whose average never does."""
    region, names = MADE_UP, (f"d{number}", f"d{number + 1}")
    members = [dataclasses.replace(member, dataset=name) for member, name in zip(region.members, names, strict=True)]
    shares = {"pretrained": 0.5, "member a": 0.7, "member b": 0.65, "uniform": 0.6, "ties": 0.7 + 0.2 * np.tanh(gap)}
    right = {
        group: {name: (random.uniform(size=400) < share).astype(float) for name in names}
        for group, share in shares.items()
    }
    return Scored(
        Population("several families", f"several families {number}", region.with_members(members), {}),
        right,
        {name: np.full(400, 0.8) for name in names},
        "member a",
        {"uniform": {}, "ties": {"density": 0.5}},
        {"uniform": Cost(1, 0), "ties": Cost(4, 320)},
        {},
        {"gap": gap, "cosine": float(random.normal())},
    )


@pytest.fixture(scope="module")
def populations():
    random = np.random.default_rng(0)
    return [simulated(number, float(gap), random) for number, gap in enumerate(random.normal(0, 1.5, 40))]


@pytest.fixture(scope="module")
def of_populations(populations):
    """Their ranking and rows."""
    return ranked(populations, generator(0, "test"))


def test_means_over_populations_are_those_of_numpy_with_intervals_of_their_spread(populations, of_populations):
    (found,), rows = of_populations
    accuracies = {
        group: np.array([np.mean([own.right[group][name].mean() for name in own.individual]) for own in populations])
        for group in ("uniform", "ties", "member a")
    }
    assert found.accuracy["ties"].value == pytest.approx(accuracies["ties"].mean())
    assert found.normalised["uniform"].value == pytest.approx(accuracies["uniform"].mean() / 0.8)
    assert found.minus_best["ties"].value == pytest.approx((accuracies["ties"] - accuracies["member a"]).mean())
    assert found.helped["ties"] == np.mean(accuracies["ties"] > accuracies["member a"])
    wanted = [rankdata([-accuracies["uniform"][at], -accuracies["ties"][at]]) for at in range(40)]
    assert [found.rank[name].value for name in ("uniform", "ties")] == pytest.approx(np.mean(wanted, axis=0).tolist())
    # The populations differ far more than 800 texts would make them.
    gain = found.minus_centroid["ties"]
    spread_of_means = (accuracies["ties"] - accuracies["uniform"]).std(ddof=1) / np.sqrt(40)
    assert gain.high - gain.low == pytest.approx(2 * 1.96 * spread_of_means, rel=0.2)
    assert found.p_values["ties"] < 0.01
    assert {row["over"] for row in rows} == {"population", "kind"}


def test_all_kinds_together_are_ranked_on_the_methods_that_all_of_them_have(populations):
    other = dataclasses.replace(
        populations[0],
        population=dataclasses.replace(populations[0].population, kind="LoRA", name="LoRA 1"),
        chosen={"uniform": {}},
    )
    rankings, _ = ranked([*populations[:3], other], generator(0, "test"))
    assert [own.kind for own in rankings] == ["several families", "LoRA", ALL]
    assert [set(own.rank) for own in rankings] == [{"uniform", "ties"}, {"uniform"}, {"uniform"}]
    assert rankings[1].minus_centroid == {}


def test_methods_of_two_members_are_ranked_on_the_populations_of_two(populations):
    def with_slerp(own):
        right = {**own.right, "slerp": own.right["ties"]}
        return dataclasses.replace(
            own, chosen={**own.chosen, "slerp": {}}, costs={**own.costs, "slerp": Cost(1, 0)}, right=right
        )

    three = populations[2].population
    names = [*three.datasets, "d9"]
    members = [
        dataclasses.replace(member, dataset=name)
        for member, name in zip(wsr.made_up_region(3).members, names, strict=True)
    ]
    larger = dataclasses.replace(three, region=three.region.with_members(members))
    found = [*map(with_slerp, populations[:2]), dataclasses.replace(populations[2], population=larger)]
    rankings, _ = ranked(found, generator(0, "test"))
    assert [(own.kind, own.populations) for own in rankings] == [("several families", 3), (TWO, 2)]
    assert [set(own.rank) for own in rankings] == [{"uniform", "ties"}, {"uniform", "ties", "slerp"}]


def test_what_was_seen_is_read_from_the_rows(populations, of_populations):
    names, seen = seen_in(json.loads(json.dumps(of_populations[1])))
    assert names == [own.population.name for own in populations]
    np.testing.assert_allclose(seen.features["gap"], [own.features["gap"] for own in populations])
    helped = [
        float(np.mean([own.right["ties"][d].mean() - own.right["member a"][d].mean() for d in own.individual]) > 0)
        for own in populations
    ]
    assert seen.outcomes["ties"].tolist() == helped
    # Neighbours share a dataset.
    distance = np.abs(np.arange(40)[:, None] - np.arange(40))
    np.testing.assert_array_equal(seen.apart, distance > 1)


def test_the_forecast_of_kept_rows_is_written_read_and_told(populations, of_populations, tmp_path, monkeypatch):
    from experiments.merge_forecast import PAGE, main
    from wsr.cli.program import call
    from wsr.report.document import Document
    from wsr.studies.harness.results import collect

    run_folder, kept, file = tmp_path / "merging", tmp_path / "kept", tmp_path / "merge_forecast.json"
    run_folder.mkdir()
    rows = of_populations[1]
    wsr.store.results.write_rows(run_folder / "results.jsonl", rows)
    (run_folder / "plan.json").write_text("{}")
    document = Document("merging", (), {"command": "python -m experiments.merging"}, ())
    (run_folder / "document.json").write_text(document.to_json())
    collect(run_folder, kept, commit="abc")
    assert call(PAGE, main, [f"--kept={kept}", f"--to={file}"]) == 0
    content = json.loads(file.read_text())
    monkeypatch.setattr(merging_outlook, "files", lambda _: tmp_path)
    forecast, about = packaged_forecast()
    assert forecast.populations == 40
    assert forecast == Forecast(**fitted(rows).plain())
    assert about == {key: content[key] for key in ("command", "commit", "base")}
    assert forecast.answer({"gap": 2.5, "cosine": 0.0}, "ties").statement == HELPS
    assert forecast.answer({"gap": 2.5, "cosine": 0.0}, "uniform").statement == "does not help"

    # Members of another base get no statement; those of this one do.
    monkeypatch.setattr(benchmark, "packaged_forecast", lambda: (forecast, about))
    with pytest.raises(WsrError, match="no feature"):
        benchmark._forecasts(dataclasses.replace(populations[0], features={"cosine": 0.0}))
    at_home = benchmark._forecasts(populations[np.argmax([own.features["gap"] for own in populations])])
    assert at_home["ties"].statement == HELPS
    monkeypatch.setattr(benchmark, "packaged_forecast", lambda: (forecast, about | {"base": "another"}))
    away = benchmark._forecasts(populations[0])
    assert {answer.statement for answer in away.values()} == {CANNOT_SAY}
    assert "models of another checkpoint" in away["ties"].why
