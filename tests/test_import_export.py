"""``wsr import`` and ``wsr export`` as a person meets them, without PyTorch."""

import json
import re

import jax
import numpy as np
import pytest
from incoming_folders import edit_config, near, write, write_independent
from safetensors.numpy import load_file, save_file

from wsr.cli import main
from wsr.errors import WsrError
from wsr.exchange.admission import dataset_of, names_of
from wsr.exchange.model_card import model_card
from wsr.exchange.named_point import named_point
from wsr.exchange.scores import keep_scores
from wsr.geometry.trees import flatten
from wsr.store import Store

HEAD = {"weight": (3, 16), "bias": (3,)}


@pytest.fixture
def folders(tiny, tmp_path):
    """Three models of the tiny checkpoint and two that do not belong."""
    for seed, name in enumerate(("bert-made_up_a1-s0", "bert-made-up-a1-s1", "mine")):
        write(tiny, tmp_path / name, seed)
    write_independent(tiny, tmp_path / "independent", 5)
    write(tiny, tmp_path / "broken", 6)
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"no")
    return tmp_path


def wsr(*words):
    return main(list(map(str, words)))


def bring(folders, *names, flags=()):
    return wsr("import", *(folders / name for name in names), f"--store={folders / 'store'}", "--base=tiny", *flags)


def test_a_bad_folder_does_not_keep_out_the_good_ones(folders, capsys):
    assert bring(folders, "broken", "bert-made_up_a1-s0", "independent", "mine") == 1
    out, error = capsys.readouterr()
    assert re.search(r"refused broken: .*model.safetensors: not readable as safetensors", out)
    assert re.search(r"refused independent: .*not fine-tuned from this base: cosine with the base -?0\.0", out)
    assert error == "wsr: error: 2 of 4 models were refused, for the reasons above: broken, independent\n"
    store = Store.open(folders / "store")
    assert store.names() == ["bert-made_up_a1-s0", "mine"]
    record = store.record("bert-made_up_a1-s0")
    assert (record.dataset, record.family, record.mode, record.seed, record.size) == (
        *("made_up_a1", "made_up_a", "imported"),
        *(0, 0),
    )
    assert record.hyperparameters["source"] == str(folders / "bert-made_up_a1-s0")
    assert record.metrics == {}
    assert store.record("mine").dataset == "mine"
    assert store.record("mine").family == "unknown"
    # Again, with one more: those that are there stay.
    assert bring(folders, "bert-made_up_a1-s0", "mine", "bert-made-up-a1-s1") == 0
    out = capsys.readouterr().out
    assert out.count("already in the store") == 2
    assert out.count("imported") == 1
    assert wsr("ls", folders / "store") == 0
    assert "–" in capsys.readouterr().out


def test_one_folder_alone_is_refused_with_its_reason_and_leaves_no_store(folders, capsys):
    assert bring(folders, "independent") == 1
    assert "not fine-tuned from this base" in capsys.readouterr().err
    assert not (folders / "store").exists()


def test_the_likeliest_base_is_named(folders, tiny, capsys):
    write_independent(tiny, folders / "wrong", 8)
    paths = [f"--store={folders / 'store'}", f"--base={folders / 'wrong'}"]
    assert wsr("import", folders / "mine", *paths) == 1
    assert "the likeliest base is 'tiny' (cosine with the base 0.99" in capsys.readouterr().err


def test_members_never_change(folders, tiny, capsys):
    assert bring(folders, "mine") == 0
    (folders / "elsewhere").mkdir()
    write(tiny, folders / "elsewhere" / "mine", 2)  # the same weights: the same member
    assert bring(folders, "elsewhere/mine") == 0
    assert Store.open(folders / "store").record("mine").hyperparameters["source"] == str(folders / "mine")
    write(tiny, folders / "other" / "mine", 9)
    capsys.readouterr()
    assert bring(folders, "other/mine") == 1
    error = capsys.readouterr().err
    assert "has another member 'mine', members never change: content_sha256 is" in error
    assert f"the stored 'mine' came from {folders / 'mine'}, this one from {folders / 'other' / 'mine'}" in error
    assert bring(folders, "elsewhere/mine", flags=("--names=again",)) == 0
    assert "the same weights as mine" in capsys.readouterr().out


def test_names_datasets_and_families_can_be_given(folders, capsys):
    both = ("bert-made_up_a1-s0", "mine")
    assert bring(folders, *both, flags=("--names=a,b", "--dataset=made_up_b1,reviews", "--family=told")) == 0
    records = Store.open(folders / "store").records()
    assert [(record.name, record.dataset, record.family) for record in records] == [
        ("a", "made_up_b1", "told"),
        ("b", "reviews", "told"),
    ]
    assert bring(folders, *both, flags=("--names=c,d", "--dataset=all")) == 0
    assert Store.open(folders / "store").record("d").dataset == "all"
    capsys.readouterr()
    assert bring(folders, *both, flags=("--names=c",)) == 1
    assert "--names: expected one per model, found 1 for 2 models" in capsys.readouterr().err
    assert bring(folders, "mine", flags=("--names=../../x",)) == 1
    assert "is not a safe file name" in capsys.readouterr().err
    assert bring(folders, "mine", flags=("--names=centroid",)) == 1
    assert "is reserved for another point" in capsys.readouterr().err


def test_names_come_from_folders():
    assert names_of(["runs/a", "/x/b/", "owner/model"]) == ["a", "b", "model"]
    assert names_of(["sst2/checkpoint-500", "mnli/checkpoint-500"]) == ["sst2-checkpoint-500", "mnli-checkpoint-500"]
    assert names_of(["one/best", "two/best", "three/last"]) == ["one-best", "two-best", "last"]
    assert names_of(["a, b=c", "\x1b[31mred", "..hidden.."]) == ["a-b-c", "31mred", "hidden"]
    assert dataset_of("roberta-base-SST2-seed-1") == "sst2"
    assert dataset_of("bert-tweet-emotion") == "tweet_emotion"
    assert dataset_of("colanders") == "colanders"


def test_hostile_names_are_written_out(folders, tiny, capsys):
    path = folders / "mine" / "model.safetensors"
    tensors = load_file(path)
    path.unlink()
    save_file({**tensors, "\x1b[2Jevil": np.zeros(2, np.float32)}, path)
    assert bring(folders, "mine") == 1
    out, error = capsys.readouterr()
    assert "\x1b" not in out + error
    assert r"unexpected \x1b[2Jevil" in error
    write(tiny, folders / "\x1b[31mred", 3)
    assert bring(folders, "\x1b[31mred") == 0
    assert wsr("ls", folders / "store") == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert r"\x1b[31mred" in out


def test_an_adapter_becomes_a_member_that_is_kept_as_factors(folders, tiny, capsys):
    random = np.random.default_rng(0)
    module = "encoder.layer.0.attention.self.query"
    a, b = random.standard_normal((2, 16), np.float32), 0.1 * random.standard_normal((16, 2)).astype(np.float32)
    adapter = folders / "adapter"
    adapter.mkdir()
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["query"], "bias": "none"}
    config |= {"base_model_name_or_path": "some/base", "layers_to_transform": [0]}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    names = {f"base_model.model.bert.{module}.lora_{side}.weight": own for side, own in (("A", a), ("B", b))}
    head = {f"base_model.model.classifier.{name}": np.ones(shape, np.float32) for name, shape in HEAD.items()}
    save_file(names | head, adapter / "adapter_model.safetensors")
    assert bring(folders, "adapter") == 0
    out = capsys.readouterr().out
    assert "a LoRA adapter, merged" in out
    assert "its config names 'some/base'" in out
    store = Store.open(folders / "store")
    assert store.kept_as("adapter")[0] == "rank 2"
    found = flatten(store.load("adapter")[0])
    path = "layers/0/attention/query/kernel"
    expected = {**flatten(tiny.params), path: np.asarray(flatten(tiny.params)[path]) + 2 * (b @ a).T}
    for name, leaf in expected.items():
        np.testing.assert_allclose(found[name], leaf, atol=1e-6)
    assert wsr("export", "adapter", "--head", f"--store={store.path}", f"--to={folders / 'out'}") == 0
    assert len(json.loads((folders / "out" / "config.json").read_text())["id2label"]) == 3
    tensors = load_file(folders / "out" / "model.safetensors")
    np.testing.assert_allclose(tensors[f"bert.{module}.weight"], expected[path].T, atol=1e-6)
    assert tensors["classifier.weight"].shape == (3, 16)


# Export


@pytest.fixture
def store(folders):
    """Three members."""
    assert bring(folders, "bert-made_up_a1-s0", "bert-made-up-a1-s1", "mine", flags=("--names=a,b,c",)) == 0
    return Store.open(folders / "store")


def test_points_by_what_a_person_calls_them(store):
    assert named_point(store, "base", []) == {}
    assert named_point(store, "b", []) == {"b": 1.0}
    assert named_point(store, "centroid", ["a", "c"]) == {"a": 0.5, "c": 0.5}
    assert named_point(store, "a=0.5,c=-2,b=0", []) == {"a": 0.5, "c": -2.0}
    for text, said in (
        ("centriod", "nearest: centroid"),
        ("a=x", "the coefficient of a is not a number: 'x'"),
        ("a=nan", "expected a finite number"),
        ("a=1,a=2", "a is listed twice"),
        ("d=1", "no member is called 'd'"),
    ):
        with pytest.raises(WsrError, match=re.escape(said)):
            named_point(store, text, [])


def test_a_member_is_exported_bit_for_bit_and_read_again(folders, store, tiny):
    from wsr.models import load

    assert wsr("export", "a", f"--store={store.path}", f"--to={folders / 'out'}") == 0
    again = load(str(folders / "out"))
    assert again.model.config == tiny.model.config
    expected = flatten(near(tiny.params, 0))
    assert all(np.array_equal(leaf, expected[path]) for path, leaf in flatten(again.params).items())


def test_an_export_is_whole_or_not_there(folders, store, tiny, capsys):
    (folders / "full").mkdir()
    (folders / "full" / "file").write_text("mine")
    assert wsr("export", "a", f"--store={store.path}", f"--to={folders / 'full'}") == 1
    assert "exists and is not empty" in capsys.readouterr().err
    from wsr.models.huggingface.folder import write_folder

    leaves = flatten(tiny.params)
    last = sorted(leaves)[-1]

    def breaks(path):
        if path == last:
            raise KeyboardInterrupt
        return leaves[path]

    with pytest.raises(KeyboardInterrupt):
        write_folder(tiny.model, breaks, tiny.processor, folders / "half")
    assert not [path for path in folders.iterdir() if "half" in path.name]
    (folders / "empty").mkdir()
    assert wsr("export", "a", f"--store={store.path}", f"--to={folders / 'empty'}") == 0


def test_a_head_that_fits_nowhere_is_refused(folders, store, capsys):
    flags = (f"--store={store.path}", f"--to={folders / 'out'}", "--head")
    assert wsr("export", "centroid", *flags) == 1
    assert "a head belongs to one member" in capsys.readouterr().err
    assert wsr("export", "a", *flags) == 1
    assert "imported without a head" in capsys.readouterr().err
    from dataclasses import replace

    record = replace(store.record("a"), name="d", hyperparameters={}, content_sha256="")
    head = {"kernel": np.ones((16, 2), np.float32), "bias": np.zeros(2, np.float32)}
    store.save(record, store.load("a")[0], head)
    assert wsr("export", "d", *flags) == 1
    assert "pooled by 'mean', but the classifiers of transformers for bert read" in capsys.readouterr().err


def test_the_card_tells_members_scores_and_command(folders, store):
    from huggingface_hub import ModelCard

    rows = [
        {
            "group": "x",
            "members": ["a", "b"],
            "coefficients": [0.25, 0.75],
            "dataset": "made_up_b1",
            "metric": "accuracy",
            "value": value,
            "n": 40,
            "how": "exact",
        }
        for value in (0.5, 0.8125)
    ]
    keep_scores(store, rows[:1])
    keep_scores(store, [rows[1], {**rows[0], "coefficients": [0.5, 0.5]}])
    assert wsr("export", "a=0.25,b=0.75", f"--store={store.path}", f"--to={folders / 'out'}") == 0
    text = (folders / "out" / "README.md").read_text()
    card = ModelCard(text)
    assert card.data.library_name == "transformers"
    assert card.data.tags == ["weight-space-regions", "merge"]
    assert card.data.license is None
    assert card.data.base_model is None  # "tiny" is no name of the hub
    for name, coefficient in (("a", "0.25"), ("b", "0.75")):
        assert f"| `{name}` | {coefficient} | `{name}` | `{store.record(name).content_sha256}` |" in text
    assert re.search(r"\| `made_up_b1` \| `accuracy` \| 0\.8125 \| 0\.66\d\d to 0\.90\d\d \| 40 \| `exact` \|", text)
    assert "0.5000" not in text
    assert f"wsr export a=0.25,b=0.75 --store={store.path} --to={folders / 'out'}" in text
    assert store.base_sha256 in text


def test_names_of_others_do_not_break_the_card(store):
    from dataclasses import replace

    record = replace(store.record("a"), name="e", dataset="x`|\n# head <b>", content_sha256="")
    store.save(record, jax.tree.map(lambda leaf: leaf + np.float32(0.1), store.load("a")[0]), {})
    text = model_card(store, {"e": None}, title="a_b*c", method="m", command="wsr x")
    assert "| `e` | – | `x'\\|\\n# head <b>` |" in text
    assert "# a\\_b\\*c" in text


def test_the_vocabulary_of_a_member_with_more_tokens_is_the_bases_again(folders, tiny, store):
    path = folders / "mine" / "model.safetensors"
    tensors = load_file(path)
    name = "embeddings.word_embeddings.weight"
    path.unlink()
    save_file({**tensors, name: np.concatenate([tensors[name], np.ones((3, 16), np.float32)])}, path)
    edit_config(folders / "mine", vocab_size=111)
    assert bring(folders, "mine", flags=("--names=c",)) == 0  # the same member as before: its rows are removed
