"""The benchmarks of searches in a hull, on their smoke presets: they measure, resume and print a table."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import fronts, learned, many_members, precision
from wsr.engine.settings import Settings
from wsr.region.made_up import made_up_region
from wsr.store.results import Results


@pytest.fixture(scope="module")
def region():
    return made_up_region(3)


@pytest.mark.long
def test_ways_to_choose_coefficients_are_compared_once(region, tmp_path, monkeypatch):
    out = tmp_path / "rows.jsonl"
    rows = learned.run(region, learned.PRESETS["smoke"], out)
    ways = {(row["way"], row["budget"]) for row in rows if row["target"] == "made_up_a1"}
    assert ways >= {("greedy soup", 1.0), ("polynomials", 1.0), ("polynomials", 2.0), ("gradients", 2.0)}
    by_polynomials = [row for row in rows if row["way"] == "polynomials"]
    assert all(row["passes"] <= row["budget"] * 5 for row in by_polynomials)
    lowest = [row["validation_loss"] for row in rows if row["way"] == "lowest loss"]
    (member,) = [row["validation_loss"] for row in rows if row["way"] == "best member"]
    assert len(lowest) == 2
    assert max(lowest) <= member + 1e-5  # members are among the points that were evaluated
    for row in rows:
        assert row["test_loss"] == pytest.approx(np.mean(row["test_losses"]), abs=1e-5)
    monkeypatch.setattr(learned, "compared", None)  # a second call measures nothing
    assert learned.run(region, learned.PRESETS["smoke"], out) == rows
    with pytest.raises(TypeError):  # these rows are of another precision
        learned.run(region, replace(learned.PRESETS["smoke"], precision="bfloat16"), out)
    assert "| 2 | gradients |" in "\n".join(learned.table(rows))


@pytest.mark.long
def test_a_front_is_compared_with_others_once(region, tmp_path, monkeypatch):
    out = tmp_path / "rows.jsonl"
    rows = fronts.run(region, fronts.PRESETS["smoke"], out)
    volumes = {row["way"]: row["volume"] for row in rows}
    assert set(volumes) - {fronts.NSGA2} == {
        fronts.FRONT,
        "members",
        "members and centroid",
        "greedy soups",
        "learned coefficients",
        "merge methods",
    }
    assert (fronts.NSGA2 in volumes) == bool(importlib.util.find_spec("pymoo"))
    assert volumes["members"] > 0
    assert volumes["members and centroid"] >= volumes["members"] - 1e-12
    chosen_on = {row["way"]: row["validation_volume"] for row in rows}
    assert chosen_on["members and centroid"] >= chosen_on["members"] - 1e-12
    assert all(chosen_on[way] != volume for way, volume in volumes.items())  # other texts
    below = {row["way"]: row["validation_below_the_front"] for row in rows}
    assert below == pytest.approx({way: chosen_on[fronts.FRONT] - own for way, own in chosen_on.items()})
    assert all(row["volume_low"] <= row["volume_high"] for row in rows)
    assert all(row["below_the_front"] == pytest.approx(volumes[fronts.FRONT] - row["volume"]) for row in rows)
    monkeypatch.setattr(fronts, "compared", None)
    assert fronts.run(region, fronts.PRESETS["smoke"], out) == rows
    with pytest.raises(TypeError):  # these rows are of another precision
        fronts.run(region, replace(fronts.PRESETS["smoke"], precision="bfloat16"), out)
    assert len(fronts.table(rows)) == 2 + len(rows)


@pytest.mark.long
def test_errors_of_few_points_are_measured_at_fresh_ones(dataset, region):
    (row,) = many_members.measured(region, dataset, [70], Settings(), fresh=10)
    assert row["scored_points"] <= 70
    assert row["mean_error"] <= row["largest_error"] < row["range_of_losses"]
    assert 0.5 < row["within_tolerance"] <= 1


@pytest.mark.long
def test_losses_of_two_precisions_are_compared(dataset, region):
    row = precision.compared(region, dataset, Results.in_memory(), points=8)
    assert 0 < row["mean_difference"] <= row["largest_difference"] < 0.05
    assert row["range_of_losses"] > 0
    assert -1 <= row["rank_correlation"] <= 1
