"""What makes studies follow the paper's procedure: pairs, groups, labels and populations, against counts by hand."""

import dataclasses
import itertools
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from wsr.data.table import find, overlapping
from wsr.errors import WsrError
from wsr.region.region import Member, Region
from wsr.store.results import Results
from wsr.studies import outcomes
from wsr.studies.centroid_start import CAVEAT
from wsr.studies.convex_hull import interior_points
from wsr.studies.euclidean import euclidean, pairwise
from wsr.studies.family_places import family_places
from wsr.studies.few_shot import FewShot
from wsr.studies.harness.at_chance import AT_CHANCE, chance_told, cluster_everyone
from wsr.studies.harness.context import Context
from wsr.studies.harness.majority import repaired_majority
from wsr.studies.harness.plan import same_plan_or_refuse
from wsr.studies.harness.preset import GENERAL, PRESETS, TWELVE
from wsr.studies.harness.work import Work, sizes_of, workload
from wsr.studies.pairs import GENERAL as OTHER_DATASETS
from wsr.studies.pairs import general_pairs, named_pairs
from wsr.studies.random_directions import Start


def region_of(tiny, vectors, datasets, families=None):
    """A region whose task vectors have given inner products; its members are not loaded."""
    families = families or datasets
    members = [
        Member(f"{dataset}-{k}", dataset, family, f"{k}", lambda: tiny.params)
        for k, (dataset, family) in enumerate(zip(datasets, families, strict=True))
    ]
    return Region(tiny.model, tiny.params, members, base_sha256="base", gram=vectors @ vectors.T)


def context_of(region, targets):
    """A study's input without datasets."""
    return Context(region, {}, targets, Results.in_memory())


@pytest.fixture(scope="module")
def named(tiny):
    """Members of datasets of the paper: two of mnli, esnli and sst2 each."""
    datasets = ["mnli"] * 3 + ["esnli"] * 2 + ["sst2"] * 2
    families = [find(name).family for name in datasets]
    return region_of(tiny, np.random.default_rng(0).normal(size=(7, 20)), datasets, families)


def test_named_pairs_are_all_pairs_of_their_datasets(named):
    pairs = named_pairs(context_of(named, []), ("mnli:mnli", "mnli:esnli"), 25)
    found = {kind: {frozenset(p.region.names) for p in pairs if p.kind == kind} for kind in {p.kind for p in pairs}}
    mnli, esnli = ([m.name for m in named.members if m.dataset == name] for name in ("mnli", "esnli"))
    assert found == {
        "mnli – mnli": {frozenset(pair) for pair in itertools.combinations(mnli, 2)},
        "mnli – esnli": {frozenset(pair) for pair in itertools.product(mnli, esnli)},
    }
    assert all(pair.datasets == ["mnli", "esnli"] for pair in pairs if pair.kind == "mnli – esnli")
    assert len(named_pairs(context_of(named, []), ("mnli:esnli",), 4)) == 4
    with pytest.raises(WsrError, match=r"--between=mnli:snli: expected FIRST:SECOND.*nearest: esnli"):
        named_pairs(context_of(named, []), ("mnli:snli",), 4)


def test_general_pairs_are_of_two_datasets_and_neither_is_the_target(named):
    pairs = general_pairs(context_of(named, ["mnli", "sst2"]), 8)
    assert [pair.target for pair in pairs] == ["mnli", "sst2"] * 4
    for pair in pairs:
        first, second = pair.region.datasets
        assert pair.kind == OTHER_DATASETS
        assert first != second
        assert not {first, second} & overlapping(pair.target)


def test_a_line_is_averaged_over_the_datasets_of_its_ends(named):
    from wsr.studies.lines import Line, _lowest_between, _pair_cells

    alphas = np.array([0.0, 0.5, 1.0])
    (pair,) = named_pairs(context_of(named, []), ("mnli:esnli",), 1)
    on = {"mnli": [0.2, 0.5, 0.6], "esnli": [0.6, 0.1, 0.4]}
    line = SimpleNamespace(
        pair=pair, on={name: SimpleNamespace(generalised_loss=np.array(own)) for name, own in on.items()}
    )
    line.average = Line.average.fget.__wrapped__(line)
    np.testing.assert_allclose(line.average, [0.4, 0.3, 0.5])
    assert _lowest_between.__wrapped__(line, alphas)
    kind, _, _, height, ends, best, gain = _pair_cells.__wrapped__(line, "average", line.average, alphas, None)
    assert (kind, height, ends, best) == ("mnli – esnli", 0.0, None, 0.5)
    assert gain == pytest.approx(-0.1)


def test_a_plan_of_an_earlier_version_resumes_where_new_values_are_off(tmp_path):
    same_plan_or_refuse(tmp_path, {"preset": {"seeds": 2}})
    same_plan_or_refuse(tmp_path, {"preset": {"seeds": 2, "share": 0.0, "tag": False, "names": []}})
    with pytest.raises(WsrError, match=r"differing: preset\.share"):
        same_plan_or_refuse(tmp_path, {"preset": {"seeds": 2, "share": 0.9}})
    with pytest.raises(WsrError, match=r"differing: preset\.seeds"):
        same_plan_or_refuse(tmp_path, {"preset": {}})


def test_a_repaired_majority_gives_every_label_a_cluster_and_costs_least():
    draw = np.random.default_rng(0)
    for _ in range(50):
        truth = [str(label) for label in draw.permutation(np.repeat(range(4), 6))]
        clusters = draw.integers(0, 4, 24)
        clusters[:4] = range(4)
        repaired = repaired_majority(truth, clusters)
        assert set(repaired) == set(truth)
        # A cluster has one label.
        assert len(set(zip(clusters.tolist(), repaired, strict=True))) == 4
        plain = [max(sorted(set(truth)), key=[t for t, c in zip(truth, clusters, strict=True) if c == own].count)
                 for own in clusters]  # fmt: skip
        if len(set(plain)) == 4:
            assert repaired == plain
    # Two clusters are called a; that with more models of b becomes b.
    assert repaired_majority(["a", "a", "b", "a", "a"], np.array([0, 0, 0, 1, 1])) == ["b", "b", "b", "a", "a"]


def test_distances_are_scipys(tiny):
    vectors = np.random.default_rng(0).normal(size=(6, 10))
    np.testing.assert_allclose(pairwise(vectors @ vectors.T), squareform(pdist(vectors)), atol=1e-9)
    same_place = np.ones((3, 4))
    assert not pairwise(same_place @ same_place.T).any()


@pytest.mark.usefixtures("few_resamples")
def test_distances_are_misled_by_lengths_and_cosines_are_not(tiny):
    draw = np.random.default_rng(0)
    directions = np.repeat(np.eye(3, 40), 6, axis=0) + 0.05 * draw.normal(size=(18, 40))
    lengths = np.tile([1.0, 30.0, 1.0, 30.0, 1.0, 30.0], 3)
    datasets = [f"d{k // 6}" for k in range(18)]
    rows, section = euclidean(region_of(tiny, directions * lengths[:, None], datasets), command="c")
    assert section.verdict == "holds"
    assert {row["metric"] for row in rows} >= {"one_to_one_accuracy, spectral", "mean distance"}
    _, section = euclidean(region_of(tiny, directions, datasets), command="c")
    assert section.verdict == "refuted"


@pytest.mark.usefixtures("few_resamples")
def test_members_at_chance_are_clustered_too_and_named(tiny):
    draw = np.random.default_rng(0)
    vectors = np.concatenate([np.repeat(np.eye(2, 30), 4, axis=0), 0.1 * draw.normal(size=(4, 30))])
    datasets = ["a"] * 4 + ["b"] * 4 + ["wnli"] * 4
    everyone = region_of(tiny, vectors + 0.02 * draw.normal(size=vectors.shape), datasets)
    learned = everyone.where(lambda member: member.dataset != "wnli")

    def labels(region):
        return {"dataset": region.datasets}

    found = cluster_everyone(learned, everyone, labels, 0)
    assert {own.level for own in found} == {"dataset" + AT_CHANCE}
    assert all(set(own.scores.f1) == {"a", "b", "wnli"} for own in found)
    assert chance_told(learned, everyone)[0].startswith("4 of 12 members are at chance (wnli).")
    assert cluster_everyone(everyone, everyone, labels, 0) == chance_told(everyone, everyone) == []


def test_a_dataset_apart_from_its_family_lies_outside(tiny):
    draw = np.random.default_rng(0)
    centres = np.zeros((5, 200))
    centres[:, :5] = np.eye(5)
    centres[[0, 1], 10] = 0.5  # mnli and esnli share a direction, wnli does not
    centres[[3, 4], 11] = 0.5
    vectors = np.repeat(centres, 5, axis=0) + 0.005 * draw.normal(size=(25, 200))
    datasets = [name for name in ("mnli", "esnli", "wnli", "imdb", "sst2") for _ in range(5)]
    families = [find(name).family for name in datasets]
    places = {place.dataset: place for place in family_places(region_of(tiny, vectors, datasets, families))}
    assert {name: place.outside for name, place in places.items()} == {
        "mnli": "no", "esnli": "no", "wnli": "yes", "imdb": "no", "sst2": "no"
    }  # fmt: skip
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit[10:15] @ np.concatenate([unit[:10]]).T
    assert places["wnli"].within == pytest.approx(cosines.mean())


@dataclasses.dataclass
class Scored:
    """As much of an evaluation as the groups are cut from."""

    coefficients: np.ndarray
    losses_by_draw: np.ndarray
    predictions_by_draw: np.ndarray
    how: tuple[str, ...]
    inverse_l2: np.ndarray | None = None
    converged: np.ndarray | None = None


def test_ex_of_the_general_level_is_also_taken_without_the_pretrained_model():
    losses = np.arange(12.0).reshape(1, 3, 4)
    coefficients = np.concatenate([np.zeros((1, 2)), np.eye(2)])
    exterior = Scored(coefficients, losses, losses, ("exact",) * 3)
    cut = outcomes._with_directions.__wrapped__
    groups = cut({"exterior": exterior}, "general")
    np.testing.assert_array_equal(groups[outcomes.DIRECTIONS].coefficients, np.eye(2))
    np.testing.assert_array_equal(groups[outcomes.DIRECTIONS].losses_by_draw, losses[:, 1:])
    assert groups["exterior"] is exterior
    assert outcomes.DIRECTIONS not in cut({"exterior": exterior}, "family")


def test_the_papers_values_of_each_comparison_are_known():
    assert outcomes.PAPER["dataset", "member", "exterior"] == "100 %"
    assert outcomes.PAPER["general", "member", "exterior"] == "89.8 %"
    compared = {(level, *pair) for level, pairs in outcomes.COMPARED.items() for pair in pairs}
    assert compared == set(outcomes.PAPER)


def test_points_of_a_hull_are_as_many_as_its_members():
    datasets = ("mnli", "esnli", "wnli", "wsc", "sst2")
    # mnli's own five; esnli and wnli; all but mnli.
    assert interior_points("mnli", datasets, 5, 0) == 5 + 10 + 20
    # wnli shares texts with wsc, so its hull of the general level is of three datasets.
    assert interior_points("wnli", datasets, 5, 0) == 5 + 10 + 15
    # No other dataset of sst2's family, and 4 points at each other level.
    assert interior_points("sst2", datasets, 5, 4) == 4 + 0 + 4


def test_the_first_claim_has_the_papers_280_members_and_the_centroid_its_twelve_targets():
    from experiments import centroid_start, few_shot, same_dataset_clusters

    assert len(set(GENERAL)) == 14
    assert len(TWELVE) == 12
    assert set(TWELVE) < set(GENERAL)
    work = same_dataset_clusters.work(PRESETS["paper"], same_dataset_clusters.SETTINGS["paper"])
    assert (work.members, work.datasets) == (280, GENERAL)
    for module in (centroid_start, few_shot):
        settings = module.SETTINGS["paper"]
        assert (settings.averaged, settings.starts_on) == (GENERAL, TWELVE)


def test_a_dry_run_counts_the_texts_of_short_trainings():
    paper = PRESETS["paper"]
    plan = FewShot(100, 5, least_steps=40)
    (trainings,) = (plan.trainings(("rte", "cola"), 0),)
    found = workload([Work(0, 0, (trainings,))], paper, length=10)
    # Two starts, five seeds; 100 examples take 5 epochs of 16, fewer than 40 steps of 16 texts.
    assert found.trained_texts == 2 * 2 * 5 * max(5 * 100, 40 * 16)
    tests = sizes_of("rte", paper)["test"] + sizes_of("cola", paper)["test"]
    assert found.scored_texts == 2 * 5 * (2 * 100 + 2 * tests)
    assert trainings.runs == 2 * 2 * 2 * 5


def test_early_stopping_reads_a_thousand_validation_texts_at_most():
    sizes = {name: sizes_of(name, PRESETS["paper"])["validation"] for name in PRESETS["paper"].datasets}
    assert max(sizes.values()) == sizes["yahoo_answers"] == 1000
    assert sizes["copa"] < 50


@pytest.mark.parametrize(
    "page",
    [
        "docs/results.md",
        "docs/results/few_shot.md",
        "docs/fidelity.md",
        "experiments/README.md",
        "experiments/few_shot.py",
    ],
)
def test_the_caveat_stands_beside_the_gain_with_few_examples(page):
    text = (Path(__file__).parent.parent / page).read_text(encoding="utf-8")
    quoting = [part for block in text.split("\n\n") for part in (block.split("\n|") if "|" in block else [block])
               if "10.66" in part]  # fmt: skip
    assert quoting
    assert all("all data" in " ".join(part.split()) for part in quoting)
    assert "all data" in CAVEAT


def test_the_way_to_zero_shrinks_all_weights_and_never_passes_zero(tiny):
    draw = np.random.default_rng(0)
    region = region_of(tiny, draw.normal(size=(3, 5)), ["a", "a", "b"])
    start = Start(context_of(region, ["a"]), region, "all", "", "centroid", (0.5, 2.0, 1e9), 1)
    start.__dict__["params"] = tiny.params
    weights = np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(tiny.params)])
    assert start.length == pytest.approx(np.linalg.norm(weights))
    assert start.to_zero[:2] == pytest.approx([0.5, 2.0])
    assert start.to_zero[2] == pytest.approx(start.length / start.radius)
