"""What does not belong to a population: refused before anything is computed, with all differences in one line."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from incoming_folders import edit_config, near, rewrite, write, write_independent
from test_store import record_of

from wsr import models
from wsr.cli import main
from wsr.data.fingerprint import fingerprint
from wsr.errors import WsrError
from wsr.store import Store


@pytest.fixture
def store(tiny: models.Checkpoint, tmp_path: Path) -> Store:
    """Two members of the folder ``base``."""
    models.export(tiny, tmp_path / "base")
    made = Store.create(
        tmp_path / "store",
        model_name="bert",
        model_config=dict(tiny.model.config),
        base_name=str(tmp_path / "base"),
        base_params=tiny.params,
        tokenizer=fingerprint(tiny.processor),
    )
    for seed in range(2):
        made.save(record_of(f"m{seed}", metrics={}), near(tiny.params, seed), {})
    return made


def content(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def refused(store: Store, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command that must fail in one line, without training, evaluating or changing the store."""
    monkeypatch.setattr("wsr.training.members.finetune", None)
    monkeypatch.setattr("wsr.engine.scoring.for_each_chunk", None)

    def run(*words: str) -> str:
        before = content(store.path)
        capsys.readouterr()
        status = main([*words])
        complaint = capsys.readouterr().err
        assert (status, complaint.count("\n")) == (1, 1), complaint
        found = content(store.path)
        assert {name: found[name] for name in before} == before
        assert {name for name in found if "/members/" in name or "/points/" in name} <= set(before)
        return complaint

    return run


TRAIN = ["--datasets=made_up_a1", "--max_length=48", "--seeds=1"]
EVALUATE = ["--on=made_up_a1", "--max_length=48", "--probe_size=40", "--test_size=40"]


def edit_json(file: Path, change: Any) -> None:
    whole = json.loads(file.read_text())
    change(whole)
    file.write_text(json.dumps(whole))


def swap_tokens(tokenizer: dict) -> None:
    vocabulary = tokenizer["model"]["vocab"]
    first, second = list(vocabulary)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]


def begin_with_a(tokenizer: dict) -> None:
    tokenizer["normalizer"] = {"type": "Prepend", "prepend": "a"}


@pytest.mark.fault
def test_another_base_config_and_tokenizer_are_listed_together(
    tiny: Any, store: Store, tmp_path: Path, refused: Any, trials: Any
) -> None:
    other = write(tiny, tmp_path / "other", 7)
    edit_json(other / "tokenizer.json", swap_tokens)
    edit_config(other, layer_norm_eps=1e-3)
    told = refused("train", f"--store={store.path}", f"--base={other}", *TRAIN)
    assert "config layer_norm_eps" in told
    assert "tokenizer: another vocabulary" in told
    assert told.count("sha256 expected") == len(store._base_table)
    trials.note("wrong base, architecture, tokenizer, vocabulary, head, dtype", tried=1, refused=1)


@pytest.mark.fault
@pytest.mark.parametrize(("change", "what"), [(swap_tokens, "vocabulary"), (begin_with_a, "tokens of one text")])
def test_another_tokenizer_alone_is_refused(
    store: Store, tmp_path: Path, refused: Any, trials: Any, change: Any, what: str
) -> None:
    base = tmp_path / "base"
    edit_json(base / "tokenizer.json", change)
    assert f"tokenizer: another {what}" in refused("train", f"--store={store.path}", f"--base={base}", *TRAIN)
    told = refused("evaluate", f"--store={store.path}", *EVALUATE)
    assert "is not the one its members were trained with: another" in told
    assert what in told
    trials.note("wrong base, architecture, tokenizer, vocabulary, head, dtype", tried=2, refused=2)


def integers(tensors: dict) -> dict:
    first = min(tensors)
    return {**tensors, first: np.zeros(tensors[first].shape, np.int32)}


def cut(tensors: dict) -> dict:
    first = min(tensors)
    return {**{name: own for name, own in tensors.items() if name != first}, "new.weight": np.ones(3, np.float32)}


def classify(folder: Path) -> None:
    """Three rows of a head, and names of two labels."""
    rewrite(folder, lambda tensors: {**tensors, "classifier.weight": np.ones((3, 32), np.float32)})
    edit_config(folder, id2label={"0": "no", "1": "yes"})


WRONG = {
    "another base": (lambda folder: None, "not fine-tuned from this base"),
    "another architecture": (lambda folder: edit_config(folder, model_type="roberta"), "another architecture"),
    "another configuration": (
        lambda folder: edit_config(folder, hidden_act="relu"),
        "hidden_act is 'relu' there",
    ),
    "another vocabulary": (lambda folder: edit_json(folder / "tokenizer.json", swap_tokens), "another vocabulary"),
    "another dtype": (lambda folder: rewrite(folder, integers), "expected a float"),
    "another head": (classify, "the head classifier.weight has 3 rows where config id2label names 2 labels"),
    "other tensors": (lambda folder: rewrite(folder, cut), "unexpected new.weight"),
}


@pytest.mark.fault
@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_imported_checked_or_scored_is_held_to_the_base(
    tiny: Any, store: Store, tmp_path: Path, refused: Any, trials: Any, wrong: str
) -> None:
    change, told = WRONG[wrong]
    folder = (write_independent if wrong == "another base" else write)(tiny, tmp_path / "theirs", 5)
    change(folder)
    where = f"--store={store.path}"
    calls = [["import", str(folder), where], ["check", str(folder), where]]
    calls.append(["evaluate", where, *EVALUATE, f"--merged={folder}"])
    for words in calls:
        assert told in refused(*words)
    trials.note("wrong base, architecture, tokenizer, vocabulary, head, dtype", tried=3, refused=3)


@pytest.mark.fault
def test_a_member_of_another_population_is_refused_wherever_it_is_read(
    tiny: Any, store: Store, tmp_path: Path, refused: Any, trials: Any
) -> None:
    moved = replace(tiny, params=near(tiny.params, 9))
    own = {"model_name": "bert", "model_config": dict(tiny.model.config), "base_name": "another"}
    others = Store.create(tmp_path / "others", base_params=moved.params, **own)
    others.save(record_of("theirs", metrics={}), near(moved.params, 1), {})
    shutil.copytree(others.path / "members" / "theirs", store.path / "members" / "theirs")
    for words in (["evaluate", *EVALUATE], ["map"], ["merge", f"--to={tmp_path / 'merged'}"], ["verify"], ["ls"]):
        refused(*words, f"--store={store.path}")
    with pytest.raises(WsrError, match=r"members/theirs: expected the name, base and content"):
        store.load("theirs")
    assert not (tmp_path / "merged").exists()
    shutil.rmtree(store.path / "members" / "theirs")
    trials.note("wrong base, architecture, tokenizer, vocabulary, head, dtype", tried=5, refused=5)
