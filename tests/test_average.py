"""``wsr average`` against NumPy, bit for bit, and against runs whose learning rate is known."""

import json
import tracemalloc

import ml_dtypes  # noqa: F401  # NumPy knows "bfloat16" by its name from here on.
import numpy as np
import pytest
from incoming_folders import edit_config, write
from safetensors.numpy import load_file, save_file

import wsr
from wsr.cli import main
from wsr.errors import WsrError
from wsr.merging.steps import KINDS, SHAPES, weights_of

DTYPES = ("float32", "float64", "bfloat16", "float16")


@pytest.fixture
def run(tmp_path):
    """Four checkpoints of tensors in several types, named like those of a training loop."""
    for number, step in enumerate((200, 1000, 500, 900)):
        random = np.random.default_rng(number)
        tensors = {f"layer.{dtype}": (1 + 0.1 * random.standard_normal((7, 11))).astype(dtype) for dtype in DTYPES} | {
            "layer.position_ids": np.arange(5)
        }
        tensors["long"] = random.standard_normal(70_001).astype(np.float32)  # more than one piece
        (tmp_path / f"checkpoint-{step}").mkdir()
        save_file(tensors, tmp_path / f"checkpoint-{step}" / "model.safetensors")
    return tmp_path


def numpys(run, steps, row, name):
    """The weighted mean in float64, in the order of the run."""
    total = None
    for step, weight in zip(steps, row, strict=True):
        part = weight * load_file(run / f"checkpoint-{step}" / "model.safetensors")[name].astype(np.float64)
        total = part if total is None else total + part
    return total / np.sum(row)


EXPECTED = {
    "uniform": [1, 1, 1, 1],
    "ema": [0.8**3, 0.2 * 0.8**2, 0.2 * 0.8, 0.2],
    # Linear from step 200 to 1000: the rate is 0.8125 between 200 and 500, then 0.375, then 0.0625.
    "decay": [1 - 0.8125, 0.8125 - 0.375, 0.375 - 0.0625, 0.0625],
    "undo_decay": [1 - 1 / 0.8125, 1 / 0.8125 - 1 / 0.375, 1 / 0.375 - 1 / 0.0625, 1 / 0.0625],
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_average_is_numpys_bit_for_bit(run, kind):
    steps = (1000, 200, 900, 500)
    done = wsr.average([run / f"checkpoint-{step}" for step in steps], run / "out", kind=kind, smoothing=0.8)
    steps = sorted(steps)
    assert [*done.weights] == [str(run / f"checkpoint-{step}") for step in steps]
    np.testing.assert_allclose([*done.weights.values()], np.divide(EXPECTED[kind], np.sum(EXPECTED[kind])), rtol=1e-12)
    row = weights_of(np.array(steps, float), kind, smoothing=0.8)
    found = load_file(run / "out" / "model.safetensors")
    for name in ("long", *(f"layer.{dtype}" for dtype in DTYPES)):
        expected = numpys(run, steps, row, name)
        if not name.endswith("float64"):
            expected = expected.astype(np.float32)
        np.testing.assert_array_equal(found[name], expected.astype(found[name].dtype), err_msg=name)
    assert str(found["layer.bfloat16"].dtype) == "bfloat16"
    np.testing.assert_array_equal(found["layer.position_ids"], np.arange(5))


def test_the_exponential_average_is_that_of_its_recurrence(run):
    mean = None
    for step in (200, 500, 900, 1000):
        own = load_file(run / f"checkpoint-{step}" / "model.safetensors")["long"].astype(np.float64)
        mean = own if mean is None else 0.7 * mean + 0.3 * own
    wsr.average([run / f"checkpoint-{step}" for step in (200, 500, 900, 1000)], run / "out", kind="ema", smoothing=0.7)
    np.testing.assert_allclose(load_file(run / "out" / "model.safetensors")["long"], mean, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_weights_act_like_a_decay_and_undo_one(shape):
    """With one gradient throughout, the position is the sum of the learning rates; checkpoints lie at uneven steps."""
    saved = np.array([0, 100, 250, 600, 1000])
    rates = SHAPES[shape]((np.arange(1000) + 0.5) / 1000)
    constant, decayed = (np.concatenate([[0.0], np.cumsum(own)])[saved] for own in (np.ones(1000), rates))
    # Between two checkpoints the rate counts as that halfway.
    tolerance = 1e-9 if shape == "linear" else 0.06
    found = weights_of(saved.astype(float), "decay", shape=shape) @ constant
    np.testing.assert_allclose(found, decayed[-1], rtol=tolerance)
    found = weights_of(saved.astype(float), "undo_decay", shape=shape) @ decayed
    np.testing.assert_allclose(found, constant[-1], rtol=max(tolerance, 0.3 if shape != "linear" else 0))


def test_the_command_averages_the_last_checkpoints(run, capsys):
    names = [str(run / f"checkpoint-{step}") for step in (200, 500, 900, 1000)]
    assert main(["average", *names, "--last=2", f"--to={run / 'out'}"]) == 0
    out = capsys.readouterr().out
    assert "checkpoint-900" in out
    assert "checkpoint-500" not in out
    assert "average of 2 checkpoints" in out
    expected = numpys(run, (900, 1000), [1, 1], "long").astype(np.float32)
    np.testing.assert_array_equal(load_file(run / "out" / "model.safetensors")["long"], expected)


def test_names_without_numbers_stay_in_the_given_order(run):
    (run / "checkpoint-200").rename(run / "first")
    done = wsr.average([run / "checkpoint-900", run / "first"], run / "out", kind="ema", smoothing=0.75)
    assert [*done.weights.items()] == [(str(run / "checkpoint-900"), 0.75), (str(run / "first"), 0.25)]


@pytest.mark.parametrize(
    ("names", "options", "told"),
    [
        ([], {}, "no checkpoint is named"),
        (["checkpoint-200", "again/checkpoint-200"], {}, "several checkpoints have the number 200"),
        (["checkpoint-200"], {"last": 2}, "--last=2: there are only 1 checkpoints"),
        (["checkpoint-200"], {"kind": "decay"}, "--weights=decay needs at least two checkpoints, found 1"),
        (["checkpoint-200"], {"smoothing": 1.5}, "--smoothing=1.5: expected a number from 0 to 1"),
    ],
)
def test_calls_without_a_meaning_are_refused(run, names, options, told):
    with pytest.raises(WsrError, match=told):
        wsr.average([run / name for name in names], run / "out", **options)
    assert not (run / "out").exists()


def test_checkpoints_pass_the_checks_of_recipes(tiny, tmp_path):
    """Another config, a pickle, an adapter, an existing folder."""
    for number in (1, 2):
        write(tiny, tmp_path / f"step-{number}", number)
    steps = [tmp_path / "step-1", tmp_path / "step-2"]
    wsr.average(steps, tmp_path / "out")
    assert wsr.load(tmp_path / "out").model.name == "bert"
    with pytest.raises(WsrError, match="already exists"):
        wsr.average(steps, tmp_path / "out")
    edit_config(tmp_path / "step-2", layer_norm_eps=0.5)
    with pytest.raises(WsrError, match=r"the models do not compute alike: config layer_norm_eps is 0\.5"):
        wsr.average(steps, tmp_path / "other")
    assert wsr.average(steps, tmp_path / "forced", force=True).notes
    (tmp_path / "step-2" / "model.safetensors").rename(tmp_path / "step-2" / "pytorch_model.bin")
    with pytest.raises(WsrError, match="pickles are never read"):
        wsr.average(steps, tmp_path / "other")
    (tmp_path / "step-2" / "adapter_config.json").write_text(json.dumps({}))
    with pytest.raises(WsrError, match="a LoRA adapter, not a whole model"):
        wsr.average(steps, tmp_path / "other")


def test_the_memory_is_that_of_a_leaf_for_each_core_and_not_of_a_model(tmp_path, monkeypatch):
    monkeypatch.setattr("wsr.merging.run.usable_cores", lambda: 2)
    leaf = np.ones(2**18, np.float32)  # 1 MiB
    for step in (1, 2, 3):
        (tmp_path / f"step-{step}").mkdir()
        save_file({f"layer{at:02}": leaf + at for at in range(24)}, tmp_path / f"step-{step}" / "model.safetensors")
    tracemalloc.start()
    wsr.average([tmp_path / f"step-{step}" for step in (1, 2, 3)], tmp_path / "out")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * 2**20, peak
