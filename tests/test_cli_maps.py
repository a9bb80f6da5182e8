"""wsr map, check and suggest as a person calls them, in this process: one small trained store serves all."""

import csv
import json
import re
import shlex
from pathlib import Path

import jax
import numpy as np
import pytest

from wsr.cli import main
from wsr.models import Checkpoint, export
from wsr.store import MemberRecord, Store

DATASETS = ("made_up_a1", "made_up_b1")


@pytest.fixture
def wsr(capsys, tmp_path, monkeypatch):
    """Calls the command line in an empty folder; returns status, what was printed, and what was complained of."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        status = main([str(word) for word in words])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return call


@pytest.fixture
def works(wsr):
    def call(*words):
        status, out, err = wsr(*words)
        assert status == 0, err
        return out

    return call


@pytest.fixture
def refuses(wsr):
    def call(*words):
        status, out, err = wsr(*words)
        assert status == 1, out
        assert err.count("\n") == 1
        return err

    return call


@pytest.fixture(scope="session")
def store(tmp_path_factory, tiny):
    """Two datasets of three members each, trained."""
    folder = tmp_path_factory.mktemp("maps") / "store"
    words = f"train --store={folder} --base=tiny --datasets={','.join(DATASETS)} --seeds=3 --size=160 --epochs=8"
    assert main([*words.split(), "--learning_rate=0.01", "--max_length=48"]) == 0
    return folder


def table(path):
    with Path(path).open() as file:
        return list(csv.DictReader(file))


def moved(tiny, change, seed=0):
    """The tiny checkpoint with every leaf changed."""
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: np.asarray(change(np.asarray(leaf), draw), np.float32), tiny.params)


def as_folder(tiny, params, folder):
    export(Checkpoint(tiny.model, params, tiny.processor), folder)
    return folder


def longer(store, name, factor):
    """A member with a task vector so many times as long."""
    opened = Store.open(store)
    return jax.tree.map(lambda own, base: base + factor * (own - base), opened.load(name)[0], opened.base())


def record(name, dataset="unknown", family="unknown"):
    return MemberRecord(
        name=name,
        dataset=dataset,
        family=family,
        seed=0,
        mode="imported",
        size=0,
        hyperparameters={},
        metrics={},
        jaxlib="",
        device_kind="",
        threads=0,
        group_size=1,
    )


def store_of(tiny, folder, members):
    made = Store.create(
        folder, model_name="tiny", model_config=dict(tiny.model.config), base_name="tiny", base_params=tiny.params
    )
    for about, params in members:
        made.save(about, params, {})
    return made


def test_map_of_a_labelled_store_has_a_tree_and_clusters(works, store, tmp_path):
    printed = works("map", f"--store={store}", "--by_layer", "--out=out")
    assert "one-to-one accuracy" in printed
    rows = table("out/clusters.csv")
    assert len(rows) == 6
    assert {(row["dataset"], row["cluster"]) for row in rows} == {(rows[0]["dataset"], "1"), (rows[-1]["dataset"], "2")}
    assert [row["part"] for row in table("out/layers.csv")] == ["whole encoder", "embeddings", "layer 1", "layer 2"]
    shares = [float(row["share of squared length"]) for row in table("out/layers.csv")]
    assert shares[0] == pytest.approx(1)
    assert sum(shares[1:]) == pytest.approx(1, abs=1e-5)
    page = Path("out/map.html").read_text()
    assert "Tree of the population" in page
    assert "Do layers tell the same story?" in page


def test_map_counts_clusters_itself_or_as_asked(works, refuses, store):
    printed = works("map", f"--store={store}", "--clusters=auto", "--out=auto")
    told = re.search(r"Into (\d), as .*\. The silhouette speaks for (\d), the eigengap for \d\.", printed)
    assert told
    assert len({row["cluster"] for row in table("auto/clusters.csv")}) == int(told[1])
    assert int(told[1]) in (1, int(told[2]))
    works("map", f"--store={store}", "--clusters=4", "--out=four")
    assert {row["cluster"] for row in table("four/clusters.csv")} == set("1234")
    for wrong in ("0", "7", "some", "2.5", "-1"):
        assert "expected auto or a number from 1 to 6" in refuses("map", f"--store={store}", f"--clusters={wrong}")


def test_map_of_a_store_without_labels(works, store, tiny):
    """Imports whose dataset nobody knows: none, or the member's own name."""
    opened = Store.open(store)
    members = [
        (record(f"m{k}", f"m{k}" if k % 2 else "unknown"), opened.load(n)[0]) for k, n in enumerate(opened.names())
    ]
    store_of(tiny, "unlabelled", members)
    works("map", "--store=unlabelled", "--out=auto")
    assert len(table("auto/clusters.csv")) == 6
    printed = works("map", "--store=unlabelled", "--by_layer", "--clusters=2", "--out=out")
    assert "one-to-one accuracy" not in printed
    found = {row["model"]: row["cluster"] for row in table("out/clusters.csv")}
    assert len({found[f"m{k}"] for k in (0, 1, 2)}) == len({found[f"m{k}"] for k in (3, 4, 5)}) == 1
    assert found["m0"] != found["m5"]
    assert "cluster 2" in Path("out/map.html").read_text()
    assert not Path("out/scores.csv").exists()


def test_map_scores_the_labelled_members_where_some_are_not(works, store, tiny):
    opened = Store.open(store)
    members = [(opened.record(n), opened.load(n)[0]) for n in opened.names()]
    extra = moved(tiny, lambda leaf, draw: leaf + 0.05 * draw.normal(size=leaf.shape))
    store_of(tiny, "mixed", [*((record(r.name, r.dataset, r.family), p) for r, p in members), (record("who"), extra)])
    works("map", "--store=mixed", "--out=out")
    assert [float(row["one-to-one accuracy"]) for row in table("out/scores.csv")] == [1.0] * 6
    assert {row["model"] for row in table("out/clusters.csv")} == {*opened.names(), "who"}


def test_map_of_one_member_and_of_none(works, refuses, tiny):
    store_of(tiny, "one", [(record("alone"), moved(tiny, lambda leaf, draw: leaf + 0.1))])
    works("map", "--store=one", "--out=out")
    assert table("out/clusters.csv")[0]["cluster"] == "1"
    store_of(tiny, "none", [])
    assert "no members yet" in refuses("map", "--store=none")
    assert "no members yet" in refuses("check", "--store=none")
    assert "no members yet" in refuses("suggest", "--store=none", "--data=made_up_c1", "--max_length=48")


def test_map_flags_an_outlier_before_it_clusters(works, store, tiny):
    opened = Store.open(store)
    name = opened.names()[0]
    members = [(record(n, n.split("-")[0]), opened.load(n)[0]) for n in opened.names()[1:]]
    store_of(tiny, "odd", [*members, (record(name, name.split("-")[0]), longer(store, name, 5))])
    printed = works("map", "--store=odd", "--out=out")
    assert printed.index("Flagged before any clustering") < printed.index("Who is in which cluster")
    assert {row["model"]: row["flagged"] for row in table("out/clusters.csv")}[name] == "long"


def test_map_of_a_matrix_needs_no_labels(works, refuses):
    names = [f"{label}{seed}" for label in "ab" for seed in range(3)]
    lines = [",".join(names)]
    lines += [",".join("1" if a == b else "0.6" if a[0] == b[0] else "0.1" for b in names) for a in names]
    Path("m.csv").write_text("\n".join(lines) + "\n")
    works("map", "--similarity=m.csv", "--out=out")
    assert {(row["model"][0], row["cluster"]) for row in table("out/clusters.csv")} == {("a", "1"), ("b", "2")}
    assert "so it needs --store" in refuses("map", "--similarity=m.csv", "--by_layer")
    Path("l.csv").write_text("model,label\n")
    assert "not both" in refuses("map", "--similarity=m.csv", "--labels=l.csv", "--labels_from=(.)")


def test_check_of_a_folder_finds_its_region(works, store, tiny, tmp_path):
    """A model halfway between two members of a dataset."""
    opened = Store.open(store)
    first, second = (opened.load(name)[0] for name in opened.names()[:2])
    params = jax.tree.map(lambda a, b: (a + b) / 2, first, second)
    folder = as_folder(tiny, params, tmp_path / "mine")
    found = json.loads(works("check", folder, f"--store={store}", "--json"))
    nearest = found["regions"][0]
    assert (nearest["region"], nearest["verdict"]) == ("made_up_a1", "inside")
    assert nearest["distance"] == pytest.approx(0, abs=1e-2 * nearest["radius"])
    assert nearest["leans_on"] == pytest.approx(dict.fromkeys(opened.names()[:2], 0.5), abs=0.02)
    assert found["flags"] == []
    assert any("shares the base" in note for note in found["notes"])
    printed = works("check", folder, f"--store={store}", "--out=out")
    assert "Inside of the region of the dataset made_up_a1" in printed
    page = Path("out/check.html").read_text()
    assert "Map of the population" in page
    assert "mine" in page


def test_check_of_a_member_leaves_it_out(works, store):
    name = Store.open(store).names()[-1]
    found = json.loads(works("check", name, f"--store={store}", "--json"))
    own = next(region for region in found["regions"] if region["region"] == "made_up_b1")
    assert own["members"] == 2
    assert name not in own["leans_on"]
    assert name not in found["nearest_members"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda leaf, draw: 0.2 * draw.normal(size=leaf.shape), "not fine-tuned from this base"),
        (lambda leaf, draw: np.where(draw.random(leaf.shape) < 0.1, np.nan, leaf), "a broken run: NaN or infinity in"),
    ],
    ids=["another base", "a broken run"],
)
def test_check_refuses_what_cannot_be_compared(refuses, store, tiny, tmp_path, change, message):
    folder = as_folder(tiny, moved(tiny, change), tmp_path / "other")
    assert message in refuses("check", folder, f"--store={store}")


def test_check_lists_differences_of_form(refuses, store, tiny, tmp_path):
    from wsr.models import build

    model = build("tiny", {**tiny.model.config, "num_hidden_layers": 1, "num_attention_heads": 4})
    folder = tmp_path / "small"
    export(Checkpoint(model, model.init(jax.random.key(0)), tiny.processor), folder)
    complaint = refuses("check", folder, f"--store={store}")
    assert "num_hidden_layers is 1 there and 2 in the base" in complaint
    assert "num_attention_heads is 4 there and 2 in the base" in complaint
    assert "nowhere" in refuses("check", "./nowhere/at/all", f"--store={store}")


def test_check_of_a_store_says_who_should_be_left_out_and_why(works, store, tiny):
    opened = Store.open(store)
    names = opened.names()
    noise = moved(tiny, lambda leaf, draw: leaf + 0.03 * draw.normal(size=leaf.shape))
    planted = {
        "copy": (opened.load(names[0])[0], "made_up_a1", "the same model as"),
        "idle": (opened.base(), "made_up_a1", "its weights equal the base"),
        "loud": (longer(store, names[1], 6), "made_up_a1", "times as long as usual"),
        "noise": (noise, "made_up_b1", "cosine with the nearest"),
    }
    members = [(record(n, n.split("-")[0], n[:9]), opened.load(n)[0]) for n in names]
    members += [(record(f"x-{n}", dataset), params) for n, (params, dataset, _) in planted.items()]
    store_of(tiny, "odd", members)
    found = json.loads(works("check", "--store=odd", "--json"))
    assert found["leave_out"] == [f"x-{name}" for name in planted]
    reasons = {member["name"]: " ".join(member["leave_out"]) for member in found["members"]}
    for name, (_, _, told) in planted.items():
        assert told in reasons[f"x-{name}"]
    # Nobody that is flagged spoils the region of the others.
    sound = next(member for member in found["members"] if member["name"] == names[0])
    assert next(region for region in sound["regions"] if region["region"] == "made_up_a1")["members"] == 2
    printed = works("check", "--store=odd", "--out=out")
    assert "4 of 10 members should be left out of an average" in printed
    assert "x-loud" in Path("out/check.html").read_text()


def test_check_of_a_sound_store_leaves_nobody_out(works, store):
    assert json.loads(works("check", f"--store={store}", "--json"))["leave_out"] == []


def test_check_of_one_member(works, tiny):
    store_of(tiny, "one", [(record("alone", "made_up_a1"), moved(tiny, lambda leaf, draw: leaf + 0.1))])
    assert "No region to hold it to" in works("check", "alone", "--store=one")
    assert json.loads(works("check", "--store=one", "--json"))["members"][0]["usual_length"] is None


def write_data(path, texts, family="made_up_a"):
    from wsr.data.made_up import MadeUp

    cells = MadeUp(family, "of my own", texts=texts).read()["train"].columns
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["review", "stars"])
        writer.writerows(zip(cells["text"], cells["label"], strict=True))


@pytest.mark.long
def test_suggest_names_starts_and_its_commands_run(works, store, tmp_path):
    write_data(tmp_path / "mine.csv", 400)
    flags = ["--text_column=review", "--label_column=stars", "--max_length=48"]
    printed = works("suggest", f"--store={store}", "--data=mine.csv", *flags)
    best = re.search(r"the lowest loss: (.+)", printed)[1]
    assert "made_up_a1" in best  # the family that the data is of
    row = next(line for line in printed.splitlines() if line.startswith("centroid of dataset made_up_b1"))
    assert row.rstrip().endswith("worse")
    assert "only large differences show" not in printed
    commands = [shlex.split(line) for line in printed.splitlines() if line.startswith("wsr ")]
    assert [words[1] for words in commands] == ["export", "train"]
    for words in commands:
        works(*words[1:])
    trained = next(Path("runs").glob("from-*"))
    assert Store.open(trained).records()[0].hyperparameters["learning_rate"] == 0.01
    again = works("suggest", f"--store={store}", "--data=mine.csv", *flags)
    assert again.splitlines()[-3:] == printed.splitlines()[-3:]


@pytest.mark.long
def test_suggest_with_few_texts_says_what_they_are_worth(works, refuses, store, tmp_path):
    write_data(tmp_path / "few.csv", 40)
    flags = [f"--store={store}", "--data=few.csv", "--text_column=review", "--label_column=stars", "--max_length=48"]
    assert "with 40 texts only large differences show" in works("suggest", *flags)
    assert "expected at least 0.5" in refuses("suggest", *flags, "--confidence=1")
    write_data(tmp_path / "few.csv", 12)
    assert "at least 20 texts" in refuses("suggest", *flags)


@pytest.mark.long
def test_suggest_leaves_out_who_saw_the_data(works, store):
    printed = works("suggest", f"--store={store}", "--data=made_up_a1", "--max_length=48", "--texts=60")
    told = next(line for line in printed.splitlines() if line.startswith("left out, fine-tuned on texts"))
    assert all(f"made_up_a1-full-n160-s{seed}" in told for seed in range(3))
    assert "made_up_a1-full" not in printed.replace(told, "").split("wsr train")[0]


def test_a_map_from_sketches_is_near_the_exact_one(works, refuses, store):
    def similarity(*flags):
        works("map", f"--store={store}", "--out=map", *flags)
        return np.loadtxt("map/similarity.csv", delimiter=",", skiprows=1)

    assert np.abs(similarity("--sketch=4096") - similarity()).max() < 6 / np.sqrt(4096)
    assert "cosines are off by about 0.016" in works("map", f"--store={store}", "--sketch=4096", "--out=map")
    assert "expected a power of two" in refuses("map", f"--store={store}", "--sketch=1000", "--out=map")
    assert "--sketch reads the weights" in refuses("map", "--similarity=x.csv", "--sketch=64")
