"""What the headline of a study counts, against counts made by hand."""

import numpy as np
import pytest

from wsr.report.document import Section
from wsr.studies.harness.clustered import cluster, nearest_to_own_group, percent_told, score_table
from wsr.studies.same_dataset_clusters import similarity_section

# Two pairs of models; the last of the second pair lies nearer to the first pair.
LABELS = ("a", "a", "b", "b")
STRAY = np.array([[1, 0.6, 0.1, 0.5], [0.6, 1, 0.1, 0.5], [0.1, 0.1, 1, 0.2], [0.5, 0.5, 0.2, 1]])
TIDY = np.kron(np.eye(2), np.full((2, 2), 0.4)) + 0.6 * np.eye(4)


def test_nearest_counts_those_that_have_others_of_their_group():
    assert nearest_to_own_group(TIDY, LABELS) == (4, 4)
    assert nearest_to_own_group(STRAY, LABELS) == (3, 4)
    assert nearest_to_own_group(TIDY, ("a", "a", "b", "c")) == (2, 2)
    assert nearest_to_own_group(TIDY, ("a", "a", "a", "a")) == (0, 0)


@pytest.mark.parametrize(
    ("similarity", "told"),
    [
        (TIDY, "Models trained on one dataset sit together: every one of 4 is nearest its own group"),
        (STRAY, "Models trained on one dataset mostly sit together: 3 of 4 are nearest their own group"),
    ],
    ids=["tidy", "stray"],
)
def test_a_headline_says_how_many_sit_together(similarity, told):
    section = _section(similarity)
    assert section.headline.startswith(told)
    within, across = similarity[[0, 2], [1, 3]].mean(), similarity[:2, 2:].mean()
    assert f"(cosine {within:.2f} within, {across:.2f} across)" in section.headline
    assert section.headline.endswith(".")


def test_lines_of_the_index_are_short():
    section = _section(STRAY)
    assert 0 < len(section.paper_short) <= 44
    assert 0 < len(section.measured_short) <= 44


def test_equal_scores_of_many_labels_are_told_once():
    labels = tuple("abcd")
    table = score_table(cluster(np.eye(4), {"dataset": labels}))
    assert {row[-1] for row in table.rows} == {"1.00 for each of 4"}
    few = score_table(cluster(TIDY, {"dataset": LABELS}))
    assert few.rows[0][-1] == "a 1.00, b 1.00"


def test_percents_are_one_number_where_they_agree():
    assert percent_told([1.0, 1.0]) == "100 %"
    assert percent_told([1.0, 0.88, 0.9]) == "88 to 100 %"


def _section(similarity: np.ndarray) -> Section:
    names = [f"{label}/{place}" for place, label in enumerate(LABELS)]
    return similarity_section(names, similarity, {"dataset": LABELS})[1]
