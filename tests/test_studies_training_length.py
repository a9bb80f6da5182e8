"""The claim of the study of training length is one about means over targets."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from wsr.studies import training_length as study


def found(gains, rises):
    """What two lengths came to on each target, with losses of points between and past the members."""
    return {
        (epochs, f"t{number}"): SimpleNamespace(
            half=SimpleNamespace(probability=0.5),
            gain=SimpleNamespace(mean=gain),
            rise=SimpleNamespace(mean=rise),
            ratio=0.5,
        )
        for epochs in gains
        for number, (gain, rise) in enumerate(zip(gains[epochs], rises[epochs], strict=True))
    }


def around(mean, draw):
    noise = draw.normal(0, 0.002, 8)
    return mean + noise - noise.mean()


@pytest.fixture(autouse=True)
def _bare_values(monkeypatch):
    """Runs the functions without their types, so that a target needs no models."""
    for name in ("_means", "_lengthening", "_of", "_verdict"):
        monkeypatch.setattr(study, name, getattr(study, name).__wrapped__)


@pytest.mark.parametrize(
    ("gains", "rises", "verdict"),
    [
        ((0.0, -0.03), (0.0, 0.05), "holds"),
        ((0.0, -0.03), (0.0, 0.0), "holds in part"),  # no rim
        ((-0.03, -0.03), (0.05, 0.05), "holds in part"),  # short training is enough
        ((0.0, 0.03), (0.0, -0.05), "refuted"),
        ((0.0, 0.0), (0.0, 0.0), "no effect"),
    ],
)
def test_longer_training_must_show_between_past_and_against_shorter(gains, rises, verdict):
    draw = np.random.default_rng(0)
    made = found(
        {epochs: around(mean, draw) for epochs, mean in zip((0.5, 10.0), gains, strict=True)},
        {epochs: around(mean, draw) for epochs, mean in zip((0.5, 10.0), rises, strict=True)},
    )
    means = {epochs: study._means(made, epochs) for epochs in (0.5, 10.0)}
    assert study._verdict(made, means) == verdict


def test_one_length_is_compared_with_no_other():
    draw = np.random.default_rng(0)
    made = found({10.0: around(-0.03, draw)}, {10.0: around(0.05, draw)})
    assert study._verdict(made, {10.0: study._means(made, 10.0)}) == "holds"


def test_means_have_the_intervals_of_t_tests_over_targets():
    draw = np.random.default_rng(1)
    gains, rises = ({epochs: draw.normal(size=6) for epochs in (0.5, 10.0)} for _ in range(2))
    made = found(gains, rises)
    own = study._means(made, 10.0)
    for mean, values in ((own.gain, gains[10.0]), (own.rise, rises[10.0])):
        assert (mean.low, mean.high) == pytest.approx(stats.ttest_1samp(values, 0).confidence_interval())
    more = study._lengthening(made, [0.5, 10.0])
    expected = stats.ttest_rel(gains[10.0], gains[0.5]).confidence_interval()
    assert (more.low, more.high) == pytest.approx(expected)
