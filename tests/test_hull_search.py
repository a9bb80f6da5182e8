"""The search of a hull: against SciPy on functions made up, and against exact evaluation on the tiny encoder."""

import copy
import dataclasses

import numpy as np
import pytest
from scipy.optimize import minimize
from worlds import made_up, three_near

from wsr.engine import hull_search
from wsr.engine.cross_validation import FOLDS, dealt
from wsr.engine.evaluate import Protocol, evaluate
from wsr.engine.hull_polynomial import one_penalty
from wsr.engine.hull_search import relative, search, search_hull, support
from wsr.engine.objective import on_validation
from wsr.errors import WsrError

INVERSE_L2 = 0.3


@pytest.fixture(scope="module")
def region(tiny):
    return three_near(tiny)


@pytest.fixture(scope="module")
def datasets(tiny):
    return [made_up(tiny, name) for name in ("made_up_a1", "made_up_b1")]


@pytest.fixture(scope="module")
def found(region, datasets):
    return search_hull(region, datasets[:1], points=20, protocol=Protocol(inverse_l2=INVERSE_L2))


class World:
    """Logits of two classes that no polynomial equals, as a function of the coefficients; its passes are counted."""

    def __init__(self, dataset, members, seed=0, texts=40, hidden=6):
        draw = np.random.default_rng(seed)
        self.offset, self.head = draw.normal(size=(texts, hidden)), draw.normal(size=hidden)
        self.maps = draw.normal(size=(members, texts, hidden))
        self.labels = draw.integers(0, 2, texts).astype(np.int32)
        split = dataset.splits["test"]
        split = dataclasses.replace(split.take(np.arange(texts) % len(split)), labels=self.labels)
        self.dataset, self.members, self.passes = dataset.with_split("test", split), members, 0

    def logits(self, points):
        return np.tanh(self.offset + np.tensordot(points, self.maps, axes=1)) @ self.head

    def outputs(self, points):
        self.passes += len(points)
        return [self.logits(points)[..., None]]

    def loss(self, point):
        return np.log1p(np.exp(np.where(self.labels, -1, 1) * self.logits(point[None])[0])).mean()

    def gradient(self, point):
        signs = np.where(self.labels, -1, 1)
        chances = 1 / (1 + np.exp(-signs * self.logits(point[None])[0]))
        slopes = (1 - np.tanh(self.offset + np.tensordot(point, self.maps, axes=1)) ** 2) * self.head
        return np.einsum("t,th,mth->m", signs * chances, slopes, self.maps) / len(signs)

    def part(self, texts):
        """The world of some of the texts."""
        part = copy.copy(self)
        part.offset, part.maps, part.labels = self.offset[texts], self.maps[:, texts], self.labels[texts]
        return part

    def optimum(self):
        """The lowest loss."""
        return self.loss(self.minimum())

    def minimum(self):
        """The best point that SciPy finds from the centroid and from the best members."""
        order = np.argsort([self.loss(row) for row in np.eye(self.members)])
        starts = [np.full(self.members, 1 / self.members)]
        starts += [0.5 * starts[0] + 0.5 * np.eye(self.members)[own] for own in order[:3]]
        ends = [
            minimize(
                self.loss,
                start,
                jac=self.gradient,
                method="SLSQP",
                bounds=[(0, 1)] * self.members,
                constraints={"type": "eq", "fun": lambda row: row.sum() - 1},
                options={"maxiter": 200},
            )
            for start in starts
        ]
        return min(ends, key=lambda end: end.fun).x


@pytest.mark.parametrize(("members", "points"), [(2, 15), (12, 60), pytest.param(30, 100, marks=pytest.mark.long)])
def test_it_finds_the_optimum_that_scipy_finds(dataset, members, points):
    world = World(dataset, members)
    found = search(world.outputs, [world.dataset], members, points=points)
    assert world.passes == len(found.points) <= members + points
    centroid, best = world.loss(found.points[0]), found.losses.min()
    np.testing.assert_allclose(found.losses[:, 0], [world.loss(row) for row in found.points], atol=1e-5)
    assert best <= world.optimum() + 0.05 * (centroid - world.optimum())


@pytest.mark.parametrize("seed", [0, 1])
def test_the_share_is_that_of_a_cross_validation_with_scipy(dataset, seed):
    """The same folds, but exact losses and SciPy's search in place of polynomials and descent."""
    world = World(dataset, 3, seed, texts=50)
    found = search(world.outputs, [world.dataset], 3, points=60)
    fold_of, total = dealt(world.labels, FOLDS, "validation texts"), np.zeros(11)
    for fold in range(FOLDS):
        seen, left_out = world.part(fold_of != fold), world.part(fold_of == fold)
        best = seen.minimum()
        total += [left_out.loss(found.points[0] + share * (best - found.points[0])) for share in np.linspace(0, 1, 11)]
    # The losses are flat around the best share.
    assert total[round(10 * found.share)] <= total.min() + 0.02 * np.ptp(total)


@pytest.mark.long
def test_the_answer_is_nearer_to_the_centroid_where_labels_are_noise(dataset):
    def share(chance):
        shares = []
        for seed in range(3):
            world = World(dataset, 4, seed, texts=60)
            wanted = world.logits(np.eye(4)[:1])[0] > 0  # what the first member says
            flipped = np.random.default_rng(seed).random(60) < chance
            world.labels[:] = wanted ^ flipped
            shares.append(search(world.outputs, [world.dataset], 4, points=20).share)
        return np.mean(shares)

    assert share(0.5) < 0.6 < 0.9 < share(0.0)


def test_many_members_are_searched_between_the_most_useful(dataset):
    """Four of 60 members matter; the other 56 only add noise to the logits."""
    world = World(dataset, 60)
    world.maps[4:] *= 0.2
    world.maps[4:] += 3 * np.random.default_rng(1).normal(size=world.offset.shape)
    found = search(world.outputs, [world.dataset], 60, points=60)
    assert world.passes <= 120
    best = found.points[found.losses[:, 0].argmin()]
    assert best[:4].sum() > 0.9


def test_a_support_is_what_good_points_use_and_then_what_is_good_alone():
    points = np.array([[0.0, 0.7, 0.3, 0.0, 0.0], [0.4, 0.6, 0.0, 0.0, 0.0]])
    assert support(points, np.array([1.0, 1.0, 1.0, 3.0, 2.0]), 2).tolist() == [0, 1]
    assert support(points, np.array([1.0, 1.0, 1.0, 3.0, 2.0]), 4).tolist() == [0, 1, 2, 4]


def test_several_losses_are_divided_by_the_centroids():
    losses = np.array([[2.0, 0.5], [1.0, 0.5], [2.0, 1.0]])
    np.testing.assert_allclose(relative(losses), [1, 0.75, 1.5])


def test_the_losses_are_exact_and_of_validation_texts(region, datasets, found):
    judged = on_validation(datasets[0])
    exact = evaluate(region, found.points, judged, protocol=Protocol(inverse_l2=INVERSE_L2))
    np.testing.assert_allclose(found.losses[:, 0], exact.generalised_loss, atol=1e-5)
    assert found.order[0] == exact.generalised_loss.argmin()
    lowest = found.points[found.order[0]]
    expected = (1 - found.share) * region.centroid() + found.share * lowest
    np.testing.assert_allclose(found.coefficients, expected)
    np.testing.assert_allclose(found.points.sum(axis=1), 1)
    assert found.points.min() >= 0
    assert len(found.points) <= 3 + 20


def test_polynomials_predict_what_is_then_found(found):
    assert len(found.proposed)
    errors = np.abs(found.predicted - found.losses)[found.proposed, 0]
    assert errors.max() < 0.2 * np.ptp(found.losses)
    nodes = np.setdiff1d(np.arange(len(found.points)), found.proposed)
    assert np.isnan(found.predicted[nodes]).all()
    assert repr(found).startswith(f"HullSearch: {len(found.points)} points evaluated exactly, {len(found.proposed)} of")


@pytest.mark.long
def test_two_datasets_give_a_compromise(region, datasets):
    protocol = Protocol(inverse_l2=INVERSE_L2)
    both = search_hull(region, datasets, points=16, protocol=protocol)
    ratios = [evaluate(region, both.points, on_validation(own), protocol=protocol).generalised_loss for own in datasets]
    expected = np.mean([own / own[0] for own in ratios], axis=0)
    np.testing.assert_allclose(both.relative, expected, atol=1e-4)
    assert expected[both.order[0]] == expected.min() < 1


@pytest.mark.long
def test_the_penalty_is_chosen_once_at_the_centroid(region, datasets):
    found = search_hull(region, datasets[:1], points=2)
    assert found.protocols == (Protocol(inverse_l2=one_penalty(region, datasets[0])),)
    assert len(found.points) <= 5  # the members, their centroid and the answer


def test_the_test_split_is_not_read(region, datasets):
    blind = {name: split for name, split in datasets[0].splits.items() if name != "test"}
    search_hull(region, [dataclasses.replace(datasets[0], splits=blind)], points=3)


def test_one_member_is_its_own_best_point(region, datasets):
    alone = region.where(lambda member: member.name == "m1")
    found = search_hull(alone, datasets[:1], points=5, protocol=Protocol(inverse_l2=INVERSE_L2))
    assert found.points.tolist() == [[1.0]]


def test_what_cannot_be_searched_is_refused(region, datasets):
    with pytest.raises(WsrError, match=r"expected the linear probe with 1 draw, found roberta_head"):
        search_hull(region, datasets, protocol=Protocol(probe="roberta_head"))
    with pytest.raises(WsrError, match="no members"):
        search_hull(region.emptied(), datasets)
    with pytest.raises(WsrError, match="no dataset"):
        search_hull(region, [])
    with pytest.raises(WsrError, match="at least 2, the centroid and the answer; found 1"):
        search_hull(region, datasets, points=1)


def test_the_search_ends_after_two_rounds_where_there_is_nothing_to_gain(dataset):
    world = World(dataset, 3)
    world.maps[:] = world.maps[0]  # all members are one model
    found = search(world.outputs, [world.dataset], 3, points=80)
    assert 1 <= np.isfinite(found.predicted[:, 0]).sum() <= 2 * hull_search._ROUND
