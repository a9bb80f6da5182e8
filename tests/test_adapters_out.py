"""LoRA adapters that wsr writes: their factors against NumPy's SVD, and their error against the files themselves.

``tests/outside/test_peft.py`` loads them with PEFT.
"""

import json
import re

import jax
import numpy as np
import pytest
from incoming_folders import near, write
from safetensors.numpy import load_file
from test_store import record_of

from wsr.cli import main
from wsr.errors import WsrError
from wsr.exchange.extracting import extract
from wsr.geometry.low_rank import Factors
from wsr.geometry.trees import flatten
from wsr.geometry.truncation import concatenated, lowered, squared_distance, truncated
from wsr.models.huggingface.peft_write import places
from wsr.models.huggingface.weights import to_huggingface
from wsr.store import Store

QUERY, VALUE, BIAS = (
    "layers/0/attention/query/kernel",
    "layers/1/attention/value/kernel",
    "layers/0/attention/query/bias",
)


def matrix(inputs, outputs, seed=0):
    return np.random.default_rng(seed).standard_normal((inputs, outputs)).astype(np.float32)


def factors(rank, seed):
    return Factors(matrix(16, rank, seed), 0.1 * matrix(rank, 16, seed + 100))


# Factors


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (7, 7)])
@pytest.mark.parametrize("rank", [1, 3, 5])
def test_the_truncated_svd_is_numpys(shape, rank):
    change = matrix(*shape)
    u, values, v = np.linalg.svd(change.astype(np.float64), full_matrices=False)
    found = truncated(change, rank=rank)
    assert (found.a.shape, found.b.shape) == ((shape[0], rank), (rank, shape[1]))
    np.testing.assert_allclose(found.a @ found.b, u[:, :rank] * values[:rank] @ v[:rank], atol=1e-5)
    np.testing.assert_allclose(squared_distance(change, found), np.square(values[rank:]).sum(), atol=1e-5)


@pytest.mark.parametrize("share", [0.5, 0.9, 1.0])
def test_a_share_of_the_norm_takes_the_smallest_rank_that_keeps_it(share):
    change = matrix(6, 8)
    values = np.linalg.svd(change.astype(np.float64), compute_uv=False)
    kept = np.sqrt(np.cumsum(values**2) / np.square(values).sum())
    rank = truncated(change, share=share).a.shape[1]
    assert kept[rank - 1] >= share - 1e-9
    assert rank == 1 or kept[rank - 2] < share


def test_a_change_of_lower_rank_has_no_more_factors_than_that():
    assert truncated(matrix(8, 2) @ matrix(2, 9), rank=5).a.shape == (8, 2)
    assert truncated(np.zeros((4, 4), np.float32), rank=2) is None


def test_lowered_factors_are_the_truncated_svd_of_their_product():
    own = Factors(matrix(9, 4), matrix(4, 6, 1))
    found, expected = lowered(own, rank=2), truncated(own.a @ own.b, rank=2)
    np.testing.assert_allclose(found.a @ found.b, expected.a @ expected.b, atol=1e-5)


def test_concatenated_factors_are_the_weighted_sum():
    first, second = Factors(matrix(5, 2), matrix(2, 4, 1)), Factors(matrix(5, 3, 2), matrix(3, 4, 3))
    found = concatenated([first, second], [0.3, -2.0])
    assert found.a.shape == (5, 5)
    np.testing.assert_allclose(found.a @ found.b, 0.3 * first.a @ first.b - 2 * second.a @ second.b, atol=1e-5)
    one = np.ones((1, 1), np.float32)
    vector = concatenated([Factors(one, matrix(1, 4)), Factors(one, matrix(1, 4, 1))], [1.0, 2.0])
    assert vector.a.shape == (1, 1)
    np.testing.assert_allclose(vector.b, matrix(1, 4) + 2 * matrix(1, 4, 1), atol=1e-6)


# Folders


@pytest.fixture
def store(tiny, tmp_path):
    """Two members of unequal rank, one of which also moves a bias, and one stored whole."""
    made = Store.create_for(tmp_path / "store", tiny)
    bias = Factors(np.ones((1, 1), np.float32), matrix(1, 16, 9))
    made.save_low_rank(record_of("first", metrics={}), {QUERY: factors(2, 1), BIAS: bias}, {})
    made.save_low_rank(record_of("second", metrics={}), {QUERY: factors(3, 2), VALUE: factors(1, 3)}, {})
    made.save(record_of("whole", metrics={}), near(tiny.params, 4), {})
    return made


def wsr(*words):
    return main(list(map(str, words)))


def change_in(folder, tiny):
    """What an adapter adds to each tensor of the base, from its files alone."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    base = to_huggingface(tiny.model, tiny.params)
    found = {name: np.zeros_like(own) for name, own in base.items()}
    for name, own in tensors.items():
        bare = name.removeprefix("base_model.model.").replace(".base_layer", "")
        if ".lora_A." in name or "lora_embedding_A" in name:
            module = re.sub(r"\.lora_(A\.weight|embedding_A)", "", bare)
            b = tensors[name.replace("lora_A", "lora_B").replace("embedding_A", "embedding_B")]
            rank = config["rank_pattern"].get(f"^{module}", config["r"])
            assert own.shape[0] == rank == config["alpha_pattern"].get(f"^{module}", config["lora_alpha"])
            found[f"{module}.weight"] = b @ own if "lora_A" in name else (b @ own).T
        elif "lora" not in name:
            found[bare] = own - base[bare]
    return found


def change_of(store, name_or_params, tiny):
    params = store.load(name_or_params)[0] if isinstance(name_or_params, str) else name_or_params
    own, base = to_huggingface(tiny.model, params), to_huggingface(tiny.model, tiny.params)
    return {name: own[name].astype(np.float64) - base[name] for name in base}


def test_a_point_of_adapters_is_written_exactly(store, tiny, tmp_path, capsys):
    assert wsr("export", "first=0.5,second=2", f"--store={store.path}", "--as=adapter", f"--to={tmp_path / 'out'}") == 0
    out = capsys.readouterr().out
    assert "adapter of ranks 1 to 5, exact: relative error 0 of the task vector" in out
    first, second = (change_of(store, name, tiny) for name in ("first", "second"))
    for name, own in change_in(tmp_path / "out", tiny).items():
        np.testing.assert_allclose(own, 0.5 * first[name] + 2 * second[name], atol=1e-5, err_msg=name)
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["bias"], config["base_model_name_or_path"], config["task_type"]) == (
        *("lora_only", "tiny"),
        "FEATURE_EXTRACTION",
    )
    assert "exact: relative error 0 of the task vector" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--method=ties", "--members=first,second"], "no exact adapter: .* has no low-rank factors after ties"),
        (["--members=first,whole"], "has no low-rank factors after uniform of these members; choose .* with --rank"),
        (["--rank=2", "--as=model"], "--rank is the rank of an adapter; add --as=adapter"),
    ],
)
def test_a_merge_that_is_no_sum_of_factors_needs_a_rank(store, tmp_path, capsys, words, told):
    as_adapter = [] if "--as=model" in words else ["--as=adapter"]
    assert wsr("merge", f"--store={store.path}", *words, *as_adapter, f"--to={tmp_path / 'out'}") == 1
    assert re.search(told, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [["--method=ties", "--members=first,second"], ["--members=first,whole"]])
def test_the_error_that_is_told_is_that_of_the_files(store, tiny, tmp_path, capsys, words):
    call = ["merge", f"--store={store.path}", *words]
    assert wsr(*call, "--as=adapter", "--rank=3", f"--to={tmp_path / 'out'}") == 0
    told = re.search(
        r"relative error ([\d.e-]+) of the task vector; of single leaves at most ([\d.e-]+)", capsys.readouterr().out
    )
    assert wsr(*call, f"--to={tmp_path / 'whole'}") == 0
    merged, base = load_file(tmp_path / "whole" / "model.safetensors"), to_huggingface(tiny.model, tiny.params)
    expected = {name: merged[name].astype(np.float64) - base[name] for name in base}
    found = change_in(tmp_path / "out", tiny)
    lost = {name: np.linalg.norm(own - found[name]) for name, own in expected.items()}
    length = {name: np.linalg.norm(own) for name, own in expected.items()}
    whole = np.sqrt(sum(x**2 for x in lost.values()) / sum(x**2 for x in length.values()))
    np.testing.assert_allclose(float(told[1]), whole, rtol=2e-3)
    worst = max(lost[name] / length[name] for name in lost if length[name] > 0)
    np.testing.assert_allclose(float(told[2]), worst, rtol=2e-3)


def test_an_extracted_adapter_keeps_vectors_whole_and_the_share_of_each_matrix(tiny, tmp_path):
    write(tiny, tmp_path / "tuned", 3)
    adapter = extract(tmp_path / "tuned", "tiny", tmp_path / "out", share=0.8)
    expected = change_of(None, near(tiny.params, 3), tiny)
    for name, own in change_in(tmp_path / "out", tiny).items():
        error = np.linalg.norm(own - expected[name]) / np.linalg.norm(expected[name])
        assert error < (1e-4 if own.ndim == 1 else 0.6 + 1e-6), name
    assert 0 < adapter.error < 0.6
    assert adapter.worst in flatten(tiny.params)


def test_an_adapter_that_is_extracted_comes_in_again(tiny, tmp_path):
    write(tiny, tmp_path / "tuned", 3)
    extract(tmp_path / "tuned", "tiny", tmp_path / "out", rank=16)
    assert wsr("import", tmp_path / "out", f"--store={tmp_path / 'new'}", "--base=tiny", "--names=again") == 0
    again, expected = (flatten(own) for own in (Store.open(tmp_path / "new").load("again")[0], near(tiny.params, 3)))
    for path, own in expected.items():
        np.testing.assert_allclose(again[path], own, atol=1e-5, err_msg=path)


def test_an_extraction_needs_a_rank_and_a_new_folder(tiny, tmp_path):
    write(tiny, tmp_path / "tuned", 3)
    with pytest.raises(WsrError, match="name the largest rank, or the share of the norm to keep"):
        extract(tmp_path / "tuned", "tiny", tmp_path / "out")
    with pytest.raises(WsrError, match="exists and is not empty"):
        extract(tmp_path / "tuned", "tiny", tmp_path / "tuned", rank=2)
    write(tiny, tmp_path / "same", 0, scale=0.0)
    with pytest.raises(WsrError, match="no matrix differs from the base's"):
        extract(tmp_path / "same", "tiny", tmp_path / "out", rank=2)


def test_every_leaf_has_a_place_but_those_that_peft_cannot_hold(tiny):
    from wsr import models

    assert places(tiny.model).keys() == flatten(tiny.params).keys()
    lacking = {}
    for name in ("vit", "gpt2", "llama"):
        model = models.build(name, models.architectures()[name].example)
        leaves = flatten(jax.eval_shape(model.init, jax.random.key(0)))
        lacking[name] = sorted(leaves.keys() - places(model).keys())
    assert lacking["llama"] == []
    assert all("embedding" in path or "position" in path or "patch" in path or "cls" in path for path in lacking["vit"])
    assert lacking["gpt2"] in ([], ["token/embedding"])
