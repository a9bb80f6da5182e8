"""Forecasts of what helps: against scikit-learn, on simulated populations, and what they cannot say."""

import json

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression

from wsr.errors import WsrError
from wsr.statistics.forecast import CANNOT_SAY, DOES_NOT, HELPS, PENALTIES, Forecast, Seen, fit_forecast, held_out
from wsr.statistics.reliability import reliability

SLOPES = {"ties": np.array([2.0, -1.0]), "uniform": np.array([0.0, 1.5])}


def simulated(populations, seed=0, slopes=SLOPES, shared=1):
    """Populations with two features whose outcomes have known probabilities; ``shared`` of them share a dataset."""
    random = np.random.default_rng(seed)
    table = random.normal([3.0, -1.0], [0.5, 2.0], (populations, 2))
    units = (table - [3.0, -1.0]) / [0.5, 2.0]
    chances = {method: 1 / (1 + np.exp(-(0.3 + units @ own))) for method, own in slopes.items()}
    outcomes = {method: (random.uniform(size=populations) < own).astype(float) for method, own in chances.items()}
    groups = np.arange(populations) // shared
    return Seen({"gap": table[:, 0], "cosine": table[:, 1]}, outcomes, groups[:, None] != groups), chances


def with_sklearn(table, outcomes, penalty):
    """A regression on standardised features, with one half observation of each outcome at the mean."""
    tried = np.isfinite(outcomes)
    mean, deviation = table.mean(axis=0), table.std(axis=0)
    rows = np.concatenate([((table - mean) / deviation)[tried], np.zeros((2, table.shape[1]))])
    weights, right = np.append(np.ones(tried.sum()), [0.5, 0.5]), np.append(outcomes[tried], [0, 1])
    fitted = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10_000).fit(rows, right, sample_weight=weights)
    return fitted, lambda own: fitted.decision_function((own - mean) / deviation)


def by_others(seen):
    """Penalty, center and scale of the odds, and left-out scores as {method: scores}, by scikit-learn and SciPy."""

    def left_out(penalty):
        """The log odds of each population, by a regression on the others."""
        odds = {}
        for method, outcomes in seen.outcomes.items():
            own = [with_sklearn(seen.table[others], outcomes[others], penalty)[1] for others in seen.apart]
            odds[method] = np.array([predict(row[None])[0] for predict, row in zip(own, seen.table, strict=True)])
        return odds

    known = np.concatenate(list(seen.outcomes.values()))
    tried = np.isfinite(known)
    helped = known[tried].sum()
    center = np.log((helped + 0.5) / (tried.sum() - helped + 0.5))

    def drawn_together(odds):
        """The lowest loss and its scale."""
        apart, signs = np.concatenate(list(odds.values()))[tried] - center, 2 * known[tried] - 1
        found = minimize_scalar(
            lambda scale: np.logaddexp(0, -signs * (center + scale * apart)).sum(), bounds=(0, 1), method="bounded"
        )
        return found.fun, found.x

    fits = {penalty: (own, *drawn_together(own)) for penalty in PENALTIES for own in [left_out(penalty)]}
    penalty = min(fits, key=lambda own: fits[own][1])
    odds, _, scale = fits[penalty]
    scores = {
        method: 1 / (1 + np.exp((2 * seen.outcomes[method] - 1) * (center + scale * (own - center))))
        for method, own in odds.items()
    }
    return penalty, center, scale, scores


def test_coefficients_and_margins_are_those_of_scikit_learn():
    seen, _ = simulated(38, shared=2)
    seen.outcomes["ties"][[3, 7]] = np.nan
    forecast = fit_forecast(seen)
    penalty, center, scale, scores = by_others(seen)
    assert forecast.penalty == penalty
    assert 0.05 < scale < 0.95, "the scale must matter here"
    for method, outcomes in seen.outcomes.items():
        theirs, _ = with_sklearn(seen.table, outcomes, penalty)
        ours = [forecast.intercepts[method], *forecast.slopes[method].values()]
        expected = scale * np.concatenate([theirs.intercept_, theirs.coef_[0]]) + [(1 - scale) * center, 0, 0]
        np.testing.assert_allclose(ours, expected, atol=1e-4)
        # ceil(37 * 0.9) = 34 of 36, ceil(39 * 0.9) = 36 of 38.
        known = np.sort(scores[method][np.isfinite(outcomes)])
        assert forecast.margins[method] == pytest.approx(1 - known[{36: 33, 38: 35}[len(known)]], abs=1e-4)


def test_outcomes_that_are_all_equal_have_finite_odds():
    seen, _ = simulated(20)
    always = Seen(seen.features, {"ties": np.ones(20)}, seen.apart)
    answer = fit_forecast(always).answer({"gap": 3.0, "cosine": -1.0}, "ties")
    assert answer.statement == HELPS
    # Without features: 20.5 of 21 observations.
    assert 0.9 < answer.probability < 20.5 / 21 + 1e-6


def test_stated_probabilities_are_right_on_populations_held_out():
    """In each bin, the share that helped and the true probability agree with what was stated."""
    seen, chances = simulated(100, seed=1)
    answers = held_out(seen)
    stated = np.array([own[method].probability for own in answers for method in own])
    happened = np.array([seen.outcomes[method][at] for at, own in enumerate(answers) for method in own])
    places = np.repeat(np.arange(100), 2)
    curve = reliability(stated, happened, places, generator=np.random.default_rng(0), confidence=0.998)
    assert len(curve) == 5
    for own in curve:
        assert own.happened.low <= own.stated <= own.happened.high, own
    true = np.array([chances[method][at] for at, own in enumerate(answers) for method in own])
    assert np.abs(stated - true).mean() < 0.1


def test_at_most_a_tenth_of_the_populations_get_a_wrong_statement():
    wrong = said = total = 0
    for seed in range(6):
        seen, _ = simulated(60, seed=10 + seed, shared=2)
        for at, own in enumerate(held_out(seen)):
            for method, answer in own.items():
                total += 1
                said += answer.statement != CANNOT_SAY
                wrong += answer.statement == (DOES_NOT if seen.outcomes[method][at] else HELPS)
    assert said > 0.2 * total
    assert wrong / total < 0.1 + 2 * np.sqrt(0.1 * 0.9 / (total / 2))


def test_it_cannot_say_what_the_features_do_not_explain():
    statements, wrong = [], []
    for seed in range(6):
        seen, _ = simulated(80, slopes={"noise": np.zeros(2)})
        outcomes = np.random.default_rng(5 + seed).integers(0, 2, 80).astype(float)
        answers = [own["noise"] for own in held_out(Seen(seen.features, {"noise": outcomes}, seen.apart))]
        statements += [own.statement for own in answers]
        wrong += [own.statement == (DOES_NOT if y else HELPS) for own, y in zip(answers, outcomes, strict=True)]
        assert "populations like it had both outcomes" in {own.why for own in answers if own.statement == CANNOT_SAY}
    assert statements.count(CANNOT_SAY) > 0.8 * len(statements)
    assert np.mean(wrong) < 0.1


@pytest.mark.parametrize(("populations", "told"), [(8, "too few populations were seen"), (9, "")])
def test_it_cannot_say_from_fewer_than_nine_populations(populations, told):
    random = np.random.default_rng(0)
    gap = np.linspace(-1, 1, populations) + 0.01 * random.normal(size=populations)
    seen = Seen({"gap": gap}, {"ties": np.ones(populations)}, ~np.eye(populations, dtype=bool))
    answer = fit_forecast(seen).answer({"gap": 0.0}, "ties")
    assert (answer.statement, answer.why) == ((CANNOT_SAY, told) if told else (HELPS, ""))


def test_it_cannot_say_of_a_population_unlike_those_seen():
    seen, _ = simulated(60)
    forecast = fit_forecast(seen)
    answer = forecast.answer({"gap": 3.0, "cosine": -1.0 + 4 * 2.0}, "ties")
    assert answer.statement == CANNOT_SAY
    assert answer.why == "cosine: unlike the populations seen"
    with pytest.raises(WsrError, match="forecast: no feature cosine"):
        forecast.answer({"gap": 3.0}, "ties")
    with pytest.raises(WsrError, match="forecast: no method iso_c"):
        forecast.answer({"gap": 3.0, "cosine": 0.0}, "iso_c")


def test_it_cannot_say_of_a_population_that_differs_where_all_those_seen_agree():
    seen, _ = simulated(30)
    forecast = fit_forecast(Seen(seen.features | {"members": np.full(30, 2.0)}, seen.outcomes, seen.apart))
    features = {"gap": 3.0, "cosine": -1.0}
    assert forecast.answer(features | {"members": 2.5}, "ties").why == "members: unlike the populations seen"
    without = fit_forecast(seen).answer(features, "ties")
    assert forecast.answer(features | {"members": 2.0}, "ties").probability == pytest.approx(without.probability)
    assert forecast.deviations["members"] == 0


def test_a_population_learns_nothing_from_those_that_share_a_dataset_with_it():
    seen, _ = simulated(30, shared=3)
    before = held_out(seen)[0]
    for outcomes in seen.outcomes.values():
        outcomes[1:3] = 1 - outcomes[1:3]
    seen.features["gap"][1:3] = 9.0
    assert held_out(seen)[0] == before
    seen.features["gap"][3] = 9.0
    assert held_out(seen)[0] != before


def test_without_a_population_to_learn_from_it_cannot_say():
    seen, _ = simulated(3, shared=3)
    assert {answer.why for own in held_out(seen) for answer in own.values()} == {"no population was seen"}


def test_it_is_kept_as_plain_data():
    seen, _ = simulated(40)
    forecast = fit_forecast(seen)
    again = Forecast(**json.loads(json.dumps(forecast.plain())))
    features = {"gap": 3.2, "cosine": -0.5}
    for method in SLOPES:
        ours, theirs = forecast.answer(features, method), again.answer(features, method)
        assert theirs.probability == pytest.approx(ours.probability, rel=1e-4)
        assert theirs.statement == ours.statement


def test_a_reliability_curve_counts_and_its_intervals_know_populations():
    random = np.random.default_rng(0)
    populations = np.repeat(np.arange(50), 20)
    stated = random.uniform(size=1000)
    alike = np.repeat(random.uniform(size=50), 20) < stated  # forecasts of a population fail together
    for bins in (4, 5):
        place = np.digitize(stated, np.linspace(0, 1, bins + 1)[1:-1])
        curve = reliability(stated, alike.astype(float), populations, generator=random, bins=bins)
        for number, own in enumerate(curve):
            assert own.count == (place == number).sum()
            assert own.stated == pytest.approx(stated[place == number].mean())
            assert own.happened.value == pytest.approx(alike[place == number].mean())
    middle = reliability(stated, alike.astype(float), populations, generator=random, bins=1)[0].happened
    independent = np.sqrt(middle.value * (1 - middle.value) / 1000)
    assert middle.high - middle.low > 1.5 * 2 * 1.96 * independent
    with pytest.raises(WsrError, match="probabilities between 0 and 1"):
        reliability(np.array([1.5]), np.ones(1), np.zeros(1, int), generator=random)
