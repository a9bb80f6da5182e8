"""The cost model and ``wsr plan``, against numbers worked out by hand, XLA's counts, and what runs predict."""

import json
import re
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from worlds import made_up

from wsr import cli, models
from wsr.data.examples import Examples
from wsr.data.packing import evaluation_batches
from wsr.data.splits import choose_splits
from wsr.data.table import PAPER
from wsr.engine.region_features import plan_features
from wsr.engine.settings import Settings
from wsr.errors import WsrError
from wsr.models import cuts
from wsr.models.tiny import EXAMPLE
from wsr.planning.cost import ASSUMED, COMPILED, MEASURED, Estimate, Workload
from wsr.planning.encoder import Encoder, find_encoder
from wsr.planning.hardware import CHIPS, Hardware, find
from wsr.planning.memory import evaluation_memory, training_memory
from wsr.planning.published import CONFIGS, ROWS, split_sizes
from wsr.planning.told import told
from wsr.region.region import Region
from wsr.studies.harness.preset import PRESETS
from wsr.studies.harness.work import Work, workload
from wsr.training import Division, Job, Recipe
from wsr.training.memory import member_bytes, shared_bytes

LAUNCHING = (Path(__file__).parent.parent / "launch" / "README.md").read_text(encoding="utf-8")
RESULTS = Path(__file__).parent.parent / "benchmarks" / "results" / "cpu"


def test_a_small_plan_by_hand():
    work = Workload(members=3, trained_texts=3 * 100 * 2.0, length=10, points=4, scored_texts=4 * 50, checked_texts=30)
    encoder = Encoder(parameters=2000, matrix_parameters=1000, layers=2, hidden=5)
    found = Estimate(work, encoder, Hardware("two", CHIPS["h100"], 2))
    a_token = 2 * 1000 + 2 * 2 * 2 * 10 * 5  # queries with keys, and weights with values: two layers, ten of each
    assert found.training_tokens == 6000
    assert found.encoded_tokens == 2300
    assert found.training_operations == 3 * 6000 * a_token
    assert found.encoding_operations == 2300 * a_token
    assert found.disk_bytes == 4 * 4 * 2000
    assert found.training_hours == pytest.approx(3 * 6000 * a_token / (0.4 * 2 * 494e12) / 3600)
    assert found.encoding_hours == pytest.approx(2300 * a_token / (0.4 * 2 * 494e12) / 3600)
    assert found.similarity_hours == pytest.approx(3 * 4 * 2000 / 1e9 / 3600)
    assert found.hours == found.training_hours + found.encoding_hours + found.similarity_hours


def test_machines_are_as_many_as_the_time_asks_for_and_no_more_than_there_is_work():
    day = Estimate(Workload(5, 1.0, 1.0), Encoder(0, find("h100").flops * 0.4 * 36_000 / 6), find("h100"))
    assert day.training_hours == pytest.approx(10)
    assert day.machines(within_hours=1e6) == 1
    assert day.machines(within_hours=4.0) == 3
    assert day.machines(within_hours=1e-6) == 5


@pytest.mark.parametrize(("hidden", "most"), [(16, 1.25), (256, 1.03)])
def test_operations_are_those_that_xla_counts(hidden, most):
    """XLA also counts what is no matrix product (softmax, norms, GELU): a share that falls with the width."""
    config = {**EXAMPLE, "hidden_size": hidden, "intermediate_size": 4 * hidden, "num_attention_heads": hidden // 8}
    model = models.build("tiny", config)
    params = jax.eval_shape(model.init, jax.random.key(0))
    kernels = sum(leaf.size for path, leaf in jax.tree.leaves_with_path(params) if path[-1].key == "kernel")
    encoder = Encoder(0, kernels, layers=2, hidden=hidden)
    texts, length = 16, 64  # a row each, so that nobody attends to padding
    split = made_up_split(texts, length)
    batches = evaluation_batches(split, rows=texts, row_length=length)
    batch = {name: array[0] for name, array in batches.inputs.items()}
    forward = jax.jit(model.encode).lower(params, batch).compile().cost_analysis()["flops"]
    gradient = jax.jit(jax.grad(lambda params, batch: model.encode(params, batch).sum()))
    both = gradient.lower(params, batch).compile().cost_analysis()["flops"]
    assert 1.0 <= forward / encoder.operations(texts, length) <= most
    assert 1.0 <= both / encoder.training_operations(texts, length) <= most


def made_up_split(texts, length):
    from wsr.data.dataset import Split

    ids = np.zeros(texts * length, np.int32)
    return Split(ids, ids, np.arange(texts + 1) * length, np.zeros(texts, np.int32))


@pytest.mark.parametrize(
    ("base", "parameters", "pooler"),
    [
        ("roberta-base", 124_645_632, 768**2 + 768),
        ("bert-base-uncased", 109_482_240, 768**2 + 768),
        ("minilm", 22_713_216, 384**2 + 384),
    ],
)
def test_shapes_of_published_checkpoints_have_the_published_number_of_parameters(base, parameters, pooler):
    """The published numbers are with the pooler, which is no part of an encoder here."""
    assert find_encoder(base).parameters == parameters - pooler


def test_a_folder_of_which_only_the_config_is_there(tmp_path):
    _, config = CONFIGS["roberta-base"]
    own = {name: value for name, value in config.items() if name != "pooling"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "roberta", **own}))
    assert find_encoder(str(tmp_path)).parameters == find_encoder("roberta-base").parameters
    with pytest.raises(WsrError, match="its config is not known"):
        find_encoder("nobody/nothing")


def test_memory_is_what_the_runs_predict_for_themselves(tiny):
    dataset = made_up(tiny, "made_up_a1")
    length = int(dataset.splits["finetune"].lengths.max())
    encoder, machine, recipe = find_encoder("tiny"), find("v5e"), Recipe(batch_size=16, epochs=1.0)
    job = Job(dataset.with_split("finetune", made_up_split(16, length)), 0, recipe)
    memory, *how = training_memory(encoder, machine, recipe, length)
    assert memory.needed == member_bytes(tiny.model, tiny.params, job) + shared_bytes(tiny.params, job)
    assert memory.fits
    assert how == [16, Division()]
    checked, *_ = training_memory(encoder, machine, replace(recipe, patience=2), length)
    assert checked.needed > memory.needed
    region = Region(tiny.model, tiny.params, (), base_sha256="")
    texts = {"test": made_up_split(40, length)}
    found, parts = evaluation_memory(encoder, machine, 1, 40, length)
    without_members = plan_features(region, np.zeros((1, 1)), texts, settings=Settings(chunk=1)).needed_bytes
    assert found.needed == without_members + cuts.bytes_on_each(tiny.params, 1)
    assert parts == 1


@pytest.mark.long
def test_a_member_that_does_not_fit_is_told(capsys, tmp_path):
    size = ("--members=1", "--texts=256", "--batch_size=256", "--length=250", "--hardware=v5e-1")
    plan(*size, "--base=roberta-base")
    assert "for a member, 256 texts a step, each batch in 16 pieces, 1 at a time on a chip" in capsys.readouterr().out
    _, config = CONFIGS["roberta-large"]
    wide = {"num_hidden_layers": 2, "hidden_size": 8192, "intermediate_size": 32768, "num_attention_heads": 64}
    own = {name: value for name, value in config.items() if name != "pooling"} | wide
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "roberta", **own}))
    plan(*size, f"--base={tmp_path}")
    assert "DOES NOT FIT" in capsys.readouterr().out


def test_a_model_larger_than_a_chip_lies_on_as_few_chips_as_fit_it(tiny, dataset):
    """With a little too little memory for one chip, and with too little for all four."""
    encoder, recipe = find_encoder("tiny"), Recipe(batch_size=4)
    work = Workload(members=3, trained_texts=12, length=20, points=8, scored_texts=80)

    def said(budget):
        chip = replace(CHIPS["v5e"], memory_bytes=-(-10 * budget // 9))
        return told(Estimate(work, encoder, Hardware("small", chip, 4)), recipe=recipe, point_texts=10)[5:7]

    job = Job(dataset.with_split("finetune", made_up_split(4, 20)), 0, recipe)
    ways = [Division(pieces, again) for pieces in (1, 2, 4) for again in (False, True)]
    least = min(member_bytes(tiny.model, tiny.params, job, way) for way in ways)
    alone, one = evaluation_memory(encoder, find("v5e-4"), 8, 10, 20)
    assert one == 1
    for budget, training, evaluation in (
        (max(least, alone.needed) + 1, "1 at a time on a chip", "for a point at a time"),
        (least - 2, "each model over 2 chips, 4 texts", None),
        (alone.needed - 2, None, "for a point at a time, each model over 2 chips, 2 at a time on 4 chips"),
        (
            1000,
            "DOES NOT FIT, for a member, even with each model over the 4 chips of a host, 4 texts a step",
            "DOES NOT FIT, for a point at a time, even with each model over the 4 chips of a host",
        ),
    ):
        for line, expected in zip(said(budget), (training, evaluation), strict=True):
            assert expected is None or expected in line
    assert find("v5e-16").chips_together == 8  # a host's


@pytest.mark.parametrize("brought", [(), ("test",), ("validation", "test")])
def test_splits_of_published_datasets_are_as_large_as_those_that_are_cut(brought, monkeypatch):
    sizes = {"train": 137, "validation": 20, "test": 31}

    def examples(role):
        texts = [f"{role} {number}" for number in range(sizes[role])]
        return Examples(texts, None, np.zeros(len(texts), np.int32))

    rows = tuple(sizes[role] if role == "train" or role in brought else 0 for role in sizes)
    monkeypatch.setitem(ROWS, "any", rows)
    for share in (0.0, 0.9):
        roles = {role: examples(role) for role in ("train", *brought)}
        wanted, _ = choose_splits("any", roles, by_name=True, finetune_share=share)
        assert split_sizes("any", share) == {split: len(places) for split, places in wanted.items()}
    assert split_sizes("any", 0.9)["finetune"] == pytest.approx(0.9 * 137, abs=2)


def test_every_dataset_of_the_paper_has_a_size():
    assert set(ROWS) == set(PAPER)
    assert split_sizes("mnli")["test"] == 9_832  # validation_mismatched


def test_names_of_machines():
    assert [find(name).chips for name in ("v4-8", "v5p-8", "v5e-8", "v6e-8", "h100", "a100-8", "v5e")] == [
        4,
        4,
        8,
        8,
        1,
        8,
        1,
    ]
    assert find("v5litepod-16").hosts == 2
    assert find("epyc-2").flops == pytest.approx(191.8e9)
    for name, nearest in (
        ("v5-8", "v5p-8"),
        ("h10", "h100"),
        ("v4-7", "of which a chip has 2"),
        ("", "v4-8"),
        ("v5e-0", "v5e"),
    ):
        with pytest.raises(WsrError, match=nearest):
            find(name)
    assert find("here").flops > 0


def test_measured_shares_are_those_of_the_benchmarks():
    evaluation = json.loads((RESULTS / "evaluation.json").read_text())["results"][0]
    finetuning = json.loads((RESULTS / "finetuning.json").read_text())["results"][0]
    rate = 1e9 * evaluation["figures"]["float32 matrix products, GFLOP/s"]
    assert find("epyc-2").flops == pytest.approx(rate, rel=1e-3)
    share = next(mark["value"] for mark in evaluation["marks"] if "share" in mark["what"])
    assert pytest.approx(share, abs=0.005) == MEASURED.evaluation
    tokens, seconds = finetuning["figures"]["tokens a member"], finetuning["median_seconds_per_unit"]["wsr"]
    operations = find_encoder("minilm").training_operations(512, tokens / 512)
    assert pytest.approx(operations / seconds / rate, abs=0.005) == MEASURED.training


def test_expected_shares_are_those_of_the_compiled_programs():
    lines = (RESULTS.parent / "tpu_ahead_of_time.jsonl").read_text().splitlines()
    compiled = {(row["chip"], row["program"]): row.get("share_of_peak") for row in map(json.loads, lines)}
    for chip in ("v5e", "v5p", "v6e"):
        for name, size in COMPILED.items():
            encoding = compiled[chip, f"encode, {name}, 4 points x 16 rows x 64 tokens, float32"]
            training = compiled[chip, f"train one step, {name}, members 1, 32 texts of 128 tokens, float32"]
            expected = find(chip).chip.expected[name]
            assert expected.evaluation == pytest.approx(encoding, abs=0.0005)
            assert expected.training == pytest.approx(training, abs=0.0005)
            assert find_encoder(name).matrix_parameters == pytest.approx(size, rel=0.01)
            shares = Estimate(Workload(1, 1.0, 1.0), find_encoder(name), find(f"{chip}-8")).shares
            assert (shares.evaluation, shares.training) == (expected.evaluation, expected.training)
            assert name in shares.how
    assert Estimate(Workload(1, 1.0, 1.0), find_encoder("minilm"), find("h100")).shares == ASSUMED


def test_studies_together_train_shared_members_once():
    preset = PRESETS["packaged"]
    works = [
        Work(members=40, points=0),
        Work(members=16, points=10, datasets=preset.targets),
        Work(members=30, points=5, own_members=12, epochs=0.5, own_texts=100),
    ]
    found = workload(works, preset)
    assert found.members == 40 + 12
    assert found.trained_texts == pytest.approx(40 * 256 * 2.0 + 12 * 100 * 0.5)
    assert found.scored_texts == 15 * (450 + 480)
    assert found.checked_texts == 0
    paper = workload([Work(members=36, points=0)], PRESETS["paper"], length=50)
    sizes = {name: split_sizes(name, 0.9) for name in PAPER}
    assert paper.trained_texts == pytest.approx(10 * sum(own["finetune"] for own in sizes.values()))
    checks = {name: 10 * own["finetune"] / 256 / 50 for name, own in sizes.items()}
    assert paper.checked_texts == pytest.approx(
        sum(checks[name] * min(1000, sizes[name]["validation"]) for name in PAPER)
    )
    # Five members of each dataset, and twenty of two of them: of each dataset the larger number is trained.
    both = workload([Work(180, 0), Work(40, 0, datasets=("cola", "rte"))], PRESETS["paper"], length=50)
    assert both.members == 5 * 34 + 20 * 2


def plan(*flags):
    return cli.main(["plan", *flags])


@pytest.mark.long
def test_plan_of_the_papers_studies(capsys):
    assert plan("--preset=paper", "--hardware=v5e-8", "--studies=same_dataset_clusters,convex_hull", "--length=60") == 0
    said = capsys.readouterr().out
    assert "members to fine-tune: 390 on 36 datasets" in said  # 20 seeds of 14, 5 of the others
    assert "8 x 197 TFLOP/s" in said
    assert "expected by the chip's compiler for roberta-base" in said
    assert "no price" in said


def test_plan_of_all_studies_and_by_numbers(capsys):
    assert plan("--preset=smoke", "--hardware=epyc-2") == 0
    assert "two_bases" in capsys.readouterr().out
    flags = ["--members=10", "--texts=100", "--epochs=2", "--length=20", "--parameters=1e6", "--hardware=l4"]
    assert plan(*flags, "--points=7", "--texts_a_point=50", "--price=0.5") == 0
    said = capsys.readouterr().out
    assert "4e+04 trained on, 7e+03 encoded" in said
    assert f"{6 * 4 * 1e6 / 2**20:.1f} MiB plus activations" in said
    assert "0.5 for a chip and hour" in said


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ([], "either --preset, to plan its studies, or --members"),
        (["--preset=paper", "--members=3"], "either --preset, to plan its studies, or --members"),
        (["--preset=papr"], "nearest: paper"),
        (["--preset=paper", "--studies=convex"], "convex_hull"),
        (["--preset=paper", "--texts=3"], "--texts is for a population of your own"),
        (["--members=3", "--base=tiny"], "--length, --texts: needed"),
        (["--members=3", "--texts=3", "--length=3"], "either --base or --parameters"),
        (["--members=3", "--texts=3", "--length=3", "--parameters=1e6", "--mode=lora"], "mode lora trains parts of an"),
        (["--preset=paper", "--hardware=v5x-8"], "nearest: "),
        (["--preset=paper", "extra"], "unexpected 'extra'"),
    ],
)
def test_bad_calls_get_one_line(flags, told, capsys):
    assert plan(*flags) == 1
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1


@pytest.mark.long
@pytest.mark.parametrize("flags", re.findall(r"^\$ wsr plan (.*)$", LAUNCHING, re.MULTILINE))
def test_the_estimates_of_launching_are_what_plan_prints(flags, capsys):
    assert cli.main(["plan", *flags.split()]) == 0
    assert f"$ wsr plan {flags}\n{capsys.readouterr().out}```\n" in LAUNCHING
