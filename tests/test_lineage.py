"""``wsr lineage``: p-values against enumeration, and trees of tiny models that were trained here."""

import itertools
import json
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from models_support import random_params
from shuffling import shuffled
from worlds import made_up

import wsr
from benchmarks import lineage as lineage_benchmark
from wsr.cli import main
from wsr.errors import WsrError
from wsr.exchange.family_tree import relations
from wsr.exchange.lineage import in_another_order_p_value, in_order_p_value
from wsr.geometry.spectrum import singular_values
from wsr.geometry.trees import flatten, nest
from wsr.models import architectures, build
from wsr.models.permutations import permutable
from wsr.statistics.fixed_points import fixed_points_p_value
from wsr.statistics.white_noise import white_noise_p_value
from wsr.store import Store

# The tests of a common origin


@pytest.mark.parametrize("sizes", [(1,), (2,), (5,), (4, 3), (2, 2, 3)])
def test_the_p_value_of_fixed_points_is_that_of_all_permutations(sizes):
    totals = [
        sum(int(own[place] == place) for own in chosen for place in range(len(own)))
        for chosen in itertools.product(*(itertools.permutations(range(size)) for size in sizes))
    ]
    for count in range(sum(sizes) + 2):
        expected = np.mean([total >= count for total in totals])
        assert fixed_points_p_value(count, sizes) == pytest.approx(expected, abs=1e-12)


def test_fixed_points_of_many_units_follow_poisson():
    from scipy.stats import poisson

    for count in (0, 1, 5, 30):
        assert fixed_points_p_value(count, [3072] * 6) == pytest.approx(poisson.sf(count - 1, 6), rel=1e-9)
    assert fixed_points_p_value(3072, [3072]) == 0
    assert 0 < fixed_points_p_value(100, [3072]) < 1e-150


@pytest.mark.parametrize("shape", [(16, 16), (12, 40)])
def test_the_p_value_of_white_noise_is_uniform_and_that_of_a_direction_is_small(shape):
    random = np.random.default_rng(0)
    draws = [random.standard_normal(shape) for _ in range(400)]
    p = np.array([white_noise_p_value(np.linalg.svd(own, compute_uv=False), shape) for own in draws])
    for level in (0.1, 0.5):
        assert (p <= level).mean() == pytest.approx(level, abs=0.08)
    direction = np.outer(random.standard_normal(shape[0]), random.standard_normal(shape[1]))
    assert white_noise_p_value(singular_values(draws[0] + direction), shape) < 1e-6
    assert white_noise_p_value(np.zeros(3), (3, 3)) == 1


def test_independent_models_have_uniform_p_values_in_order_and_rarely_another_order():
    """The law is exact whatever the weights are, so random ones suffice; benchmarks/lineage.py trains them first."""
    model = build("llama", architectures()["llama"].example)
    units = permutable(model)
    drawn = [
        {path: np.asarray(leaf) for path, leaf in flatten(random_params(model, seed)).items()} for seed in range(20)
    ]
    pairs = list(itertools.combinations(drawn, 2))
    in_order = np.array([in_order_p_value(*pair, units)[0] for pair in pairs])
    another = np.array([in_another_order_p_value(*pair, units)[0] for pair in pairs])
    for found in (in_order, another):
        assert (found <= 0.05).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / len(pairs))
        assert found.min() > 0.001 / len(pairs)


# Trees


@pytest.fixture(scope="module")
def family(tiny):
    """A base, two fine-tuned models, one trained on from the first, one with LoRA, and another base."""
    first, second = made_up(tiny, "made_up_a1"), made_up(tiny, "made_up_b1")

    def trained(start, dataset, seed=0, **settings):
        recipe = wsr.Recipe(**{"learning_rate": 0.003, "batch_size": 16, "epochs": 2.0, "warmup": 0.006, **settings})
        (member,) = wsr.finetune(tiny.model, start, [wsr.Job(dataset, seed, recipe)], chunk=1)
        return jax.tree.map(np.asarray, member.params)

    found = {"base": tiny.params, "a": trained(tiny.params, first), "b": trained(tiny.params, second)}
    found["c"] = trained(found["a"], second, seed=1)
    found["lora"] = trained(tiny.params, first, seed=2, mode="lora", lora_rank=2, learning_rate=0.01)
    found["other"] = trained(random_params(tiny.model, 5), first)
    return {name: {path: np.asarray(leaf) for path, leaf in flatten(own).items()} for name, own in found.items()}


@pytest.fixture(scope="module")
def lineage_of(tiny, family):
    """The lineage of models of the family, or of others made of them."""

    def found(*names, base=None, **others):
        leaves = {**{name: family[name] for name in names}, **others}
        models = [wsr.models.Checkpoint(tiny.model, nest(own), None, name) for name, own in leaves.items()]
        return wsr.lineage(*models, base=base)

    return found


@pytest.mark.parametrize("name", ["a", "b", "c", "lora"])
def test_a_fine_tuned_model_and_its_base_have_a_common_origin(lineage_of, name):
    (pair,) = lineage_of("base", name).pairs
    assert pair.origin == "in order"
    assert pair.p_value < 1e-9
    assert pair.change == ("low rank" if name == "lora" else "trained")
    assert (pair.relation, pair.parent) == ("related", None)  # two models do not tell the older one
    (pair,) = lineage_of("base", name, base="base").pairs
    assert (pair.relation, pair.parent) == ("parent and child", "base")


def test_siblings_children_and_grandchildren_are_told_apart(lineage_of):
    found = lineage_of("base", "a", "b", "c", base="base")
    expected = {
        ("base", "a"): ("parent and child", "base"),
        ("base", "b"): ("parent and child", "base"),
        ("a", "b"): ("siblings", None),
        ("a", "c"): ("parent and child", "a"),
        ("base", "c"): ("ancestor and descendant", "base"),
        ("b", "c"): ("related", None),
    }
    assert {pair.names: (pair.relation, pair.parent) for pair in found.pairs} == expected
    unknown = lineage_of("base", "a", "b")
    assert unknown.between("a", "base").relation == "parent and child"
    assert {pair.parent for pair in unknown.pairs} == {None}


def test_independent_models_are_called_independent(lineage_of):
    found = lineage_of("base", "a", "other")
    assert found.between("a", "base").origin == "in order"
    for name in ("a", "base"):
        pair = found.between(name, "other")
        assert (pair.origin, pair.relation, pair.change, pair.distance) == ("independent", "independent", "", None)
        assert pair.p_value > 0.05


def test_copies_tell_what_was_done_to_them(lineage_of, family, tiny):
    random = np.random.default_rng(0)
    base = family["base"]
    noised = {
        path: (leaf + 0.02 * random.standard_normal(leaf.shape)).astype(np.float32) for path, leaf in base.items()
    }
    pruned = {
        path: np.where(np.abs(leaf) < np.quantile(np.abs(leaf), 0.3), 0, leaf) if leaf.ndim == 2 else leaf
        for path, leaf in base.items()
    }
    rounded = {path: leaf.astype(ml_dtypes.bfloat16).astype(np.float32) for path, leaf in base.items()}
    for copy, change, older in (
        (base, "none", None),
        (noised, "noise", None),
        (pruned, "pruned", "base"),
        (rounded, "rounded", "base"),
    ):
        (pair,) = lineage_of("base", copy=copy).pairs
        assert (pair.origin, pair.change, pair.parent) == ("in order", change, older)
    assert lineage_of("base", copy=base).pairs[0].relation == "same weights"
    units = permutable(tiny.model)
    for stream in (False, True):
        (pair,) = lineage_of("base", copy=shuffled(base, units, 1, stream=stream)).pairs
        assert (pair.origin, pair.change, pair.distance) == ("in another order", "none", 0)
        assert pair.p_value < 1e-9
        (pair,) = lineage_of("base", copy=shuffled(noised, units, 2, stream=stream)).pairs
        assert (pair.origin, pair.change) == ("in another order", "noise")
        (pair,) = lineage_of("base", copy=shuffled(family["c"], units, 3, stream=stream)).pairs
        assert (pair.origin, pair.change) == ("in another order", "trained")


def test_a_permuted_model_has_its_place_in_the_tree(lineage_of, family, tiny):
    copy = shuffled(family["b"], permutable(tiny.model), 4, stream=True)
    found = lineage_of("base", "a", base="base", copy=copy)
    assert found.between("a", "copy").relation == "siblings"
    assert found.between("base", "copy").relation == "parent and child"


def test_a_copy_that_hardly_differs_does_not_hide_a_parent():
    """At a model and at its copy, the angles to the base are both nearly right."""
    near, far = 0.03, float(np.hypot(1.0, 0.03))
    distances = {("base", "a"): 1.0, ("base", "copy"): far, ("a", "copy"): near}
    found = relations(("base", "a", "copy"), distances, {}, "base")
    assert found["base", "a"] == ("parent and child", "base")
    assert found["a", "copy"] == ("parent and child", "a")
    assert found["base", "copy"] == ("ancestor and descendant", "base")


def test_models_of_other_shapes_are_not_judged(lineage_of, family):
    wider = {**family["base"], "embeddings/token/embedding": np.ones((200, 16), np.float32)}
    (pair,) = lineage_of("base", copy=wider).pairs
    assert (pair.origin, pair.relation, pair.p_value) == ("cannot say", "cannot say", 1.0)
    assert "shapes differ" in pair.told


def test_the_page_quotes_the_rates_that_were_measured():
    rows = [json.loads(line) for line in lineage_benchmark.RESULTS.read_text().splitlines()]
    page = (Path(__file__).parent.parent / "docs" / "lineage.md").read_text(encoding="utf-8")
    lines = lineage_benchmark.table_lines(rows)
    assert len(lines) > 10
    for line in lines:
        assert f"\n{line}\n" in page, line
    independent = [row for row in rows if row["simulation"] == "independent"]
    assert sum(row["common origin found"] for row in independent) <= 0.001 * sum(row["pairs"] for row in independent)


# Trees without models: independent steps in a space of many dimensions


def tree(*edges, dimensions=4000, hidden=""):
    """Distances of points that are reached by independent steps of length 1 from a root; edges are parent and child."""
    random = np.random.default_rng(1)
    at = {edges[0][0]: np.zeros(dimensions)}
    for parent, child in edges:
        at[child] = at[parent] + random.standard_normal(dimensions) / np.sqrt(dimensions)
    shown = [name for name in at if name not in hidden]
    return shown, {(a, c): float(np.linalg.norm(at[a] - at[c])) for a, c in itertools.combinations(shown, 2)}


def test_a_tree_with_a_known_root_is_known():
    names, distances = tree("ra", "rb", "ac", "cd")
    found = relations(names, distances, {}, "r")
    assert {pair for pair, own in found.items() if own[0] == "parent and child"} == {
        ("r", "a"),
        ("r", "b"),
        ("a", "c"),
        ("c", "d"),
    }
    assert all(found[pair][1] == pair[0] for pair in (("r", "a"), ("r", "b"), ("a", "c"), ("c", "d")))
    assert found["r", "d"] == ("ancestor and descendant", "r")
    assert found["a", "d"] == ("ancestor and descendant", "a")
    assert found["a", "b"] == ("siblings", None)
    assert found["b", "c"] == ("related", None)


def test_a_chain_and_a_star_of_three_look_alike():
    for edges in (("ab", "bc"), ("ba", "bc")):
        names, distances = tree(*edges)
        found = relations(sorted(names), {tuple(sorted(pair)): own for pair, own in distances.items()}, {})
        assert found["a", "b"] == found["b", "c"] == ("parent and child", None)
        assert found["a", "c"] == ("related", None)


def test_three_siblings_and_a_parent_with_like_children_look_alike():
    names, distances = tree("ra", "rb", "rc", hidden="r")
    assert set(relations(names, distances, {}).values()) == {("related", None)}
    # If one of them is known to be the base, the others descend from it, perhaps through a model that is missing.
    found = relations(names, distances, {}, "a")
    assert found["a", "b"] == found["a", "c"] == ("ancestor and descendant", "a")
    assert found["b", "c"] == ("siblings", None)
    assert relations(*tree("ra", "rb", hidden="r"), {})["a", "b"] == ("related", None)


def test_one_known_edge_orders_those_below_it():
    names, distances = tree("ra", "ab", "bc")
    found = relations(names, distances, {("r", "a"): "r"})
    assert found["r", "a"] == ("parent and child", "r")
    assert found["a", "b"] == ("parent and child", "a")
    assert found["b", "c"] == ("parent and child", "b")
    assert found["r", "c"] == ("ancestor and descendant", "r")


def test_equal_models_are_one_in_the_tree():
    names, distances = tree("ra", "rb")
    twin = {("a", "t"): 0.0, ("b", "t"): distances["a", "b"], ("r", "t"): distances["r", "a"]}
    found = relations([*names, "t"], {**distances, **twin}, {}, "r")
    assert found["a", "t"] == ("same weights", None)
    assert found["r", "t"] == ("parent and child", "r")
    assert found["b", "t"] == ("siblings", None)


# The command


def test_the_command_compares_points_of_a_store_and_folders(tiny, family, tmp_path, capsys):
    from test_store import record_of

    store = Store.create_for(tmp_path / "store", tiny)
    store.save(record_of("a"), nest(family["a"]), {})
    wsr.export(tiny.with_params(nest(family["b"])), tmp_path / "b")
    words = ["lineage", "base", "a", str(tmp_path / "b"), f"--store={store.path}", "--base=base"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [pair["relation"] for pair in found["pairs"]] == ["parent and child", "parent and child", "siblings"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "64 of 64 hidden units match in order" in out
    assert "siblings" in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["tiny"], "expected at least two models, found 1"),
        (["tiny", "tiny"], "two models have the same name"),
        (["tiny", "nowhere/at/all"], "no such folder"),
        (["tiny", "minilm", "--base=other"], "the base 'other' is none of the models"),
    ],
)
def test_wrong_calls_are_told_in_one_line(words, told, capsys):
    assert main(["lineage", *words]) == 1
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_results_print_in_two_lines(lineage_of):
    assert repr(lineage_of("base", "a")).count("\n") == 1
    with pytest.raises(WsrError, match="at least two"):
        wsr.lineage("tiny")
