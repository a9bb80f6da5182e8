"""Fronts against pymoo: its NSGA-II on the same polynomials, and its hypervolume."""

import numpy as np
import pytest
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import Problem
from pymoo.indicators.hv import HV
from pymoo.optimize import minimize

from wsr.data.load import load_dataset
from wsr.engine.front import front_of, hypervolume
from wsr.engine.hull_polynomial import LogitPolynomial
from wsr.engine.lattice import Interpolation, lattice
from wsr.models import load

MEMBERS = 5


@pytest.fixture(scope="module")
def polynomials():
    """Two datasets whose logits are made up: tanh of linear functions of the coefficients."""
    nodes, processor = lattice(MEMBERS, 3), load("tiny").processor
    found = []
    for seed, name in enumerate(("made_up_a1", "made_up_b1")):
        dataset, draw = load_dataset(name, processor, max_length=48, sizes={"test": 40}), np.random.default_rng(seed)
        maps, head = draw.normal(size=(MEMBERS, 40, 6)), draw.normal(size=6)
        values = np.tanh(draw.normal(size=(40, 6)) + np.tensordot(nodes, maps, axes=1)) @ head
        found.append(LogitPolynomial.through(dataset, Interpolation.through(nodes, 3), values[..., None]))
    return found


def losses_at(polynomials, points):
    return np.stack([own.losses_at(points) for own in polynomials], axis=1)


def test_the_front_dominates_as_much_as_that_of_nsga2(polynomials):
    class Hull(Problem):
        def __init__(self):
            super().__init__(n_var=MEMBERS, n_obj=2, xl=0.0, xu=1.0)

        def _evaluate(self, variables, out, *args, **kwargs):
            kept = np.maximum(variables, 1e-9)
            out["F"] = losses_at(polynomials, kept / kept.sum(axis=1, keepdims=True))

    theirs = minimize(Hull(), NSGA2(pop_size=24), ("n_gen", 80), seed=0, verbose=False).F
    reference = losses_at(polynomials, np.eye(MEMBERS)).max(axis=0)
    ours = losses_at(polynomials, front_of(polynomials, points=24))
    assert len(ours) <= 25
    assert hypervolume(ours, reference) >= 0.99 * hypervolume(theirs, reference)


@pytest.mark.parametrize("datasets", [2, 3, 4])
def test_a_hypervolume_is_that_of_pymoo(datasets):
    losses = np.random.default_rng(datasets).random((30, datasets))
    reference = np.full(datasets, 0.8)
    np.testing.assert_allclose(hypervolume(losses, reference), HV(ref_point=reference)(losses), rtol=1e-9)
