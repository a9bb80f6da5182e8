"""The benchmark of merge methods: scores against NumPy, equal budgets, no look at test splits, the same table twice."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import rankdata
from worlds import made_up

import wsr
from wsr.engine.evaluate import Protocol
from wsr.engine.settings import Settings
from wsr.errors import WsrError
from wsr.geometry.trees import flatten, nest
from wsr.merging.method import Given, find, made, options_of
from wsr.models.features import all_features
from wsr.region.region import Member, Region
from wsr.store import hash_params
from wsr.store.results import Results
from wsr.studies import merged_models, merging_outlook
from wsr.studies.before_merging import subspace_overlap
from wsr.studies.merged_models import UNTUNED, Effort, candidates, merge_of, spread
from wsr.studies.merged_populations import Cost
from wsr.studies.merging import methods_compared
from wsr.studies.merging_outlook import seen_in

EFFORT = Effort(2, (0.2, 0.5), (1.0, 2.0), 1, 3, 1, 8)
METHODS = ("task_arithmetic", "greedy")
SPLITS = {"finetune": 16, "probe": 20, "validation": 24, "test": 32}


@pytest.fixture(scope="module")
def data(tiny):
    return {name: made_up(tiny, name, **SPLITS) for name in ("made_up_a1", "made_up_b1")}


@pytest.fixture(scope="module")
def region(tiny):
    """Two members of one dataset and one of another, near the base: they need no training."""
    random = np.random.default_rng(0)
    members = []
    for name, dataset in (("first", "made_up_a1"), ("second", "made_up_a1"), ("third", "made_up_b1")):
        params = nest(
            {
                path: np.asarray(leaf + 0.2 * random.normal(size=leaf.shape), np.float32)
                for path, leaf in flatten(tiny.params).items()
            }
        )
        members.append(Member(name, dataset, "made_up", hash_params(params), lambda params=params: params))
    return Region(tiny.model, tiny.params, members, base_sha256=hash_params(tiny.params))


@pytest.fixture(scope="module")
def heads(tiny, region):
    random = np.random.default_rng(1)
    return {
        name: {"kernel": random.normal(size=(tiny.model.hidden, 2)).astype(np.float32), "bias": np.zeros(2, np.float32)}
        for name in region.names
    }


def run(region, data, heads, *, methods=METHODS, results=None, effort=EFFORT):
    return wsr.bench_merging(region, list(data.values()), heads=heads, methods=methods, effort=effort, results=results)


@pytest.fixture(scope="module")
def bench(region, data, heads):
    return run(region, data, heads, methods=(*METHODS, "fisher"))


def accuracy(region, params, split, heads):
    """Share of the texts that are right under the mean of the heads' outputs."""
    features = np.asarray(all_features(region.model, params, split), np.float64)
    outputs = np.mean([features @ head["kernel"] + head["bias"] for head in heads], axis=0)
    return float(np.mean(outputs.argmax(axis=1) == split.labels))


def values_of(bench, metric, over="population"):
    return {
        (row["group"], row["dataset"]): row["value"]
        for row in bench.rows
        if row["metric"] == metric and row["over"] == over
    }


def test_raw_and_normalised_accuracies_are_those_of_numpy(bench, region, data, heads):
    by_dataset = {"made_up_a1": [heads["first"], heads["second"]], "made_up_b1": [heads["third"]]}
    mean = {
        path: np.mean([flatten(member.load())[path] for member in region.members], axis=0)
        for path in flatten(region.base)
    }
    shared = {name: accuracy(region, nest(mean), data[name].splits["test"], own) for name, own in by_dataset.items()}
    own = {
        member.name: accuracy(region, member.load(), data[member.dataset].splits["test"], [heads[member.name]])
        for member in region.members
    }
    individual = {"made_up_a1": (own["first"] + own["second"]) / 2, "made_up_b1": own["third"]}
    found, normalised = values_of(bench, "accuracy, own head"), values_of(bench, "normalised accuracy")
    for name, share in shared.items():
        assert found["uniform", name] == pytest.approx(share)
    assert found["uniform", "mean"] == pytest.approx(np.mean(list(shared.values())))
    wanted = np.mean([shared[name] / individual[name] for name in shared])
    assert normalised["uniform", "mean"] == pytest.approx(wanted)
    assert found["individual members", "mean"] == pytest.approx(np.mean(list(individual.values())))
    # A member has its own head at home and the mean of the heads elsewhere.
    assert found["member first", "made_up_a1"] == pytest.approx(own["first"])
    away = accuracy(region, region.members[2].load(), data["made_up_a1"].splits["test"], by_dataset["made_up_a1"])
    assert found["member of made_up_b1", "made_up_a1"] == pytest.approx(away)


def test_the_rank_is_that_of_the_mean_accuracies(bench):
    found, ranks = values_of(bench, "accuracy, own head"), values_of(bench, "rank", "kind")
    names = ["uniform", "task_arithmetic", "fisher"]
    wanted = rankdata([-found[name, "mean"] for name in names])
    assert [ranks[name, "mean"] for name in names] == wanted.tolist()
    assert bench.ranking.methods == sorted(names, key=lambda name: wanted[names.index(name)])


def test_passthrough_is_the_best_member_under_all_heads_of_a_dataset_and_is_not_forecast(region, data, heads):
    found = run(region, data, heads, methods=("passthrough",))
    name = found.scored.best_member
    best = next(
        member for member in region.members if name in ("member " + member.name, "member of " + member.dataset)
    ).load()
    accuracies = values_of(found, "accuracy, own head")
    for name, dataset in data.items():
        its = [heads[member.name] for member in region.members if member.dataset == name]
        assert accuracies["passthrough", name] == pytest.approx(accuracy(region, best, dataset.splits["test"], its))
    _, seen = seen_in(found.rows)
    assert seen.outcomes.keys() == {"uniform"}


def test_a_method_that_refuses_the_members_is_told(bench):
    assert bench.scored.missing.keys() == {"greedy"}
    assert "greedy chooses on one dataset, found 2" in bench.scored.missing["greedy"]


@pytest.mark.long
def test_two_runs_give_the_same_rows_and_a_finished_one_merges_nothing(region, data, heads, monkeypatch):
    results = Results.in_memory()
    first = run(region, data, heads, results=results)
    assert run(region, data, heads).rows == first.rows
    monkeypatch.setattr(merged_models, "merge", lambda *_: pytest.fail("merged again"))
    assert run(region, data, heads, results=results).rows == first.rows


SCALED = [name for name in methods_compared() if "scale" in options_of(find(name)).keys() - {*UNTUNED.get(name, ())}]


@pytest.mark.parametrize("name", SCALED)
def test_scale_multiplies_what_a_method_adds_to_the_base(region, name):
    once, more = (flatten(wsr.merge(region, find(name)(scale=scale))) for scale in (1.0, 2.5))
    for path, base in flatten(region.base).items():
        np.testing.assert_allclose(more[path], base + 2.5 * (once[path] - base), rtol=0, atol=1e-5, err_msg=path)


@pytest.mark.parametrize(("name", "merges"), [("wudi", 1), ("ties", 2), ("uniform", 1)])
def test_options_that_differ_in_their_scale_alone_share_one_merge(region, monkeypatch, name, merges):
    merged, merge = [], merged_models.merge
    monkeypatch.setattr(merged_models, "merge", lambda *given: merged.append(given[1]) or merge(*given))

    def outcomes(model, *_):
        return {"own_losses": np.array([-np.abs(flatten(model.load())["layers/0/attention/key/kernel"]).mean()])}

    effort = Effort(4, (0.1, 0.5), (1.0, 4.0), 1, 3, 1, 8)
    options, model = merge_of(region, name, effort, Given(), outcomes)
    found, expected = (flatten(own) for own in (model.load(), merge(region, find(name)(**options), Given())))
    assert len(merged) == merges
    for path, leaf in expected.items():
        np.testing.assert_allclose(found[path], leaf, rtol=0, atol=1e-5, err_msg=path)


def flipped(dataset, split):
    """The dataset of two classes with every label of a split wrong."""
    own = dataset.splits[split]
    return dataset.with_split(split, dataclasses.replace(own, labels=1 - own.labels))


def test_nothing_is_chosen_on_a_test_split(bench, region, data, heads):
    """With every test label wrong, the same options and the same member are chosen."""
    found = run(region, {name: flipped(own, "test") for name, own in data.items()}, heads)
    right = values_of(bench, "accuracy, own head")
    for place, value in values_of(found, "accuracy, own head").items():
        assert value == pytest.approx(1 - right[place]), place
    assert found.scored.chosen == {name: bench.scored.chosen[name] for name in ("uniform", "task_arithmetic")}
    assert found.scored.best_member == bench.scored.best_member
    assert found.scored.features == bench.scored.features


def test_validation_data_chooses(bench, region, data, heads):
    """With every validation label wrong, something else is chosen."""
    found = run(region, {name: flipped(own, "validation") for name, own in data.items()}, heads).scored
    name = "task_arithmetic"
    assert (found.chosen[name], found.best_member) != (bench.scored.chosen[name], bench.scored.best_member)


@pytest.mark.parametrize("budget", [1, 4, 5, 6, 9])
def test_methods_with_options_to_choose_try_equally_many(budget):
    effort = Effort(budget, (0.1, 0.5), (1.0, 4.0), 1, 3, 1, 8)
    numbers = {name: len(candidates(name, 3, effort)) for name in methods_compared()}
    assert numbers.pop("adamerging") == min(budget, 2)
    known = {name: options_of(find(name)).keys() & {"density", "scale"} - {*UNTUNED.get(name, ())} for name in numbers}
    assert numbers == {name: budget if known[name] else 1 for name in numbers}
    for name in ("ties", "task_arithmetic", "sce"):
        tried = candidates(name, 3, effort)
        assert len({tuple(own.items()) for own in tried}) == budget
        assert all(0.1 <= own.get("density", 0.1) <= 0.5 for own in tried)
        factor = 3 if name == "task_arithmetic" else 1  # its scale is that of a sum
        assert all(1 - 1e-9 <= factor * own.get("scale", 1 / factor) <= 4 for own in tried)


@pytest.mark.parametrize("densities", [(0.1, 0.5), (0.02, 0.98)])
def test_every_option_that_is_tried_is_allowed(densities):
    for name in methods_compared():
        for own in candidates(name, 3, Effort(6, densities)):
            made(name, own)


def test_learned_coefficients_take_one_probe_where_others_are_measured_by_several(region, data, heads):
    one_dataset = region.where(lambda member: member.dataset == "made_up_a1")
    given = Given(own=data, heads=heads, protocol=Protocol(draws=3), settings=Settings(results=Results.in_memory()))
    options, model = merge_of(one_dataset, "learned", EFFORT, given, lambda *_: pytest.fail("nothing to choose"))
    assert options == {"points": 3}
    given = dataclasses.replace(given, dataset=[data["made_up_a1"]], protocol=Protocol())
    expected = flatten(wsr.merge(one_dataset, find("learned")(points=3), given))
    for path, leaf in flatten(model.load()).items():
        np.testing.assert_allclose(leaf, expected[path], rtol=0, atol=1e-6, err_msg=path)


def test_methods_of_one_member_merge_the_best_member_and_those_of_two_refuse_three(region, data, heads):
    found = run(region, data, heads, methods=["nearswap", "slerp"]).scored
    assert found.methods == ("uniform", "nearswap")
    assert "slerp merges exactly 2 members; found 3" in found.missing["slerp"]
    best = region.members[[f"member {own.name}" for own in region.members].index(found.best_member)]
    merged = wsr.merge(region.where(lambda member: member.name == best.name), find("nearswap")())
    shared = accuracy(region, merged, data["made_up_a1"].splits["test"], [heads["first"], heads["second"]])
    assert found.right["nearswap"]["made_up_a1"].mean() == pytest.approx(shared)
    assert found.costs["nearswap"] == Cost(1, 3 * 2 * 24)  # three members on two validation splits


def test_numbers_are_spread_evenly_on_a_logarithmic_scale():
    np.testing.assert_allclose(spread((1.0, 8.0), 4), np.geomspace(1, 8, 4))
    assert spread((0.1, 0.4), 1) == [pytest.approx(0.2)]
    with pytest.raises(WsrError, match="budget = 0"):
        Effort(0)
    with pytest.raises(WsrError, match="expected the lowest and the highest number"):
        Effort(1, (0.5, 0.1))


def test_the_texts_of_a_method_are_those_that_pass_through_the_encoder(region, data, heads, monkeypatch):
    results, passed, encode = Results.in_memory(), [], merged_models.all_features
    run(region, data, heads, methods=["uniform"], results=results)

    def counted(model, params, texts):
        passed.append(len(texts))
        return encode(model, params, texts)

    monkeypatch.setattr(merged_models, "all_features", counted)
    found = run(region, data, heads, methods=["task_arithmetic"], results=results)
    test = sum(len(own.splits["test"]) for own in data.values())
    assert found.scored.costs["task_arithmetic"] == Cost(2, sum(passed) - test)


def test_every_method_has_its_cost(bench):
    options, texts = (values_of(bench, metric, "kind") for metric in ("options tried", "texts read"))
    assert {group for group, _ in options} == {group for group, _ in texts} == {"uniform", "task_arithmetic", "fisher"}
    assert (options["uniform", "mean"], texts["uniform", "mean"]) == (1, 0)
    assert (options["task_arithmetic", "mean"], texts["task_arithmetic", "mean"]) == (2, 2 * 2 * 24)
    assert texts["fisher", "mean"] == 3 * 8  # of each member's dataset
    assert {"options tried", "texts read"} <= set(bench.table.columns)


def test_features_are_those_of_numpy(bench, region, data, heads):
    features = bench.scored.features
    vectors = np.stack(
        [
            np.concatenate([(np.asarray(leaf, np.float64) - flatten(region.base)[path]).ravel()
                            for path, leaf in sorted(flatten(member.load()).items())])
            for member in region.members
        ]
    )  # fmt: skip
    lengths = np.linalg.norm(vectors, axis=1)
    cosines = (vectors @ vectors.T / np.outer(lengths, lengths))[np.triu_indices(3, 1)]
    base = np.sqrt(
        sum(np.square(leaf, dtype=np.float64).sum() for leaf in map(np.asarray, flatten(region.base).values()))
    )
    assert features["cosine"] == pytest.approx(cosines.mean(), abs=1e-5)
    assert features["length"] == pytest.approx(np.log(lengths.mean() / base), abs=1e-5)
    assert features["unequal lengths"] == pytest.approx(np.log(lengths.max() / lengths.min()), abs=1e-5)
    assert (features["members"], features["datasets"]) == (pytest.approx(np.log2(3)), 1.0)

    def loss(params, name, own):
        split = data[name].splits["validation"]
        hidden = np.asarray(all_features(region.model, params, split), np.float64)
        outputs = np.mean([hidden @ head["kernel"] + head["bias"] for head in own], axis=0)
        highest = outputs.max(axis=1)
        logs = highest + np.log(np.exp(outputs - highest[:, None]).sum(axis=1))
        return float(np.mean(logs - outputs[np.arange(len(outputs)), split.labels]))

    by_dataset = {"made_up_a1": [heads["first"], heads["second"]], "made_up_b1": [heads["third"]]}
    table = np.array(
        [
            [loss(member.load(), name, [heads[member.name]] if member.dataset == name else own)
             for name, own in by_dataset.items()]
            for member in region.members
        ]
    )  # fmt: skip
    individual = np.array([table[:2, 0].mean(), table[2, 1]])
    start = np.array([loss(region.base, name, own) for name, own in by_dataset.items()])
    assert features["gap"] == pytest.approx(table.mean(axis=1).min() - individual.mean(), abs=1e-4)
    assert features["learned"] == pytest.approx((start - individual).mean(), abs=1e-4)
    assert table.mean(axis=1).argmin() == list(region.names).index(bench.scored.best_member.removeprefix("member "))


def test_the_overlap_is_that_of_leading_singular_vectors(region):
    overlaps = []
    for path, base in flatten(region.base).items():
        if np.ndim(base) != 2 or min(base.shape) <= 4 or "embed" in path:
            continue
        leading = [
            np.linalg.svd(np.asarray(flatten(member.load())[path], np.float64) - base)[2][:4]
            for member in region.members
        ]
        overlaps += [np.sum((leading[a] @ leading[b].T) ** 2) / 4 for a, b in ((0, 1), (0, 2), (1, 2))]
    assert subspace_overlap(region) == pytest.approx(np.mean(overlaps), abs=1e-6)
    assert any(np.shape(leaf)[0] < np.shape(leaf)[1] for leaf in flatten(region.base).values() if np.ndim(leaf) == 2)
    twins = region.with_members([region.members[0], dataclasses.replace(region.members[0], name="twin")])
    assert subspace_overlap(twins) == pytest.approx(1.0)


def test_matrices_that_a_member_did_not_change_have_no_overlap(region):
    """Two members whose changes have rank 1: the overlap is the squared cosine of their outputs."""
    random, base = np.random.default_rng(0), {name: np.asarray(leaf) for name, leaf in flatten(region.base).items()}
    path = next(name for name, leaf in base.items() if leaf.ndim == 2 and min(leaf.shape) > 4 and "embed" not in name)
    outputs = random.normal(size=(2, base[path].shape[1]))
    members = {}
    for name, row in zip("ab", outputs, strict=True):
        changed = (base[path] + np.outer(random.normal(size=len(base[path])), row)).astype(np.float32)
        members[name] = nest(base | {path: changed})
    own = wsr.from_params(region.model, region.base, members)
    cosine = outputs[0] @ outputs[1] / np.prod(np.linalg.norm(outputs, axis=1))
    assert subspace_overlap(own) == pytest.approx(cosine**2, abs=1e-4)
    alone = wsr.from_params(region.model, region.base, {"a": members["a"], "base": nest(base)})
    assert subspace_overlap(alone) == 0.0


def test_nothing_is_told_that_was_not_measured(bench):
    """Until the study has been run, there is no forecast."""
    file = Path(merging_outlook.__file__).with_name(merging_outlook.FILE)
    assert bool(bench.outlook) == file.is_file()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"methods": ["tie"]}, "no merge method is called 'tie'"),
        ({"methods": ["weighted"]}, "weighted is not compared: with equal weights it is uniform"),
        ({"data": ["made_up_c1"]}, "made_up_c1: no member was fine-tuned on it; there are members of made_up_a1"),
        ({"data": ["made_up_b1"]}, "only third was fine-tuned on made_up_b1; a merge takes two members"),
    ],
)
def test_what_cannot_be_compared_is_refused(region, data, heads, change, told):
    named = [dataclasses.replace(data["made_up_b1"], name=name) for name in change.get("data", data)]
    with pytest.raises(WsrError, match=told):
        wsr.bench_merging(region, named, heads=heads, methods=change.get("methods", ()), effort=EFFORT)


def test_labels_that_are_numbers_are_refused(region, data, heads):
    numbers = dataclasses.replace(data["made_up_a1"], classes=1, metric="pearson")
    with pytest.raises(WsrError, match="made_up_a1: the labels are numbers"):
        wsr.bench_merging(region, [numbers], heads=heads, methods=["ties"], effort=EFFORT)
