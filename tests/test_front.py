"""Fronts between datasets: dominance and volume by definition, the search against random points, exact scores."""

import itertools
import json

import jax.numpy as jnp
import numpy as np
import pytest
from worlds import made_up, three_near

import wsr
from wsr.engine.descent import mean_loss
from wsr.engine.evaluate import Protocol, evaluate
from wsr.engine.front import front_of, hypervolume, non_dominated
from wsr.engine.hull_polynomial import design_of, draw_faces, fit_hull_polynomial
from wsr.errors import WsrError
from wsr.report.explorer import pareto as explorer_pareto

NAMES = ("made_up_a1", "made_up_b1")
INVERSE_L2 = 0.3


@pytest.fixture(scope="module")
def region(tiny):
    return three_near(tiny)


@pytest.fixture(scope="module")
def datasets(tiny):
    return [made_up(tiny, name) for name in NAMES]


@pytest.fixture(scope="module")
def settings():
    """A cache, so that no test scores the points of another again."""
    return wsr.Settings(results=wsr.Results.in_memory())


@pytest.fixture(scope="module")
def polynomials(region, datasets):
    design = design_of(3, points=75)
    return [fit_hull_polynomial(region, own, design, protocol=Protocol(inverse_l2=INVERSE_L2)) for own in datasets]


def test_dominance_is_that_of_its_definition():
    losses = np.random.default_rng(0).integers(0, 6, size=(60, 3)).astype(float)

    def dominated(one):
        return any((other <= one).all() and (other < one).any() for other in losses)

    assert non_dominated(losses).tolist() == [not dominated(one) for one in losses]


@pytest.mark.parametrize("datasets", [1, 2, 3, 4])
def test_a_hypervolume_is_the_number_of_dominated_cells(datasets):
    """Whole numbers: the volume is a count of unit cells."""
    draw = np.random.default_rng(datasets)
    reference = np.full(datasets, 6.0)
    for points in (1, 4, 9):
        losses = draw.integers(0, 8, size=(points, datasets)).astype(float)
        cells = itertools.product(range(6), repeat=datasets)
        count = sum(any((own <= np.array(cell)).all() for own in losses) for cell in cells)
        assert hypervolume(losses, reference) == count


def test_the_loss_for_gradients_is_that_of_the_polynomials(polynomials):
    rows = draw_faces(np.random.default_rng(1), 5, 3)
    for own in polynomials:
        labels, kind = own.objective.labels, {"degree": own.interpolation.degree, "kind": "classes"}
        found = [
            float(mean_loss(jnp.asarray(row, jnp.float32), jnp.asarray(own.terms), labels, **kind)) for row in rows
        ]
        np.testing.assert_allclose(found, own.at(rows)[0], rtol=1e-4)


def test_no_random_point_is_better_than_a_point_of_the_front_on_all_datasets(polynomials):
    rows = front_of(polynomials, points=8)
    assert 2 <= len(rows) <= 8
    np.testing.assert_allclose(rows.sum(axis=1), 1)
    assert (rows >= 0).all()
    at = np.stack([own.at(rows)[0] for own in polynomials], axis=1)
    assert non_dominated(at).all()
    assert (np.diff(at[:, 0]) >= 0).all()
    many = draw_faces(np.random.default_rng(9), 3000, 3)
    of_many = np.stack([own.at(many)[0] for own in polynomials], axis=1)
    span = np.ptp(of_many, axis=0)
    assert not (of_many[:, None] < at - 0.005 * span).all(axis=-1).any()
    # The ends are the best points of each dataset.
    assert (at.min(axis=0) < of_many.min(axis=0) + 0.005 * span).all()


def test_a_front_satisfies_its_constraint(polynomials):
    scores = polynomials[0].at(draw_faces(np.random.default_rng(3), 500, 3))[1]
    least = float(np.quantile(scores, 0.9))
    rows = front_of(polynomials, points=4, at_least={0: least})
    assert len(rows)
    assert (polynomials[0].at(rows)[1] >= least).all()
    assert len(front_of(polynomials, points=4, at_least={0: 1.1})) == 0


@pytest.mark.long
def test_a_front_is_chosen_on_validation_texts_and_scored_exactly_on_test_texts(region, datasets, settings, tmp_path):
    page = tmp_path / "front.html"
    found = wsr.pareto(region, datasets, page, front=6, points=75, inverse_l2=INVERSE_L2, settings=settings)
    scored = np.concatenate([found.points, np.eye(3), region.centroid()[None]])
    for own, dataset in zip(found.evaluations, datasets, strict=True):
        exact = evaluate(region, scored, dataset, protocol=Protocol(inverse_l2=INVERSE_L2))
        np.testing.assert_allclose(own.losses, exact.losses, atol=1e-6)
    assert found.volume("members and centroid") >= found.volume("members")
    content = json.loads(page.read_text("utf-8").split('id="data">')[1].split("</script>")[0])
    front = [number for number, kind in enumerate(content["exact"]["kinds"]) if kind == "front"]
    np.testing.assert_allclose(np.array(content["exact"]["coefficients"])[front], found.points)
    for own, dataset in zip(content["datasets"], datasets, strict=True):
        chosen_on = dataset.with_split("test", dataset.splits["validation"])
        exact = evaluate(region, found.points, chosen_on, protocol=Protocol(inverse_l2=INVERSE_L2))
        np.testing.assert_allclose(np.array(own["exact_losses"])[front], exact.generalised_loss, atol=1e-5)
        assert own["name"] == f"{dataset.name} (validation)"


@pytest.mark.long
def test_many_members_are_searched_between_those_that_the_front_needs(region, datasets, settings, monkeypatch, capsys):
    monkeypatch.setattr(explorer_pareto, "SUPPORT", 2)
    found = wsr.pareto(region, datasets, front=4, points=70, inverse_l2=INVERSE_L2, settings=settings)
    assert "searched between 2 of 3 members" in capsys.readouterr().out
    assert found.points.shape[1] == 3
    assert (found.points > 0).any(axis=0).sum() <= 2
    np.testing.assert_allclose(found.points.sum(axis=1), 1)
    assert len(found.losses) == len(found.points) + 4  # all members and their centroid are scored


def test_what_has_no_front_is_refused(region, datasets):
    with pytest.raises(WsrError, match="at least two; found made_up_a1"):
        wsr.pareto(region, datasets[:1])
    with pytest.raises(WsrError, match="set on mnli; expected one of the datasets made_up_a1, made_up_b1"):
        wsr.pareto(region, datasets, at_least={"mnli": 0.84})


@pytest.mark.long
def test_a_constraint_that_no_point_satisfies_is_refused(region, datasets, settings):
    with pytest.raises(WsrError, match=r"no point of the hull satisfies made_up_a1 >= 1\.5"):
        wsr.pareto(region, datasets, at_least={"made_up_a1": 1.5}, points=75, inverse_l2=INVERSE_L2, settings=settings)
