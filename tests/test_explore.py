"""The explorer's page: its numbers against exact evaluation, by NumPy alone; a file that asks for nothing."""

import base64
import fnmatch
import hashlib
import itertools
import json
import math
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from worlds import made_up, three_near

import wsr
from wsr.engine.cross_validation import FOLDS, GRID, folds_of
from wsr.engine.evaluate import Protocol, evaluate
from wsr.engine.hull_polynomial import design_of, draw_faces, fit_hull_polynomial, one_penalty
from wsr.engine.region_features import region_features
from wsr.errors import WsrError
from wsr.region.region import from_params
from wsr.report.explorer.content import content_of
from wsr.report.explorer.page import explorer_html

ROOT = Path(__file__).parent.parent
ASSETS = ROOT / "wsr" / "report" / "explorer" / "assets"
INVERSE_L2 = 0.3


@pytest.fixture(scope="module")
def region(tiny):
    return three_near(tiny)


@pytest.fixture(scope="module")
def datasets(tiny):
    return made_up(tiny, "made_up_a1"), made_up(tiny, "made_up_c1", test=30)


@pytest.fixture(scope="module")
def html(region, datasets, tmp_path_factory):
    file = tmp_path_factory.mktemp("explorer") / "page.html"
    wsr.explore(region, datasets, file, points=85, inverse_l2=INVERSE_L2)
    return file.read_text("utf-8")


@pytest.fixture(scope="module")
def content(html):
    return json.loads(html.split('id="data">')[1].split("</script>")[0])


def bernstein(points, degree):
    """The Bernstein polynomials, written from their formula."""
    columns = []
    for term in itertools.combinations_with_replacement(range(points.shape[1]), degree):
        times = math.factorial(degree)
        for member in set(term):
            times //= math.factorial(term.count(member))
        columns.append(times * np.prod(points[:, list(term)], axis=1))
    return np.stack(columns, axis=1)


def floats(text):
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float64)


def page_values(content, record, points):
    """Losses, accuracies and their bounds, by NumPy from the page's data alone."""
    basis = bernstein(points, record["degree"])
    labels = np.array(record["labels"])
    outputs = basis @ floats(record["terms"]).reshape(basis.shape[1], -1)
    logits = outputs.reshape(len(points), len(labels), record["outputs"])
    logits = np.concatenate([np.zeros_like(logits[..., :1]), logits], axis=-1)
    right = np.take_along_axis(logits, np.broadcast_to(labels[:, None], (*logits.shape[:2], 1)), axis=-1)[..., 0]
    losses = (np.log(np.exp(logits).sum(axis=-1)) - right).mean(axis=1)
    accuracies = (logits.argmax(axis=-1) == labels).mean(axis=1)
    nodes = np.array(content["nodes"])
    power = record["degree"] + (basis.shape[1] <= len(nodes))  # the lowest degree that the nodes do not determine
    weights = basis @ floats(content["bases"][str(record["degree"])]).reshape(basis.shape[1], len(nodes))
    centre = nodes.mean(axis=0)
    x, y = points - centre, nodes - centre
    # The kernel <x, y>^power: the norm of what the weights miss.
    squares = (x * x).sum(axis=1) ** power - 2 * (weights * (x @ y.T) ** power).sum(axis=1)
    squares += np.einsum("pn,nm,pm->p", weights, (y @ y.T) ** power, weights)
    remainders = np.sqrt(np.maximum(squares, 0))
    bounds = [
        np.where(
            remainders <= record[name]["furthest"] * (1 + 1e-6),
            record[name]["ratio"] * np.maximum(remainders, record[name]["usual"]),
            np.inf,
        )
        for name in ("loss_bound", "score_bound")
    ]
    return losses, accuracies, *bounds


def test_the_pages_values_are_those_of_evaluate_within_its_bounds(content, region, datasets):
    rows = draw_faces(np.random.default_rng(7), 50, 3)
    for record, dataset in zip(content["datasets"], datasets, strict=True):
        exact = evaluate(region, rows, dataset, protocol=Protocol(inverse_l2=INVERSE_L2))
        losses, accuracies, loss_bounds, score_bounds = page_values(content, record, rows)
        assert np.isfinite(loss_bounds).mean() > 0.9
        assert (np.abs(losses - exact.generalised_loss) > loss_bounds).mean() <= 0.05
        assert (np.abs(accuracies - exact.scores) > score_bounds).mean() <= 0.05
        # Bounds that say something, and polynomials that follow the losses.
        assert np.median(loss_bounds) < 0.5 * np.ptp(exact.generalised_loss)
        assert np.corrcoef(losses, exact.generalised_loss)[0, 1] > 0.95


@pytest.mark.long
def test_a_page_of_many_members_has_part_of_a_lattice_and_holds_its_bounds(tiny, datasets, tmp_path):
    many, dataset = wsr.made_up_region(7), datasets[1]
    file = tmp_path / "many.html"
    wsr.explore(many, dataset, file, points=81, inverse_l2=INVERSE_L2)
    content = json.loads(file.read_text("utf-8").split('id="data">')[1].split("</script>")[0])
    (record,) = content["datasets"]
    assert len(content["nodes"]) == 18  # a whole lattice of degree 2 has 28
    assert record["degree"] == 2
    rows = draw_faces(np.random.default_rng(8), 25, 7)
    exact = evaluate(many, rows, dataset, protocol=Protocol(inverse_l2=INVERSE_L2)).generalised_loss
    losses, _, bounds, _ = page_values(content, record, rows)
    assert (np.abs(losses - exact) > bounds).mean() <= 0.05
    assert np.corrcoef(losses, exact)[0, 1] > 0.95


@pytest.mark.long
def test_the_scored_points_of_the_page_are_exact(content, region, datasets):
    rows = np.array(content["exact"]["coefficients"])
    assert content["exact"]["kinds"].count("member") == 3
    for record, dataset in zip(content["datasets"], datasets, strict=True):
        exact = evaluate(region, rows, dataset, protocol=Protocol(inverse_l2=INVERSE_L2))
        np.testing.assert_allclose(record["exact_losses"], exact.generalised_loss, atol=1e-5)
        np.testing.assert_allclose(record["exact_scores"], exact.scores, atol=1e-9)


def test_the_map_of_the_page_is_that_of_the_population(content, region):
    population = wsr.map(region)
    places = [[member["x"], member["y"]] for member in content["members"]]
    np.testing.assert_allclose(places, population.positions)
    assert [member["name"] for member in content["members"]] == list(region.names)


def test_the_page_asks_for_nothing_and_is_small(html):
    assert len(html.encode()) < 1_000_000
    assert set(re.findall(r"https?://[\w.]+", html)) <= {"http://www.w3.org", "https://d3js.org"}  # names, not requests
    assert not re.findall(r"<(?:img|iframe|object|embed|form|video|audio|source)\b", html)
    assert not re.findall(r"<script[^>]*\bsrc=|<link[^>]*href=\"(?!data:,\")|@import|url\((?!['\"]?[#`])", html)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(own.encode()).digest()).decode() for own in scripts]
    assert re.findall(r"'sha256-([^']*)'", policy) == hashes


def test_d3_is_the_one_that_was_published_and_is_installed_with_the_package():
    for line in (ASSETS / "d3.sha256").read_text().splitlines():
        wanted, name = line.split()
        assert hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() == wanted, name
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["wsr"]
    for file in ASSETS.iterdir():
        assert any(fnmatch.fnmatch(str(file.relative_to(ROOT / "wsr")), pattern) for pattern in patterns), file.name


@pytest.mark.long
def test_names_are_text_whatever_they_are(region, datasets):
    names = ("</script><script>alert(1)</script>", "<!--", "'\"&")
    hostile = from_params(region.model, region.base, dict(zip(names, (m.load() for m in region.members), strict=True)))
    design = design_of(3, points=85)
    found = fit_hull_polynomial(hostile, datasets[0], design, protocol=Protocol(inverse_l2=INVERSE_L2))
    html = explorer_html(content_of(hostile, wsr.map(hostile), design, [found]))
    assert "alert(1)</script>" not in html
    data = html.split('id="data">')[1].split("</script>")[0]
    assert [member["name"] for member in json.loads(data)["members"]] == list(names)


def test_one_penalty_is_the_one_that_scikit_learn_chooses(region, datasets):
    """The lowest loss on left-out texts, on features that are not standardised."""
    dataset = datasets[0]
    probe = dataset.splits["probe"]
    ((_, found),) = region_features(region, region.centroid()[None], {"probe": probe})
    features, fold_of = np.asarray(found["probe"])[0].astype(np.float64), folds_of(probe.labels, classes=2)
    losses = []
    for inverse_l2 in GRID:
        model = LogisticRegression(C=inverse_l2, solver="newton-cholesky", tol=1e-8)
        total = 0.0
        for fold in range(FOLDS):
            out = fold_of == fold
            model.fit(features[~out], probe.labels[~out])
            total += log_loss(probe.labels[out], model.predict_proba(features[out]), normalize=False, labels=[0, 1])
        losses.append(total)
    chosen = one_penalty(region, dataset)
    assert losses[int(np.argmin(np.abs(np.log(np.array(GRID) / chosen))))] <= min(losses) * 1.001
    assert float(f"{chosen:g}") == chosen


@pytest.mark.long
def test_a_region_writes_its_own_page(region, datasets, html, tmp_path):
    (found,) = region.explore(datasets[1], tmp_path / "own.html", points=85, inverse_l2=INVERSE_L2)
    assert found.dataset.name == "made_up_c1"
    assert (tmp_path / "own.html").stat().st_size > 300_000


def test_points_are_drawn_on_lines_in_triangles_and_in_larger_hulls():
    rows = draw_faces(np.random.default_rng(0), 3000, 6)
    np.testing.assert_allclose(rows.sum(axis=1), 1)
    assert (rows >= 0).all()
    used = (rows > 0).sum(axis=1)
    # A third by itself, and a fifth of the third of hulls of 2 to 6 members.
    assert (used == 2).mean() == pytest.approx(0.4, abs=0.03)
    assert (used == 3).mean() == pytest.approx(0.4, abs=0.03)
    assert (used == 6).any()


def test_what_cannot_be_explored_is_refused(region, datasets, tmp_path):
    alone = region.where(lambda member: member.name == "m0")
    with pytest.raises(WsrError, match="at least two members"):
        wsr.explore(alone, datasets[0], tmp_path / "page.html")
    with pytest.raises(WsrError, match="at least 66 points, found 20"):
        wsr.explore(region, datasets[0], tmp_path / "page.html", points=20)
    with pytest.raises(WsrError, match="no dataset"):
        wsr.explore(region, [], tmp_path / "page.html")
    with pytest.raises(WsrError, match="fixed inverse_l2"):
        fit_hull_polynomial(region, datasets[0], design_of(3, points=85), protocol=Protocol())
    assert not list(tmp_path.iterdir())
