"""LogME against scikit-learn's Bayesian ridge regression and against the normal density that the evidence is."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.linear_model import BayesianRidge

from wsr.statistics.log_evidence import log_evidence


def data(texts, hidden, classes, telling):
    draw = np.random.default_rng(texts + hidden)
    labels = np.arange(texts) % classes
    centres = draw.normal(size=(classes, hidden))
    return draw.normal(size=(texts, hidden)) + telling * centres[labels], labels


@pytest.mark.parametrize(("texts", "hidden", "classes"), [(80, 6, 2), (60, 12, 4), (30, 50, 3)])
def test_is_the_evidence_of_bayesian_ridge_regression(texts, hidden, classes):
    features, labels = data(texts, hidden, classes, telling=0.5)
    evidence = []
    for name in range(classes):
        ridge = BayesianRidge(
            max_iter=3000,
            tol=1e-10,
            alpha_1=0,
            alpha_2=0,
            lambda_1=0,
            lambda_2=0,
            compute_score=True,
            fit_intercept=False,
        )
        evidence.append(ridge.fit(features, (labels == name).astype(float)).scores_[-1])
    assert log_evidence(features, labels) == pytest.approx(np.mean(evidence) / texts, abs=1e-5)


def test_is_the_largest_normal_density_of_the_labels():
    features, labels = data(40, 5, 2, telling=1.0)

    def density(logarithms, target):
        alpha, beta = np.exp(logarithms)
        covariance = np.eye(len(target)) / beta + features @ features.T / alpha
        return -multivariate_normal.logpdf(target, cov=covariance)

    largest = [
        -minimize(density, np.zeros(2), args=((labels == name).astype(float),), method="Nelder-Mead").fun
        for name in (0, 1)
    ]
    assert log_evidence(features, labels) == pytest.approx(np.mean(largest) / 40, abs=1e-5)


def test_of_values_it_is_one_regression():
    features, _ = data(50, 4, 2, telling=0.0)
    values = features @ np.array([1.0, -1.0, 0.5, 0.0]) + np.random.default_rng(0).normal(size=50)
    ridge = BayesianRidge(
        max_iter=3000, tol=1e-10, alpha_1=0, alpha_2=0, lambda_1=0, lambda_2=0, compute_score=True, fit_intercept=False
    )
    expected = ridge.fit(features, values).scores_[-1] / 50
    assert log_evidence(features, values) == pytest.approx(expected, abs=1e-5)


def test_stays_finite_where_features_explain_everything_or_nothing():
    labels = np.arange(20) % 2
    for features in (np.eye(20), np.zeros((20, 3)), np.stack([labels, 1 - labels], axis=1).astype(float)):
        assert np.isfinite(log_evidence(features, labels))
