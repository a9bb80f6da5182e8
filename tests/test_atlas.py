"""The atlas: sketches against exact cosines, writers at once, copies, faults, the command line and the page."""

import json
import multiprocessing
import sqlite3

import numpy as np
import pytest
from models_support import random_params
from sklearn.neighbors import NearestNeighbors
from test_store import record_of

import wsr
from benchmarks.atlas_simulated import Turned, ranks_of_true, recall_told
from wsr.cli import main
from wsr.errors import WsrError
from wsr.geometry.trees import flatten, nest
from wsr.report.atlas import page as atlas_page
from wsr.statistics.neighbourhoods import nearest_others, neighbourhoods
from wsr.store.atlas_file import AtlasEntry, AtlasFile, directions, standard_error

NAMES = ("one", "two", "three")


def _moved(base, seed, like=None, share=0.0):
    """A model at a random direction from the base, partly that of another model."""
    draw = np.random.default_rng(seed)
    own = {path: draw.normal(0, 0.01, leaf.shape).astype(np.float32) for path, leaf in flatten(base.params).items()}
    towards = flatten(like) if like else {}
    return nest(
        {
            path: leaf + own[path] * (1 - share) + (share * (towards[path] - leaf) if like else 0)
            for path, leaf in flatten(base.params).items()
        }
    )


@pytest.fixture(scope="module")
def models(tiny):
    first = _moved(tiny, 0)
    return {"one": first, "two": _moved(tiny, 1, first, 0.6), "three": _moved(tiny, 2)}


@pytest.fixture(scope="module")
def folders(tiny, models, tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    for name, params in models.items():
        wsr.export(tiny.with_params(params), place / name)
    return place


@pytest.fixture
def atlas(tiny, folders, tmp_path):
    opened = wsr.atlas(wsr.Store.create_for(tmp_path / "store", tiny))
    assert opened.add([str(folders / name) for name in NAMES], datasets=["a", "a", "b"]) == {}
    return opened


def _cosine(tiny, one, other):
    vectors = [
        np.concatenate([(own[path] - leaf).ravel() for path, leaf in flatten(tiny.params).items()]).astype(np.float64)
        for own in (flatten(one), flatten(other))
    ]
    return float(vectors[0] @ vectors[1] / np.linalg.norm(vectors[0]) / np.linalg.norm(vectors[1]))


def test_neighbours_come_with_exact_cosines_and_estimates_near_them(atlas, tiny, models, folders):
    place = atlas.locate(str(folders / "one"))
    found = {near.entry.name: near for near in place.neighbours}
    assert [near.entry.name for near in place.neighbours] == ["one", "two", "three"]
    assert place.copies == ("one",)
    for name, near in found.items():
        exact = _cosine(tiny, models["one"], models[name])
        assert near.exact == pytest.approx(exact, abs=1e-5)
        assert abs(near.cosine - exact) < 4 * standard_error(exact, 4096) + 1e-3
    assert found["three"].exact < place.noise < found["two"].exact
    # By its name a model is not its own neighbour.
    by_name = atlas.locate("one", exact=0)
    assert [near.entry.name for near in by_name.neighbours] == ["two", "three"]
    assert by_name.copies == ()
    assert {near.exact for near in by_name.neighbours} == {None}


def _trained(start, seed, size=0.02):
    """A model some way from another, in random directions of which a few dominate, as after training."""
    draw = np.random.default_rng(seed)
    found = {}
    for path, leaf in flatten(start).items():
        found[path] = leaf
        if leaf.ndim == 2 and leaf.any():
            left, _, right = np.linalg.svd(draw.normal(size=leaf.shape), full_matrices=False)
            matrix = left * (1 / np.arange(1, left.shape[1] + 1) ** 0.5) @ right
            found[path] = (leaf + size * np.linalg.norm(leaf) / np.linalg.norm(matrix) * matrix).astype(np.float32)
    return nest(found)


@pytest.fixture(scope="module")
def family(tiny):
    """Models with known parents: two children of the base, two of the first child, copies, and a foreigner."""
    child, sibling = _trained(tiny.params, 1, 0.2), _trained(tiny.params, 2, 0.2)
    draw = np.random.default_rng(9)
    noise = {path: 0.03 * leaf.std() * draw.normal(size=leaf.shape) for path, leaf in flatten(child).items()}
    pruned = {path: np.where(np.abs(leaf) < 0.01, 0, leaf) for path, leaf in flatten(child).items()}
    return {
        "child": child,
        "sibling": sibling,
        "grandchild": _trained(child, 3, 0.1),
        "second grandchild": _trained(child, 4, 0.1),
        "noised": nest({path: (leaf + noise[path]).astype(np.float32) for path, leaf in flatten(child).items()}),
        "pruned": nest({path: leaf.astype(np.float32) for path, leaf in pruned.items()}),
        "renamed": child,
        "foreigner": random_params(tiny.model, 5),
    }


@pytest.fixture(scope="module")
def relatives(tiny, family, tmp_path_factory):
    """An atlas of the family, whose members lie in another store."""
    place = tmp_path_factory.mktemp("family")
    store = wsr.Store.create_for(place / "family", tiny)
    for name, params in family.items():
        store.save(record_of(name.replace(" ", "-")), params, {"bias": np.zeros(2, np.float32)})
    atlas = wsr.atlas(wsr.Store.create_for(place / "atlas", tiny))
    assert atlas.add([str(place / "family")]) == {}
    return atlas


KIN = {
    "grandchild": {"child": "parent", "second-grandchild": "sibling", "sibling": "related", "base": "ancestor"},
    "child": {
        "renamed": "renamed copy",
        "noised": "noised copy",
        "pruned": "pruned copy",
        "grandchild": "child",
        "second-grandchild": "child",
        "sibling": "sibling",
        "foreigner": "not related",
        "base": "parent",
    },
    "noised": {"child": "original of this noised copy", "base": "ancestor"},
}
"""What models are to another, as they were made."""


@pytest.mark.parametrize("name", KIN)
def test_what_the_nearest_models_are_to_one_is_what_they_were_made_as(relatives, name):
    place = relatives.locate(f"family/{name}", lineage=7)
    found = {near.entry.name.removeprefix("family/"): near.kin for near in place.neighbours} | {"base": place.base}
    assert {other: found[other] for other in KIN[name]} == KIN[name]


def test_the_page_shows_what_is_known_of_a_lineage(relatives, tmp_path):
    relatives.locate("family/noised", lineage=2)
    atlas_page.write_atlas_page(relatives, tmp_path / "page.html")
    data = json.loads((tmp_path / "page.html").read_text().split('id="data">')[1].split("</script>")[0])

    def shown(name, other):
        at, to = (data["names"].index(f"family/{own}") for own in (name, other))
        return data["kin"][str(at)][data["neighbours"][at].index(to)]

    assert shown("noised", "child") == "original of this noised copy"
    assert shown("child", "noised") == "noised copy"
    assert shown("renamed", "child") == "renamed copy"


def test_nothing_is_said_of_a_model_that_is_gone(atlas, tiny, folders, tmp_path):
    wsr.export(tiny.with_params(_moved(tiny, 7)), tmp_path / "brief")
    atlas.add([str(tmp_path / "brief")])
    (tmp_path / "brief" / "model.safetensors").unlink()
    place = atlas.locate(str(folders / "one"))
    kin = {near.entry.name: near.kin for near in place.neighbours}
    assert kin["brief"] == "cannot say"
    assert kin["one"] == "same model"
    assert kin["two"] not in ("cannot say", "")
    untested = atlas.locate("one", exact=0)
    assert {near.kin for near in untested.neighbours} == {""}
    assert untested.base == ""


def test_the_standard_error_is_that_of_sketches():
    draw = np.random.default_rng(0)
    for cosine in (0.0, 0.3, 0.9):
        # Entries of two sketches are pairs of normal numbers with this correlation.
        first, noise = draw.normal(size=(2, 3000, 256)).astype(np.float32)
        second = np.float32(cosine) * first + np.float32(np.sqrt(1 - cosine**2)) * noise
        found = (directions(first) * directions(second)).sum(axis=1)
        assert found.std() == pytest.approx(standard_error(cosine, 256), rel=0.06)


def test_a_model_that_is_gone_or_changed_has_no_exact_cosine(atlas, tiny, models, tmp_path):
    wsr.export(tiny.with_params(models["two"]), tmp_path / "brief")
    atlas.add([str(tmp_path / "brief")])
    wsr.export(tiny.with_params(_moved(tiny, 9)), tmp_path / "other")
    for file in ("model.safetensors",):
        (tmp_path / "brief" / file).write_bytes((tmp_path / "other" / file).read_bytes())
    near = {own.entry.name: own for own in atlas.locate("two").neighbours}
    assert near["brief"].exact is None
    assert near["brief"].cosine == pytest.approx(1.0, abs=1e-3)
    assert atlas.locate("two").copies == ("brief",)


def test_a_second_addition_changes_nothing_and_another_model_needs_another_name(atlas, tiny, folders, tmp_path):
    lines = []
    assert atlas.add([str(folders / "one")], tell=lines.append) == {}
    assert lines == ["already in the atlas: one (dataset one)"]
    wsr.export(tiny.with_params(_moved(tiny, 5)), tmp_path / "elsewhere" / "one")
    (tmp_path / "empty").mkdir()
    refused = atlas.add([str(tmp_path / "elsewhere" / "one"), str(tmp_path / "empty")])
    assert "another model is called 'one'" in refused["one"]
    assert set(refused) == {"one", "empty"}
    assert len(atlas) == 3


def test_members_of_a_store_are_added_with_their_datasets(tiny, models, tmp_path):
    other = wsr.Store.create_for(tmp_path / "members", tiny)
    for name in ("one", "two"):
        other.save(record_of(name), models[name], {"bias": np.zeros(2, np.float32)})
    atlas = wsr.atlas(wsr.Store.create_for(tmp_path / "atlas", tiny))
    assert atlas.add([str(tmp_path / "members")]) == {}
    assert [entry.name for entry in atlas.file.entries()] == ["members/one", "members/two"]
    assert {entry.dataset for entry in atlas.file.entries()} == {other.record("one").dataset}
    (near,) = atlas.locate("members/one").neighbours
    assert near.exact == pytest.approx(_cosine(tiny, models["one"], models["two"]), abs=1e-5)
    # A member and the same model from a folder are copies.
    wsr.export(tiny.with_params(models["one"]), tmp_path / "again")
    assert atlas.locate(str(tmp_path / "again")).copies == ("members/one",)


def test_the_nearest_of_many_are_those_of_scikit_learn(tmp_path, monkeypatch):
    monkeypatch.setattr("wsr.store.atlas_file._TOGETHER", 50)
    rows = np.random.default_rng(0).normal(size=(230, 64)).astype(np.float32)
    file = AtlasFile(tmp_path / "a.sqlite", "base", size=64)
    for number, row in enumerate(rows):
        file.add(AtlasEntry(f"m{number}", "", "d", str(number), 1.0), row)
    known = NearestNeighbors(n_neighbors=7, metric="cosine").fit(rows)
    distances, numbers = known.kneighbors(rows[:5])
    for row, wanted, distance in zip(rows[:5], numbers, distances, strict=True):
        found = file.nearest(row, 7)
        assert [near.entry.name for near in found] == [f"m{number}" for number in wanted]
        np.testing.assert_allclose([near.cosine for near in found], 1 - distance, atol=1e-3)  # half precision
    neighbours, cosines = nearest_others(directions(rows), 6)
    distances, numbers = known.kneighbors(rows)
    np.testing.assert_array_equal(neighbours, numbers[:, 1:])
    np.testing.assert_allclose(cosines, 1 - distances[:, 1:], atol=1e-5)


def test_simulated_models_lie_to_one_another_as_the_real_ones():
    draw = np.random.default_rng(0)
    mean, families, datasets = draw.normal(size=300), draw.normal(size=(2, 300)), draw.normal(size=(4, 300))
    numbers = np.arange(20) % 4
    vectors = mean + families[numbers % 2] + datasets[numbers] + draw.normal(size=(20, 300))
    turned = Turned.of(vectors.astype(np.float32), numbers, 2)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    first, second = turned.repetition(0), turned.repetition(1)
    for own in (first, second):
        np.testing.assert_allclose(own @ own.T, unit @ unit.T, atol=1e-5)
    # Models of two repetitions have nothing in common but the mean direction.
    mean = unit.mean(axis=0) / np.linalg.norm(unit.mean(axis=0))
    apart = first @ second.T - np.outer(unit @ mean, unit @ mean)
    assert np.abs(apart).max() < 5 / np.sqrt(300)
    assert apart.mean() == pytest.approx(0, abs=0.02)


def test_the_places_of_the_truly_nearest_are_those_of_a_sorted_list():
    draw = np.random.default_rng(0)
    exact, noise = draw.normal(size=(2, 3, 40))
    found = ranks_of_true(exact, exact + noise)
    for row, other, ranks in zip(exact, exact + noise, found, strict=True):
        order = sorted(range(40), key=lambda own: -other[own])
        assert sorted(ranks.tolist()) == sorted(order.index(own) for own in np.argsort(-row)[:10])
    assert recall_told(exact, exact)["of the nearest 10"] == 1
    assert recall_told(exact, exact)["nearest needed for 0.99"] == 10


def _write(path, names):
    file = AtlasFile(path, "base", size=64)
    for name in names:
        file.add(AtlasEntry(name, "", "d", name, 1.0), np.ones(64, np.float32))


@pytest.mark.long
def test_two_processes_add_at_once(tmp_path):
    path = tmp_path / "a.sqlite"
    context = multiprocessing.get_context("spawn")
    shared = [f"both{number}" for number in range(20)]
    parts = [[*shared, *(f"p{process}-{number}" for number in range(40))] for process in range(2)]
    processes = [context.Process(target=_write, args=(path, part)) for part in parts]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    names = [entry.name for entry in AtlasFile(path, "base").entries()]
    assert sorted(names) == sorted({*parts[0], *parts[1]})


def test_other_sketches_and_other_files_are_refused(tmp_path):
    AtlasFile(tmp_path / "a.sqlite", "base", size=64)
    with pytest.raises(WsrError, match="base_sha256 is base there and other here"):
        AtlasFile(tmp_path / "a.sqlite", "other")
    with pytest.raises(WsrError, match="size is 64 there and 128 here"):
        AtlasFile(tmp_path / "a.sqlite", "base", size=128)
    (tmp_path / "text").write_text("no database, but long enough to look at " * 20)
    with pytest.raises(WsrError, match="not an atlas, or damaged"):
        AtlasFile(tmp_path / "text", "base")
    with sqlite3.connect(tmp_path / "foreign.sqlite") as database:
        database.execute("CREATE TABLE others (name TEXT)")
    with pytest.raises(WsrError, match="not an atlas, or damaged"):
        AtlasFile(tmp_path / "foreign.sqlite", "base")


@pytest.mark.long
def test_groups_far_apart_are_clusters_and_a_lone_model_is_in_none():
    draw = np.random.default_rng(1)
    centres = np.eye(3, 256)
    rows = np.concatenate([centre + 0.02 * draw.normal(size=(20, 256)) for centre in centres])
    rows = directions(np.concatenate([rows, draw.normal(size=(1, 256))]).astype(np.float32))
    found = neighbourhoods(rows, least=0.3)
    truth = np.repeat([0, 1, 2], 20)
    for group in range(3):
        assert len(set(found.clusters[:60][truth == group].tolist())) == 1
    assert len(set(found.clusters[:60].tolist())) == 3
    assert found.clusters[60] == -1
    assert (truth[found.neighbours[:60]] == truth[:, None]).all()
    # Positions keep neighbourhoods: the nearest in the plane is of the same group.
    nearest = NearestNeighbors(n_neighbors=2).fit(found.positions[:60]).kneighbors(return_distance=False)[:, 0]
    assert (truth[nearest] == truth).all()


def test_from_the_shell(tiny, folders, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text(f"# models\n{folders / 'three'}\n\n{tmp_path / 'nowhere'}\n")
    assert main(["atlas", "add", str(folders / "one"), "--store=atlas"]) == 1
    assert "--base is needed" in capsys.readouterr().err
    call = ["add", *(str(folders / name) for name in NAMES[:2]), "--hub_list=list.txt", "--store=atlas", "--base=tiny"]
    assert main(["atlas", *call, "--dataset=a"]) == 1
    done = capsys.readouterr()
    assert "3 models in the atlas, 3 of them new" in done.out
    assert "1 of 4 models were refused" in done.err
    assert main(["atlas", "where", "one", "--store=atlas"]) == 0
    told = capsys.readouterr().out
    assert "Models nearest to one" in told
    assert told.index("two") < told.index("three")
    assert "tiny (base)" in told
    assert "relation is what a model is to one" in told
    assert main(["atlas", "page", "--store=atlas"]) == 0
    assert "page: runs/atlas-atlas.html (3 models" in capsys.readouterr().out
    for words, told in [
        (["wher", "one", "--store=atlas"], "expected one of add, where, page, found 'wher'"),
        (["where", "--store=atlas"], "expected one model, found 0"),
        (["where", "one", "--store=none"], "none: no store; wsr atlas add"),
        (["add", "--store=atlas"], "no model is named"),
    ]:
        assert main(["atlas", *words]) == 1
        assert told in capsys.readouterr().err


def test_the_page_holds_every_model_and_names_are_text(atlas, tmp_path, monkeypatch):
    hostile = "</script><img src=x onerror=alert(1)>"
    atlas.file.add(AtlasEntry(hostile, "", "b", "1", 1.0), np.ones(4096, np.float32))
    assert atlas_page.write_atlas_page(atlas, tmp_path / "page.html") == 4
    html = (tmp_path / "page.html").read_text()
    data = json.loads(html.split('id="data">')[1].split("</script>")[0])
    assert data["names"] == [*NAMES, hostile]
    assert data["neighbours"][0][0] == 1
    assert "<img" not in html
    assert "default-src 'none'" in html
    monkeypatch.setattr(atlas_page, "MOST", 3)
    assert atlas_page.write_atlas_page(atlas, tmp_path / "page.html") == 3
    assert "4 models fine-tuned from tiny, 3 of them drawn at random" in (tmp_path / "page.html").read_text()
