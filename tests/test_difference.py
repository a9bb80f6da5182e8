"""``wsr diff`` and ``wsr.diff``: figures against NumPy's own, on models of all kinds that a person may name."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from incoming_folders import edit_config, near, rewrite, write
from safetensors.numpy import load_file, save_file
from test_store import record_of

import wsr
from wsr.cli import main
from wsr.errors import WsrError
from wsr.geometry.spectrum import numerical_rank, singular_values, stable_rank
from wsr.models.huggingface.weights import to_huggingface
from wsr.store import Store

QUERY = "encoder.layer.0.attention.self.query.weight"
WORDS = "embeddings.word_embeddings.weight"


@pytest.fixture(scope="module")
def folders(tiny, tmp_path_factory):
    """Two models near the tiny checkpoint."""
    place = tmp_path_factory.mktemp("models")
    return write(tiny, place / "first", 1), write(tiny, place / "second", 2)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (7, 7), (3000, 6)])
def test_singular_values_and_ranks_are_those_of_numpy(shape, monkeypatch):
    monkeypatch.setattr("wsr.geometry.spectrum._BLOCK", 64)  # so that there are many blocks
    matrix = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    values = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    found = singular_values(matrix)
    np.testing.assert_allclose(found, values, rtol=1e-6)
    assert numerical_rank(found) == np.linalg.matrix_rank(matrix) == min(shape)
    assert stable_rank(found) == pytest.approx(np.linalg.norm(matrix) ** 2 / np.linalg.norm(matrix, 2) ** 2, rel=1e-5)
    low = matrix[:, :2] @ matrix[:2]
    assert numerical_rank(singular_values(low)) == 2
    assert (numerical_rank(np.zeros(3)), stable_rank(np.zeros(3))) == (0, 0.0)


def test_every_figure_of_every_leaf_is_numpys(folders):
    first, second = (load_file(folder / "model.safetensors") for folder in folders)
    found = wsr.diff(*folders)
    assert [leaf.name for leaf in found.leaves] == sorted(first, key=[leaf.name for leaf in found.leaves].index)
    for leaf in found.leaves:
        a, b = first[leaf.name].astype(np.float64), second[leaf.name].astype(np.float64)
        assert leaf.shape == a.shape
        assert (leaf.norm, leaf.other_norm) == pytest.approx((np.linalg.norm(a), np.linalg.norm(b)))
        assert leaf.distance == pytest.approx(np.linalg.norm(a - b))
        assert leaf.relative == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(a))
        assert leaf.cosine == pytest.approx((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))
        assert leaf.largest == pytest.approx(np.abs(a - b).max())
        assert leaf.equal == pytest.approx((a == b).mean())
        if a.ndim == 2:
            change = np.float32(b) - np.float32(a)
            assert leaf.rank == np.linalg.matrix_rank(change, tol=1e-3 * np.linalg.norm(change, 2))
            assert leaf.stable_rank == pytest.approx(
                np.linalg.norm(change) ** 2 / np.linalg.norm(change, 2) ** 2, rel=1e-4
            )
        else:
            assert leaf.rank is leaf.stable_rank is None
    whole = [np.concatenate([own[name].ravel() for name in first]).astype(np.float64) for own in (first, second)]
    assert found.distance == pytest.approx(np.linalg.norm(whole[0] - whole[1]))
    assert found.norms == pytest.approx(tuple(map(np.linalg.norm, whole)))
    assert found.cosine == pytest.approx(whole[0] @ whole[1] / np.prod(np.linalg.norm(whole, axis=1)))
    assert not found.identical
    assert found.config == {}
    assert found.vocabulary.same


def test_a_model_and_itself_are_identical_whatever_names_it(tiny, folders, tmp_path):
    store = Store.create_for(tmp_path / "store", tiny)
    store.save(record_of("m"), near(tiny.params, 1), {})
    for other in (folders[0], folders[0] / "model.safetensors", wsr.load(str(folders[0]))):
        found = wsr.diff(folders[0], other)
        assert found.identical, other
        assert found.distance == 0
    assert wsr.diff("m", folders[0], store=store).identical
    assert wsr.diff("m", folders[0], store=store).vocabulary.same
    assert wsr.diff("m=1", "m", store=store).identical
    assert wsr.diff("base", "tiny", store=store).identical
    half = wsr.diff("base", "m=0.5", store=store)
    assert half.distance == pytest.approx(wsr.diff("base", "m", store=store).distance / 2, rel=1e-4)


def test_names_of_other_classes_and_times_are_the_same_leaves(folders, tmp_path):
    """A classifier's file has a prefix and a head, and files of old had gamma and beta."""
    import shutil

    shutil.copytree(folders[0], tmp_path / "old")

    def aged(tensors):
        old = {
            f"bert.{name}".replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            ): own
            for name, own in tensors.items()
        }
        return {**old, "classifier.weight": np.ones((2, 16), np.float32)}

    rewrite(tmp_path / "old", aged)
    found = wsr.diff(folders[0], tmp_path / "old")
    assert all(leaf.equal == 1 for leaf in found.leaves)
    assert (found.only_first, found.only_second) == ((), ("classifier.weight",))
    assert not found.identical


def test_an_adapter_is_a_low_rank_change_of_the_base_of_the_store(tiny, tmp_path):
    store = Store.create_for(tmp_path / "store", tiny)
    wsr.export(tiny.with_params(near(tiny.params, 1)), tmp_path / "tuned")
    wsr.extract(tmp_path / "tuned", "tiny", tmp_path / "adapter", rank=3)
    found = wsr.diff("base", tmp_path / "adapter", store=store)
    assert {leaf.rank for leaf in found.leaves if "attention" in leaf.name and leaf.rank is not None} == {3}
    with pytest.raises(WsrError, match="a LoRA adapter"):
        wsr.diff("tiny", tmp_path / "adapter")


def test_shapes_configs_and_vocabularies_that_differ_are_named(folders, tmp_path):
    import shutil

    shutil.copytree(folders[1], tmp_path / "other")
    rewrite(
        tmp_path / "other", lambda tensors: {**tensors, WORDS: np.concatenate([tensors[WORDS], np.ones((1, 16), "f4")])}
    )
    edit_config(tmp_path / "other", vocab_size=109, hidden_act="relu", transformers_version="0")
    path = tmp_path / "other" / "tokenizer.json"
    content = json.loads(path.read_text())
    words = content["model"]["vocab"]
    words["a"], words["b"] = words["b"], words["a"]
    del words["~"]
    entry = {"content": "<new>", "id": 108, "special": False, "normalized": False}
    content["added_tokens"].append({**entry, "lstrip": False, "rstrip": False, "single_word": False})
    path.write_text(json.dumps(content))
    settings = tmp_path / "other" / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "pad_token": "[SEP]"}))

    found = wsr.diff(folders[0], tmp_path / "other")
    assert found.other_shapes == {WORDS: ((108, 16), (109, 16))}
    assert WORDS not in {leaf.name for leaf in found.leaves}
    assert found.config == {"hidden_act": ("gelu", "relu"), "vocab_size": (108, 109)}
    assert found.vocabulary.sizes == (108, 108)
    assert found.vocabulary.only_first == ("~",)
    assert found.vocabulary.only_second == ("<new>",)
    assert found.vocabulary.renumbered == ("a", "b")
    assert found.vocabulary.special == {"pad_token": ("[PAD]", "[SEP]")}
    assert wsr.diff(folders[0], folders[1] / "model.safetensors").vocabulary is None


def test_models_that_are_not_finite_are_compared_and_their_json_is_valid(folders, tmp_path):
    import shutil

    shutil.copytree(folders[0], tmp_path / "broken")
    rewrite(tmp_path / "broken", lambda tensors: {**tensors, QUERY: np.full_like(tensors[QUERY], np.nan)})
    found = json.loads(json.dumps(wsr.diff(folders[0], tmp_path / "broken").to_json(), allow_nan=False))
    (broken,) = [leaf for leaf in found["leaves"] if leaf["equal"] < 1]
    assert (broken["name"], broken["distance"], broken["rank"], broken["equal"]) == (QUERY, None, None, 0)


def test_files_of_unknown_architectures_have_the_names_in_them(tmp_path):
    tensors = {"x.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "steps": np.array([3], np.int64)}
    save_file(tensors, tmp_path / "a.safetensors")
    save_file({**tensors, "x.weight": -tensors["x.weight"], "y": np.zeros(1, np.float32)}, tmp_path / "b.safetensors")
    found = wsr.diff(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    by_name = {leaf.name: leaf for leaf in found.leaves}
    assert by_name["x.weight"].cosine == pytest.approx(-1)
    assert by_name["x.weight"].equal == pytest.approx(1 / 6)
    assert by_name["steps"].equal == 1
    assert found.only_second == ("y",)


def test_the_command_shows_the_leaves_that_differ_most(folders, tmp_path, capsys):
    found = wsr.diff(*folders)
    assert main(["diff", *map(str, folders), "--most=2"]) == 0
    out = capsys.readouterr().out
    most = sorted(found.leaves, key=lambda leaf: -(leaf.relative or np.inf))[:2]
    assert all(f"\n{leaf.name} " in out for leaf in most)
    assert f"{len(found.leaves) - 2} more differ" in out
    assert "vocabularies: the same 108 tokens" in out
    assert main(["diff", *map(str, folders), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(found.to_json()))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["tiny"], "expected two models, found 1"),
        (["tiny", "nowhere/at/all"], "no such folder"),
    ],
)
def test_wrong_calls_are_told_in_one_line(words, told, capsys):
    assert main(["diff", *words]) == 1
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_a_models_own_tensors_are_named_as_its_export_is(tiny):
    changed = replace(tiny, params=jax.tree.map(lambda leaf: leaf + 1, tiny.params))
    found = wsr.diff(tiny, changed)
    assert {leaf.name for leaf in found.leaves} == set(to_huggingface(tiny.model, tiny.params))
    assert repr(found).count("\n") == 1
