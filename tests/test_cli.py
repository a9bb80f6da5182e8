"""The command line as a person meets it: processes, real files, exit statuses."""

import csv
import functools
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from forked_cli import wsr

WSR = [sys.executable, "-m", "wsr.cli"]


def alone(*words):
    """A call in a process that nothing was imported for."""
    return subprocess.run([*WSR, *map(str, words)], capture_output=True, text=True, timeout=240)


def works(*words):
    done = wsr(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refuses(*words, status=1):
    done = wsr(*words)
    assert done.returncode == status, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("wsr: error: ")
    return done.stderr


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A small trained store."""
    folder = tmp_path_factory.mktemp("cli") / "store"
    works(
        "train",
        f"--store={folder}",
        "--base=tiny",
        "--datasets=made_up_a1,made_up_b1",
        "--seeds=2",
        "--size=160",
        "--epochs=6",
        "--learning_rate=0.01",
        "--max_length=48",
    )
    return folder


def test_help_imports_no_jax():
    verbs = ("demo", "train", "ls", "map", "check", "suggest", "evaluate", "compare", "merge", "report")
    for words in ([], *([verb] for verb in verbs)):
        code = f"import sys; from wsr.cli import main; main({[*words, '--help']}); assert 'jax' not in sys.modules"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert f"Usage: wsr {words[0] if words else '<verb>'}" in done.stdout


def test_wrong_calls_get_one_line_and_status_2():
    assert "did you mean 'train'" in refuses("trian", status=2)
    assert "wsr demo --help" in refuses("demo", "--preste=smoke", status=2)


def test_errors_get_one_line_and_status_1(store, tmp_path):
    assert "nearest: smoke" in refuses("demo", "--preset=smoek")
    assert "--store is needed" in refuses("train")
    assert "is not a store" in refuses("ls", tmp_path)
    assert "nearest: made_up_a1" in refuses(
        "merge", f"--store={store}", f"--to={tmp_path / 'x'}", "--leave_out=made_up_a"
    )
    assert "holds no finished run" in refuses("report", tmp_path)
    assert "either --store or --similarity" in refuses("map")


@pytest.mark.parametrize("run", [wsr, alone])
def test_debug_shows_the_traceback(run, tmp_path):
    done = run("ls", tmp_path, "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_ls_tells_what_made_each_member(store):
    listed = works("ls", store)
    for word in (
        "made_up_a1-full-n160-s0",
        "made_up_b1-full-n160-s1",
        "made_up_a",
        "jaxlib",
        "group of 1",
        "base tiny",
    ):
        assert word in listed


def test_train_again_trains_nothing_and_another_recipe_is_refused(store):
    flags = [f"--store={store}", "--base=tiny", "--datasets=made_up_a1", "--seeds=2", "--size=160", "--max_length=48"]
    others = ("--family=other", "--keep=bfloat16_task_vector")
    said = works("train", *flags, "--epochs=6", "--learning_rate=0.01", *others)
    assert "2 of 2 members are in the store already" in said
    for name in ("made_up_a1-full-n160-s0", "made_up_a1-full-n160-s1"):
        assert f"{name} stays in the family made_up_a, not other" in said
        assert f"{name} stays stored as float32, not bfloat16_task_vector" in said
    assert "learning_rate is 0.01 in the store and 0.02 here" in refuses(
        "train", *flags, "--epochs=6", "--learning_rate=0.02"
    )


def test_too_many_members_are_refused(tmp_path):
    flags = [f"--store={tmp_path / 'none'}", "--base=tiny", "--datasets=made_up_a1", "--max_length=48"]
    assert "expected at most 1,000,000" in refuses("train", *flags, "--seeds=100000000000000000")
    assert not (tmp_path / "none").exists()


@pytest.mark.long
def test_a_dataset_that_cannot_be_scored_is_refused_before_another_is_scored(store, tmp_path):
    (tmp_path / "unlabelled.csv").write_text("text\nsome words\nother words\n")
    flags = [f"--store={store}", "--max_length=48", "--probe_size=30", "--test_size=30", "--interior=0"]
    done = wsr("evaluate", *flags, f"--on=made_up_b2,{tmp_path / 'unlabelled.csv'}")
    assert done.returncode == 1
    assert "made_up_b2: " not in done.stdout
    assert "made_up_b2: " in works("evaluate", *flags, "--on=made_up_b2")


def test_evaluate_prints_and_writes_rows(store, tmp_path):
    rows_file = tmp_path / "rows.jsonl"
    flags = [f"--store={store}", "--on=made_up_a2", "--max_length=48", "--probe_size=40", "--test_size=40"]
    printed = works("evaluate", *flags, f"--out={rows_file}", "--interior=2")
    rows = [json.loads(line) for line in rows_file.read_text().splitlines()]
    assert {row["group"] for row in rows} == {"pretrained", "member", "centroid", "interior"}
    assert len(rows) == 2 * (1 + 4 + 1 + 2)
    assert "made_up_a1-full-n160-s0" in printed
    again = works("evaluate", *flags, f"--out={rows_file}", "--interior=2")
    assert [json.loads(line) for line in rows_file.read_text().splitlines()] == rows
    assert "8/8 points" in again


def test_merge_exports_the_mean_of_the_members(store, tmp_path):
    from wsr.store import Store

    folder = tmp_path / "merged"
    printed = works("merge", f"--store={store}", "--leave_out=made_up_b1", f"--to={folder}")
    assert "made_up_a1-full-n160-s0, made_up_a1-full-n160-s1" in printed
    from safetensors.numpy import load_file

    tensors = load_file(folder / "model.safetensors")
    opened = Store.open(store)
    members = [opened.load(name)[0] for name in opened.names() if name.startswith("made_up_a1")]
    expected = np.mean([member["layers"]["1"]["feed_forward"]["output"]["kernel"] for member in members], axis=0)
    np.testing.assert_allclose(tensors["encoder.layer.1.output.dense.weight"], expected.T, atol=1e-6)
    assert "exists already" in refuses("merge", f"--store={store}", f"--to={folder}")


def test_map_of_a_store(store, tmp_path):
    printed = works("map", f"--store={store}", f"--out={tmp_path}")
    assert "one-to-one accuracy" in printed
    with (tmp_path / "similarity.csv").open() as file:
        header, *rows = csv.reader(file)
    assert len(header) == len(rows) == 4
    assert (tmp_path / "map.html").stat().st_size > 10_000


def test_map_of_a_matrix_made_by_hand(tmp_path):
    """Two blocks of three: both methods find them, whatever the labels are called."""
    names = [f"{label}_{seed}" for label in ("cat", "dog") for seed in range(3)]
    matrix = tmp_path / "matrix.csv"
    with matrix.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for first in names:
            writer.writerow([1.0 if first == other else 0.6 if first[:3] == other[:3] else 0.1 for other in names])
    printed = works("map", f"--similarity={matrix}", "--labels_from=^([a-z]+)_", f"--out={tmp_path / 'out'}")
    with (tmp_path / "out" / "scores.csv").open() as file:
        scores = list(csv.DictReader(file))
    assert {row["method"] for row in scores} == {"spectral", "spectral, clipped", "average linkage"}
    for row in scores:
        assert [float(row[key]) for key in ("one-to-one accuracy", "majority accuracy", "adjusted Rand")] == [1, 1, 1]
        assert row["F1 of each label"] == "cat 1.00, dog 1.00"
    assert "same label" in printed

    labels = tmp_path / "labels.csv"
    labels.write_text("model,label\n" + "".join(f"{name},{name[:3]}\n" for name in names))
    assert works("map", f"--similarity={matrix}", f"--labels={labels}", f"--out={tmp_path / 'out2'}")
    assert (tmp_path / "out2" / "scores.csv").read_text() == (tmp_path / "out" / "scores.csv").read_text()

    labels.write_text("model,label\ncat_0,cat\n")
    assert "has no label for cat_1" in refuses("map", f"--similarity={matrix}", f"--labels={labels}")
    matrix.write_text("a,b\n1,0.5\n0.4,1\n")
    assert "symmetric" in refuses("map", f"--similarity={matrix}", "--labels_from=(.)")


def test_train_on_a_file_of_ones_own(tmp_path):
    data = tmp_path / "mine.csv"
    with data.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["review", "stars"])
        for number in range(120):
            writer.writerow(
                [f"{'good fine' if number % 2 else 'bad poor'} number {number}", "up" if number % 2 else "down"]
            )
    flags = [
        "--text_column=review",
        "--label_column=stars",
        "--family=reviews",
        "--seeds=1",
        "--epochs=2",
        "--max_length=48",
    ]
    listed = works("train", f"--store={tmp_path / 's'}", "--base=tiny", f"--datasets={data}", *flags)
    assert "mine-full-s0" in listed
    assert "reviews" in listed
    wrong = refuses("train", f"--store={tmp_path / 't'}", "--base=tiny", f"--datasets={data}", "--text_column=nope")
    assert "nope" in wrong
    assert "review, stars" in wrong.replace("'", "")
    assert not (tmp_path / "t").exists()


@pytest.mark.long
def test_merge_chooses_coefficients_on_a_dataset_and_shows_them(store, tmp_path):
    from safetensors.numpy import load_file

    from wsr.store import Store

    flags = [
        f"--store={store}",
        "--max_length=48",
        *(f"--{split}_size=40" for split in ("probe", "validation", "test")),
    ]
    assert "--on is needed" in refuses("merge", *flags, f"--to={tmp_path / 'x'}", "--method=greedy")
    assert "nearest: learned" in refuses("merge", *flags, f"--to={tmp_path / 'x'}", "--method=lerned")
    opened = Store.open(store)
    kernels = [opened.load(name)[0]["layers"]["1"]["feed_forward"]["output"]["kernel"] for name in opened.names()]
    for method in ("greedy", "learned"):
        folder = tmp_path / method
        told = works("merge", *flags, "--on=made_up_a2", f"--method={method}", f"--to={folder}")
        printed = [line.rstrip() for line in told.splitlines()]
        shown = [float(line.split()[1]) for line in printed if line.startswith(tuple(opened.names()))]
        assert len(shown) == 4
        assert sum(shown) == pytest.approx(1, abs=2e-3)
        scores = printed.index("made_up_a2") + 2
        centroid, chosen = (line.split() for line in printed[scores : scores + 2])
        assert chosen[0] == method
        assert float(chosen[1]) <= float(centroid[1])
        merged = load_file(folder / "model.safetensors")["encoder.layer.1.output.dense.weight"].T
        expected = sum(coefficient * kernel for coefficient, kernel in zip(shown, kernels, strict=True))
        np.testing.assert_allclose(merged, expected, atol=2e-3)
    start = next(number for number, line in enumerate(printed) if line.startswith("point  "))
    assert printed[start].split() == ["point", "predicted", "exact"]
    exact = {line.split("  ")[0]: float(line.split()[-1]) for line in printed[start + 1 : start + 8]}
    assert exact["lowest loss"] == min(exact.values())
    assert exact["learned"] < exact["centroid"]
    assert exact["learned"] == pytest.approx(float(chosen[1]), abs=6e-4)
    assert re.search(r"^\d+ points were evaluated exactly; linear probes with C = ", "\n".join(printed), re.MULTILINE)
    assert re.search(r"^the predictions of \d+ points were off by 0\.0\d+ on average", told, re.MULTILINE)
    two = works(
        "merge", *flags, "--on=made_up_a2,made_up_b2", "--method=learned", "--points=8", f"--to={tmp_path / 'two'}"
    )
    assert "predicted on made_up_a2  exact on made_up_a2  predicted on made_up_b2  exact on made_up_b2" in two
    assert re.search(r"^1[12] points were evaluated exactly on each dataset; linear probes", two, re.MULTILINE)
    assert "greedy chooses on one dataset" in refuses(
        "merge", *flags, "--on=made_up_a2,made_up_b2", "--method=greedy", f"--to={tmp_path / 'x'}"
    )


def test_merge_by_any_method_with_its_options(store, tmp_path):
    from safetensors.numpy import load_file

    from wsr.store import Store

    flags = [f"--store={store}", "--datasets=made_up_a1"]
    assert "ties has no option t; it has density" in refuses(
        "merge", *flags, f"--to={tmp_path / 'x'}", "--method=ties", "--t=1"
    )
    assert "expected a number from 0 to 1" in refuses(
        "merge", *flags, f"--to={tmp_path / 'x'}", "--method=ties", "--density=2"
    )
    groups = tmp_path / "groups.yaml"
    groups.write_text("- {leaves: 'layers/1/.*kernel', method: weighted, weights: [1, 0]}\n")
    options = ["--method=ties", "--density=0.5,1", "--scale=0.5", "--scope=leaf", f"--groups={groups}"]
    assert "ties merge of 2 members" in works("merge", *flags, f"--to={tmp_path / 'ties'}", *options)
    found = load_file(tmp_path / "ties" / "model.safetensors")
    opened = Store.open(store)
    base, *members = [opened.base(), *(opened.load(name)[0] for name in opened.names() if "a1" in name)]
    kernel = members[0]["layers"]["1"]["feed_forward"]["output"]["kernel"]
    np.testing.assert_allclose(found["encoder.layer.1.output.dense.weight"], kernel.T, atol=1e-6)
    vectors = [own["embeddings"]["norm"]["bias"] - base["embeddings"]["norm"]["bias"] for own in members]
    vectors[0] = np.where(np.abs(vectors[0]) >= np.sort(np.abs(vectors[0]))[8], vectors[0], 0)
    agree = np.sign(vectors) == np.where(np.sum(vectors, axis=0) >= 0, 1, -1)
    expected = base["embeddings"]["norm"]["bias"] + 0.5 * np.sum(vectors * agree, axis=0) / np.maximum(
        agree.sum(axis=0), 1
    )
    np.testing.assert_allclose(found["embeddings.LayerNorm.bias"], expected, atol=1e-6)


@pytest.mark.long
def test_merge_reads_the_members_own_texts(store, tmp_path):
    flags = [
        f"--store={store}",
        "--max_length=48",
        "--texts=6",
        *(f"--{s}_size=20" for s in ("probe", "validation", "test")),
    ]
    printed = works("merge", *flags, f"--to={tmp_path / 'fisher'}", "--method=fisher", "--on=made_up_a2")
    assert "fisher merge of 4 members" in printed
    row = next(line for line in printed.splitlines() if line.startswith("fisher "))
    scoring = [f"--store={store}", "--on=made_up_a2", "--max_length=48", "--interior=0", "--leave_out=false"]
    scored = works("evaluate", *scoring, "--probe_size=20", "--test_size=20", f"--merged={tmp_path / 'fisher'}")
    again = next(line for line in scored.splitlines() if line.startswith("fisher "))
    assert again.split()[1:3] == ["merged", row.split()[2]]
    assert " to " in again
    assert "no such folder" in refuses("evaluate", *scoring, "--merged=nowhere")
    assert "needs its own dataset, made_up_b1" in refuses(
        "merge", *flags, f"--to={tmp_path / 'x'}", "--method=regmean", "--own=made_up_a1"
    )


def test_merge_by_a_recipe_over_members(store, tmp_path):
    from safetensors.numpy import load_file

    from wsr.store import Store

    opened = Store.open(store)
    first, second, *_ = opened.names()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "merge_method: task_arithmetic\nbase_model: tiny\nmodels:\n"
        f"- {{model: {first}, parameters: {{weight: 0.25}}}}\n"
        f"- {{model: {second}, parameters: {{weight: [{{filter: embeddings, value: 1}}, {{value: -0.5}}]}}}}\n"
    )
    works("merge", f"--store={store}", f"--recipe={recipe}", f"--to={tmp_path / 'out'}")
    found = load_file(tmp_path / "out" / "model.safetensors")
    base, one, two = opened.base(), opened.load(first)[0], opened.load(second)[0]
    for weight, name, path in (
        (1, "embeddings.LayerNorm.weight", ("embeddings", "norm", "scale")),
        (-0.5, "encoder.layer.0.output.dense.bias", ("layers", "0", "feed_forward", "output", "bias")),
    ):
        start, left, right = (functools.reduce(dict.__getitem__, path, dict(tree)) for tree in (base, one, two))
        np.testing.assert_allclose(found[name], start + 0.25 * (left - start) + weight * (right - start), atol=1e-6)
    recipe.write_text("merge_method: linear\nmodels: [{model: nobody, parameters: {weight: 1}}]\n")
    assert "the store has no member nobody" in refuses(
        "merge", f"--store={store}", f"--recipe={recipe}", f"--to={tmp_path / 'x'}"
    )


@pytest.mark.long
def test_compare_stops_or_says_that_it_is_not_decided(store):
    flags = [f"--store={store}", "--on=made_up_a2", "--max_length=48", "--probe_size=40", "--test_size=60"]
    assert "expected two different ones" in refuses("compare", *flags, "--groups=member,member")
    printed = works("compare", *flags, "--until_confidence=0.5", "--interior=8")
    assert "is interior better than member on made_up_a2?" in printed
    assert "P_B" in printed
    assert "forward passes over a text" in printed
    assert any(verdict in printed for verdict in ("yes: interior", "no: member", "not decided", "cannot say: "))
