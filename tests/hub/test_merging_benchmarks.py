"""The suites of model merging against a hub on this machine, with tiny models; transformers is the oracle of scores."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow.parquet
import pytest
from hub_repositories import repositories
from hub_server import Fault, LocalHub

from wsr.data.metrics import score
from wsr.merging.method import METHODS
from wsr.studies.suites import SUITES, suite

pytestmark = pytest.mark.torch
ROOT = Path(__file__).parents[2]
TASKS = {"clip8": ("svhn", "mnist"), "flan_t5_glue": ("cola", "stsb"), "gpt2_glue": ("cola", "mnli")}
EFFORT = ["--budget=2", "--densities=0.5", "--scales=1,2", "--steps=1", "--texts=8", "--validation_texts=12"]
PROGRAM = """
import contextlib, io, json, sys
from experiments.merging_benchmarks import PAGE, main
from wsr.cli.program import call
for line in sys.stdin:
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        status = call(PAGE, main, json.loads(line))
    print(json.dumps([status, told.getvalue()]), flush=True)
"""


pytestmark = pytest.mark.long  # runs whole suites


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch, the oracle of the parity tests, is not installed")


@pytest.fixture(scope="module")
def hub(torch):
    """A hub with GLUE, and with the models and images of two tasks of each suite."""
    glue = {name: own for name, own in repositories().items() if name == "nyu-mll/glue"}
    with LocalHub(glue).running() as served:
        for name in SUITES:
            add_tasks(served, name, TASKS[name])
        yield served


def add_tasks(hub, name, tasks):
    """Gives the hub what the tasks of a suite need."""
    from suite_models import images_of, models_of

    kept = [task for task in suite(name).tasks if task.name in tasks]
    hub.repositories["models"] |= models_of(suite(name), kept)
    if name == "clip8":
        hub.repositories["datasets"] |= {own.name: own for own in map(images_of, kept)}


@pytest.fixture(scope="module")
def run(hub, tmp_path_factory):
    """Runs the experiment with some flags, in a process with an empty cache; returns all that it prints."""
    cache = tmp_path_factory.mktemp("cache")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTEST"))}
    environment = kept | {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "no_proxy": "127.0.0.1",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        cwd=cache,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def ran(words: list[str], status: int = 0) -> str:
        print(json.dumps(words), file=process.stdin, flush=True)
        found, told = json.loads(process.stdout.readline())
        assert found == status, told
        return told

    yield ran
    process.stdin.close()
    process.wait(20)


def _flags(name, folder, *more):
    fewer = ["--test_texts=20"] if name == "flan_t5_glue" else []  # STS-B has 51 answers to each question
    tasks = f"--tasks={','.join(TASKS[name])}"
    return [f"--suite={name}", f"--out={folder / name}", tasks, "--debug", *EFFORT, *fewer, *more]


@pytest.fixture(scope="module")
def results(run, tmp_path_factory):
    """The rows of each suite by group, dataset and metric, from the average and two other methods."""
    folder = tmp_path_factory.mktemp("suites")
    calls = {name: _flags(name, folder, "--methods=task_arithmetic,ties") for name in SUITES}
    found = {}
    for name in SUITES:
        run(calls[name])
        rows = map(json.loads, (folder / name / "results.jsonl").read_text().splitlines())
        found[name] = {(row["group"], row["dataset"], row["metric"]): row for row in rows}
    return found, folder, calls


def _average(name, model, change):
    """A model with the mean of the members of two tasks in the tensors that ``change`` accepts."""
    import copy

    from suite_models import member_of

    members = [member_of(name, task).state_dict() for task in TASKS[name]]
    own = copy.deepcopy(model)
    mixed = {
        key: sum(member[change(key)] for member in members) / len(members) if change(key) in members[0] else leaf
        for key, leaf in own.state_dict().items()
    }
    own.load_state_dict(mixed)
    return own


def _compared(rows, task, metric, individual, average):
    for group, expected in (("individual", individual), ("uniform", average)):
        row = rows[group, task, metric]
        assert row["value"] == pytest.approx(expected, abs=1e-9), group
        assert row["low"] <= row["value"] <= row["high"]


def test_scores_of_clip_are_those_of_transformers(torch, results):
    from clip_world import PROCESSOR
    from suite_models import base_of, ending, images_of, member_of

    rows = results[0]["clip8"]
    task = next(own for own in suite("clip8").tasks if own.name == "mnist")
    table = _table(images_of(task), "data/test-00000-of-00001.parquet")
    images = [PIL.Image.open(io.BytesIO(image["bytes"])) for image in table["image"]]
    pixels = PROCESSOR.normalise(np.stack([PROCESSOR.to_pixels(image) for image in images]))
    prompts = [task.templates[0].format(name) for name in task.data.label_names]
    tokens = ending()(prompts, padding=True, return_tensors="pt")
    tokens.pop("token_type_ids", None)

    def accuracy(tower):
        whole = base_of("clip8")
        before = whole.vision_model
        whole.vision_model = getattr(tower, "vision_model", tower)
        try:
            with torch.no_grad():
                logits = whole(pixel_values=torch.tensor(pixels.transpose(0, 3, 1, 2)), **tokens).logits_per_image
        finally:
            whole.vision_model = before
        picked = logits.argmax(dim=1).numpy()
        assert len(np.unique(picked)) > 1
        return float((picked == np.array(table["label"])).mean())

    assert len(task.templates) == 1
    member = member_of("clip8", "mnist")
    _compared(rows, "mnist", "accuracy", accuracy(member), accuracy(_average("clip8", member, lambda key: key)))


def _glue(config, split):
    return _table(repositories()["nyu-mll/glue"], f"{config}/{split}-00000-of-00001.parquet")


def _table(repository, path):
    """The columns of a parquet file."""
    return pyarrow.parquet.read_table(io.BytesIO(repository.files[path])).to_pydict()


def test_scores_of_flan_t5_are_those_of_transformers(torch, results):
    from suite_models import ending, member_of

    rows = results[0]["flan_t5_glue"]
    for task in suite("flan_t5_glue").tasks:
        if task.name not in TASKS["flan_t5_glue"]:
            continue
        table = _glue(task.name, "validation")
        columns = task.data.columns.of_texts
        cells = zip(*(table[column] for column in columns), table["label"], strict=True)
        labels = {task.prompt.format(**dict(zip(columns, own, strict=True))): label for *own, label in cells}
        written = (results[1] / "flan_t5_glue" / "questions" / f"{task.name}_test.jsonl").read_text().splitlines()
        questions = [json.loads(line)["question"] for line in written]
        assert len(set(questions)) == 20
        labels = np.array([labels[question] for question in questions])
        asked = ending()(questions, padding=True, return_tensors="pt")
        mask = {"attention_mask": asked["attention_mask"]}

        def chosen(model, task=task, asked=asked, mask=mask):
            found = []
            with torch.no_grad():
                read = model.encoder(input_ids=asked["input_ids"], **mask)
                for answer in task.answers:
                    ids = ending()(answer, add_special_tokens=False)["input_ids"]
                    answers = torch.tensor([ids] * len(asked["input_ids"]))
                    logs = model(encoder_outputs=read, labels=answers, **mask).logits.log_softmax(-1)
                    found.append(logs.gather(2, answers[..., None])[..., 0].sum(dim=1).numpy())
            picked = np.stack(found).argmax(axis=0)
            assert len(np.unique(picked)) > 1
            return picked

        def measured(model, task=task, labels=labels, chosen=chosen):
            picked = chosen(model)
            if task.name == "stsb":
                right = np.array([float(f"{label:.1f}") for label in labels])
                return score("spearman", right, np.array([float(task.answers[at]) for at in picked]))
            return float((picked == labels).mean())

        member = member_of("flan_t5_glue", task.name)
        average = _average("flan_t5_glue", member, lambda key: key)
        metric = "spearman" if task.name == "stsb" else "accuracy"
        _compared(rows, task.name, metric, measured(member), measured(average))


def test_scores_of_gpt2_are_those_of_transformers(torch, results):
    from suite_models import bpe, member_of

    rows = results[0]["gpt2_glue"]
    for name, split, columns in (("cola", "validation", ("sentence",)),
                                 ("mnli", "validation_matched", ("premise", "hypothesis"))):  # fmt: skip
        table = _glue(name, split)
        texts = bpe()(*[list(table[column]) for column in columns], padding=True, return_tensors="pt")

        def accuracy(model, table=table, texts=texts):
            with torch.no_grad():
                logits = model(input_ids=texts["input_ids"], attention_mask=texts["attention_mask"]).logits
            picked = logits.argmax(dim=1).numpy()
            assert len(np.unique(picked)) > 1
            return float((picked == np.array(table["label"])).mean())

        member = member_of("gpt2_glue", name)
        average = _average("gpt2_glue", member, lambda key: "" if key.startswith("score") else key)
        _compared(rows, name, "accuracy", accuracy(member), accuracy(average))


def test_the_base_of_clip_is_fetched_at_its_pinned_commit(results, hub):
    commit = suite("clip8").revision
    fetched = {request.removeprefix("GET ") for request in hub.requests if request.startswith("GET ")}
    assert f"/openai/clip-vit-base-patch32/resolve/{commit}/model.safetensors" in fetched
    assert "/openai/clip-vit-base-patch32/resolve/main/model.safetensors" not in fetched


@pytest.mark.parametrize("name", SUITES)
def test_means_are_those_of_the_columns_and_published_figures_stand_beside_them(results, name):
    rows, tasks = results[0][name], [task for task in suite(name).tasks if task.name in TASKS[name]]
    each = {
        group: [rows[group, task.name, task.data.metric]["value"] for task in tasks]
        for group in ("individual", "uniform", "ties")
    }
    shares = np.array(each["ties"]) / np.array(each["individual"])
    assert rows["ties", "mean", "score"]["value"] == pytest.approx(np.mean(each["ties"]))
    assert rows["ties", "mean", "normalised score"]["value"] == pytest.approx(np.mean(shares))
    assert rows["individual", "mean", "normalised score"]["value"] == pytest.approx(1.0)
    assert rows["ties", "mean", "score"]["how"].startswith("exact; 2 tried; density 0.5, scale ")
    first = tasks[0]
    place = [task.name for task in suite(name).tasks].index(first.name)
    printed = next(own for own in suite(name).published if own.group == "individual").percent[place]
    assert rows["published: individual", first.name, first.data.metric]["value"] == pytest.approx(printed / 100)
    table = (results[1] / name / "table.md").read_text()
    assert f"| individual | {100 * each['individual'][0]:.1f} | " in table
    assert "## Published" in table
    commits = json.loads((results[1] / name / "commits.json").read_text())
    assert set(commits) == {suite(name).base, *(task.member for task in tasks)}
    assert all(f"- {model}: commit {commit}" in table for model, commit in commits.items())


def test_a_second_run_fetches_merges_and_scores_nothing_again(results, hub, run):
    _, folder, calls = results
    before = (folder / "gpt2_glue" / "results.jsonl").read_text()
    merged = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    points = sorted(folder.rglob("points/*.npz"))
    hub.requests.clear()
    run(calls["gpt2_glue"])
    assert (folder / "gpt2_glue" / "results.jsonl").read_text() == before
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")} == merged
    assert sorted(folder.rglob("points/*.npz")) == points
    assert not [request for request in hub.requests if "safetensors" in request]


def test_a_run_that_a_hub_interrupts_resumes_from_the_members_it_has(run, hub, tmp_path):
    add_tasks(hub, "gpt2_glue", ("rte", "qnli"))
    words = ["--suite=gpt2_glue", "--tasks=rte,qnli", f"--out={tmp_path}", "--methods=uniform", *EFFORT]
    hub.faults.append(Fault("/tanganke/gpt2_rte/.*safetensors", status=403))
    try:
        assert "'tanganke/gpt2_rte' is not a local folder and could not be downloaded" in run(words, status=1)
    finally:
        hub.faults.clear()
    member = tmp_path / "store" / "members" / "qnli"
    kept = {path: path.stat().st_mtime_ns for path in member.rglob("*") if path.is_file()}
    assert kept
    told = run(words)
    assert "fetching member 2 of 2, tanganke/gpt2_rte" in told
    assert "fetching member 1" not in told
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert "| uniform |" in (tmp_path / "table.md").read_text()


def test_options_and_hyperparameters_never_meet_the_test_split(results):
    folder = results[1] / "flan_t5_glue" / "questions"
    for task in TASKS["flan_t5_glue"]:
        chosen, tested = (
            {json.loads(line)["question"] for line in (folder / f"{task}_{split}.jsonl").read_text().splitlines()}
            for split in ("validation", "test")
        )
        assert len(chosen) == 12
        assert not chosen & tested


def test_a_dry_run_says_sizes_and_points_and_leaves_nothing_behind(run, tmp_path, hub):
    told = run(_flags("gpt2_glue", tmp_path, "--dry_run", "--methods=ties"))
    assert "tanganke/gpt2_cola: 0.0" not in told
    size = len(hub.repositories["models"]["tanganke/gpt2_cola"].files["model.safetensors"])
    line = next(line for line in told.splitlines() if "tanganke/gpt2_cola" in line)
    assert float(line.split()[-2]) * 1e6 == pytest.approx(size, rel=0.5)
    assert "nyu-mll/glue:cola: 0.0" in told
    # Two tasks: the average has nothing to choose, TIES one density and two scales.
    assert "points: 4 on validation data, 8 on test data" in told
    assert not (tmp_path / "gpt2_glue").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--suite=clip8", "--tasks=mnist,cifar"], "clip8 has no task 'cifar'"),
        (["--suite=clip8", "--tasks=mnist"], "one task leaves nothing to merge"),
        (["--suite=flan_t5_glue", "--methods=fisher"], "fisher does not apply: reads texts under a linear head"),
        (["--suite=gpt2_glue", "--methods=greedy"], "greedy does not apply: chooses by a fresh probe"),
    ],
)
def test_what_does_not_apply_is_refused_in_one_line(words, message, run):
    assert message in run(words, status=1)


@pytest.mark.parametrize("name", SUITES)
def test_all_methods_run_on_all_tasks(run, hub, tmp_path, name):
    add_tasks(hub, name, [task.name for task in suite(name).tasks])
    run(
        [f"--suite={name}", f"--out={tmp_path}", "--debug", *EFFORT, "--densities=0.5", "--scales=2", "--test_texts=20"]
    )
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    groups = {row["group"] for row in rows if not row["group"].startswith("published")}
    from wsr.studies.merging_benchmarks import left_out

    assert groups == {"pretrained", "individual", *METHODS} - left_out(suite(name)).keys()
    assert "## Missing" not in (tmp_path / "table.md").read_text()
