"""Where a model lies: against NumPy and SciPy on explicit vectors, and how often the verdicts are wrong."""

import numpy as np
import pytest
from scipy.optimize import nnls
from scipy.stats import t

from wsr.region.standing import ERROR, Population, standings

DIMENSION = 300


def population(vectors, datasets, families=None, entries=DIMENSION):
    names = tuple(f"m{k}" for k in range(len(vectors)))
    vectors = np.asarray(vectors, np.float64)
    return Population(names, tuple(datasets), tuple(families or datasets), vectors @ vectors.T, entries)


def draw_world(generator, datasets=4, members=4, within=0.3, families=2):
    """Members of each dataset around a centre of their own; returns vectors, labels and a way to draw more."""

    def direction():
        vector = generator.normal(size=DIMENSION)
        return vector / np.linalg.norm(vector)

    centres = [np.sqrt(within) * direction() for _ in range(datasets)]

    def more(dataset):
        return (centres[dataset] + np.sqrt(1 - within) * direction()) * np.exp(0.03 * generator.normal())

    numbers = [dataset for dataset in range(datasets) for _ in range(members)]
    labels = [f"d{number}" for number in numbers], [f"f{number % families}" for number in numbers]
    return np.stack([more(number) for number in numbers]), *labels, more


def nearest_in_hull(vectors, point):
    """Distance to the convex hull and the weights there, by NNLS with a heavy row for the sum of the weights."""
    heavy = 1e4
    weights, _ = nnls(np.vstack([vectors.T, np.full(len(vectors), heavy)]), np.append(point, heavy))
    return np.linalg.norm(point - weights @ vectors), weights


def angle(a, b):
    return np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def held(vectors, datasets, families, candidate):
    own = population(np.vstack([vectors, candidate]), [*datasets, ""], [*families, ""])
    return {(one.level, one.region): one for one in standings(own, len(vectors))}


def test_every_figure_against_explicit_vectors():
    vectors, datasets, families, more = draw_world(np.random.default_rng(0))
    candidate = more(0)
    found = held(vectors, datasets, families, candidate)
    region = vectors[:4]
    one = found["dataset", "d0"]
    distance, weights = nearest_in_hull(region, candidate)
    assert one.distance == pytest.approx(distance, abs=1e-5)
    assert [one.leans_on[f"m{k}"] for k in range(4)] == pytest.approx(weights.tolist(), abs=1e-4)
    assert one.radius == pytest.approx(np.linalg.norm(region - region.mean(axis=0), axis=1).mean())
    assert one.cosine == pytest.approx(np.cos(angle(candidate, region.mean(axis=0))))
    assert one.relative_distance == pytest.approx(one.distance / one.radius)

    logs, angles = [], []
    for start in range(0, 16, 4):
        for left in range(start, start + 4):
            others = np.delete(vectors[start : start + 4], left - start, axis=0)
            logs.append(np.log(nearest_in_hull(others, vectors[left])[0]))
            angles.append(angle(vectors[left], others.mean(axis=0)))
    logs, angles = np.reshape(logs, (4, 4)), np.reshape(angles, (4, 4))
    margin = t.ppf(1 - ERROR / 2, 12) * np.sqrt(1 + 1 / 4)
    deviation = [np.sqrt(np.square(own - own.mean(axis=1, keepdims=True)).sum() / 12) for own in (logs, angles)]
    assert one.usual_distance == pytest.approx(np.exp(logs[0].mean()), abs=1e-5)
    assert one.furthest == pytest.approx(np.exp(logs[0].mean() + margin * deviation[0]), abs=1e-4)
    assert one.usual_cosine == pytest.approx(np.cos(angles[0].mean()), abs=1e-5)
    assert one.least == pytest.approx(np.cos(angles[0].mean() + margin * deviation[1]), abs=1e-4)

    family = found["family", "f0"]  # datasets 0 and 2; a whole dataset is left out of it
    others = np.concatenate([vectors[:4], vectors[8:12]])
    assert family.members == 8
    assert family.distance == pytest.approx(nearest_in_hull(others, candidate)[0], abs=1e-5)
    far = [np.mean([np.log(nearest_in_hull(b, own)[0]) for own in a]) for a, b in ((vectors[:4], vectors[8:12]),) * 1]
    far += [np.mean([np.log(nearest_in_hull(vectors[:4], own)[0]) for own in vectors[8:12]])]
    assert family.usual_distance == pytest.approx(np.exp(np.mean(far)), abs=1e-4)


def test_a_member_is_never_its_own_judge():
    vectors, datasets, families, _ = draw_world(np.random.default_rng(1))
    found = {(one.level, one.region): one for one in standings(population(vectors, datasets, families), 5)}
    own = found["dataset", "d1"]
    assert own.members == 3
    assert own.distance == pytest.approx(nearest_in_hull(np.delete(vectors[4:8], 1, axis=0), vectors[5])[0], abs=1e-5)
    assert found["dataset", "d0"].members == 4
    assert found["family", "f1"].members == 4  # dataset 1 is not there to judge its own member
    assert "m5" not in own.leans_on


def test_the_nearest_region_comes_first_and_can_be_asked_for_alone():
    vectors, datasets, families, more = draw_world(np.random.default_rng(2))
    joined = population(np.vstack([vectors, more(3)]), [*datasets, ""], [*families, ""])
    found = standings(joined, len(vectors))
    assert found[0].region == "d3"
    assert [one.cosine for one in found] == sorted((one.cosine for one in found), reverse=True)
    assert standings(joined, len(vectors), only=["d2"]) == [one for one in found if one.region == "d2"]


RUNS = 40


def verdicts(candidate, runs=RUNS, **law):
    found = []
    for seed in range(runs):
        generator = np.random.default_rng(seed)
        vectors, datasets, families, more = draw_world(generator, **law)
        joined = population(np.vstack([vectors, candidate(generator, vectors, more)]), [*datasets, ""], [*families, ""])
        (one,) = standings(joined, len(vectors), only=["d0"])
        found.append(one.verdict)
    return {verdict: found.count(verdict) / runs for verdict in ("inside", "on the rim", "outside")}


@pytest.mark.parametrize("members", [3, 5])
def test_members_of_the_same_law_are_seldom_called_outside(members):
    """At most 5 % are allowed; more than 5 of 40 would then have a probability of 1.4 %."""
    found = verdicts(lambda generator, vectors, more: more(0), datasets=3, members=members)
    assert found["outside"] <= 5 / RUNS
    assert found["inside"] >= 0.6


def test_strangers_are_outside_even_where_they_are_short():
    whole = verdicts(lambda generator, vectors, more: more(1), runs=12, datasets=3)
    half = verdicts(lambda generator, vectors, more: more(1) / 2, runs=12, datasets=3)
    noise = verdicts(lambda generator, vectors, more: generator.normal(size=DIMENSION), runs=12, datasets=3)
    assert min(whole["outside"], half["outside"], noise["outside"]) == 1


def test_the_base_is_near_every_hull_and_outside_all_the_same():
    vectors, datasets, families, _ = draw_world(np.random.default_rng(3))
    almost = 1e-3 * np.random.default_rng(4).normal(size=DIMENSION)
    one = held(vectors, datasets, families, almost)["dataset", "d0"]
    assert one.distance < one.usual_distance
    assert one.verdict == "outside"


def test_the_centroid_and_a_copy_of_a_member_are_inside():
    vectors, datasets, families, _ = draw_world(np.random.default_rng(5))
    centre = held(vectors, datasets, families, vectors[:4].mean(axis=0))["dataset", "d0"]
    assert centre.verdict == "inside"
    assert centre.distance == pytest.approx(0, abs=1e-5)
    assert list(centre.leans_on.values()) == pytest.approx([0.25] * 4, abs=1e-4)
    copy = held(vectors, datasets, families, vectors[2])["dataset", "d0"]
    assert copy.verdict == "inside"
    assert copy.leans_on == {"m2": pytest.approx(1, abs=1e-5)}


def test_few_members_give_figures_and_no_verdict():
    vectors, *_ = draw_world(np.random.default_rng(6))
    two = held(vectors[:2], ["d0"] * 2, ["f0"] * 2, vectors[3])["dataset", "d0"]
    assert two.verdict == "too few to say"
    assert two.furthest is None
    assert two.usual_distance == pytest.approx(np.linalg.norm(vectors[0] - vectors[1]))
    one = held(vectors[:1], ["d0"], ["f0"], vectors[3])["dataset", "d0"]
    assert one.verdict == "too few to say"
    assert one.usual_distance is None
    assert one.relative_distance == np.inf


def test_a_pair_is_judged_by_the_spread_of_other_regions():
    vectors, datasets, families, more = draw_world(np.random.default_rng(7))
    part = [0, 1, *range(4, 16)]
    found = held(vectors[part], [datasets[k] for k in part], [families[k] for k in part], more(1))
    assert found["dataset", "d0"].verdict == "outside"


@pytest.mark.parametrize("unknown", ["", "unknown"])
def test_members_of_unknown_dataset_are_of_no_region(unknown):
    vectors, *_ = draw_world(np.random.default_rng(8))
    assert standings(population(vectors, [unknown] * len(vectors)), 0) == []
