"""Folders whose tokenizer is a SentencePiece model: token ids against sentencepiece itself, and all ways in and out."""

import json
import shutil
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import pytest
from oracles import their_config
from sentencepiece_models import SIGLIP, TEXTS, processor, put, train
from transformers import AutoTokenizer

from wsr import models
from wsr.cli import main
from wsr.errors import WsrError
from wsr.exchange.importing import import_model
from wsr.models.huggingface.config import read_config
from wsr.models.huggingface.tokenizer import read_tokenizer
from wsr.runtime.model_folder import SENTENCEPIECE_FILES
from wsr.store import Store


@dataclass(frozen=True)
class Family:
    """How an architecture uses SentencePiece on the hub."""

    file: str
    trained: dict[str, Any]
    """Options of the trainer."""
    around: tuple[list[int], list[int]]
    """Ids before and after those of a text."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Its tokenizer_config.json."""
    before: Callable[[str], str] = str
    """What the tokenizer does to a text before SentencePiece."""
    number: Callable[[int], int] = int
    """The id of a piece."""
    apart: tuple[str, ...] = ()
    """Texts that the class of transformers 5 splits in another way than SentencePiece."""


def _plain(text):
    """ALBERT takes capitals and accents away."""
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(own for own in decomposed if not unicodedata.combining(own)).lower()


BYTES = {"kind": "bpe", "pieces": 340, "byte_fallback": True, "normalization_rule_name": "identity"}
BYTES |= {"remove_extra_whitespaces": False, "split_digits": True}
FAMILIES = {
    "t5": Family(
        "spiece.model",
        SIGLIP,
        ([], [1]),
        {"extra_ids": 100, "additional_special_tokens": [f"<extra_id_{number}>" for number in range(100)]},
    ),
    "albert": Family(
        "spiece.model",
        {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1, "control_symbols": ["[CLS]", "[SEP]", "[MASK]"]},
        ([2], [3]),
        before=_plain,
    ),
    "xlm_roberta": Family("sentencepiece.bpe.model", {}, ([0], [2]), number=lambda piece: piece + 1 if piece else 3),
    "deberta_v2": Family(
        "spm.model",
        {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3, "pad_piece": "[PAD]", "bos_piece": "[CLS]"}
        | {"eos_piece": "[SEP]", "unk_piece": "[UNK]"},
        ([1], [2]),
        {"do_lower_case": False, "vocab_type": "spm"},
        apart=(TEXTS[4],),  # it leaves out the table of the normaliser
    ),
    "llama": Family("tokenizer.model", BYTES, ([1], []), {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True}),
    "gemma": Family(
        "tokenizer.model",
        {**BYTES, "pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "add_dummy_prefix": False}
        | {"pad_piece": "<pad>", "eos_piece": "<eos>", "bos_piece": "<bos>"},
        ([2], []),
        {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True},
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_ids_are_those_of_sentencepiece_and_stay_when_the_tokenizer_is_saved(name, tmp_path):
    own = FAMILIES[name]
    content = train(**own.trained)
    put(tmp_path / "in", own.file, content, **own.settings)
    their_config(name).save_pretrained(tmp_path / "in")
    found, theirs = read_tokenizer(tmp_path / "in", 600), processor(content)
    assert found.is_fast
    first, last = own.around
    for text in TEXTS:
        ids = found(text)["input_ids"]
        expected = [*first, *(own.number(piece) for piece in theirs.encode(own.before(text))), *last]
        assert (ids == expected) == (text not in own.apart), text
        assert ids == AutoTokenizer.from_pretrained(tmp_path / "in")(text)["input_ids"]
    their_config(name).save_pretrained(tmp_path / "out")
    found.save_pretrained(tmp_path / "out")
    again = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert [again(text)["input_ids"] for text in TEXTS] == [found(text)["input_ids"] for text in TEXTS]
    assert again.get_vocab() == found.get_vocab()


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    """A small T5 encoder as the hub has it, with ``spiece.model`` alone, and the content of that file."""
    place = tmp_path_factory.mktemp("t5")
    content = train(**SIGLIP)
    their_config("t5", vocab_size=220).save_pretrained(place)
    put(place, "spiece.model", content)
    name, config = read_config(place)
    model = models.build(name, {**config, "pooling": "mean"})
    drawn = models.Checkpoint(model, model.init(jax.random.key(0)), read_tokenizer(place))
    models.export(drawn, place / "in")
    return put(place / "in", "spiece.model", content), content


def ids(tokenizer):
    return [tokenizer(text)["input_ids"] for text in TEXTS]


def test_a_model_goes_through_a_store_with_its_sentencepiece_file(t5, tmp_path, capsys):
    folder, content = t5
    expected = [[*processor(content).encode(text), 1] for text in TEXTS]
    base = models.load(str(folder))
    assert ids(base.processor) == expected
    models.export(base, tmp_path / "exported")
    assert ids(AutoTokenizer.from_pretrained(tmp_path / "exported")) == expected
    store = Store.create_for(tmp_path / "store", base)
    assert ids(store.processor()) == expected
    # A member as transformers saves it: with tokenizer.json in place of the SentencePiece model.
    moved = replace(base, params=jax.tree.map(lambda leaf: leaf * 1.01, base.params))
    models.export(moved, tmp_path / "m1")
    assert not (tmp_path / "m1" / "spiece.model").exists()
    import_model(tmp_path / "m1", store)
    assert "token" not in capsys.readouterr().out
    assert main(["export", "m1", f"--store={tmp_path / 'store'}", f"--to={tmp_path / 'out'}"]) == 0
    assert (tmp_path / "out" / "spiece.model").read_bytes() == content
    assert ids(AutoTokenizer.from_pretrained(tmp_path / "out")) == expected


def test_a_sentencepiece_file_of_another_member_is_compared_token_by_token(t5, tmp_path, capsys):
    folder, _ = t5
    base = models.load(str(folder))
    models.export(replace(base, params=jax.tree.map(lambda leaf: leaf * 1.01, base.params)), tmp_path / "m1")
    put(tmp_path / "m1", "spiece.model", train(seed=1, **SIGLIP))
    with pytest.raises(WsrError, match="another vocabulary: token"):
        import_model(tmp_path / "m1", Store.create_for(tmp_path / "store", base))
    # A recipe compares spiece.model with tokenizer.json too.
    models.export(base, tmp_path / "m2")
    recipe = {"merge_method": "linear", "parameters": {"weight": 1}}
    for other, status in ((str(folder), 0), (str(tmp_path / "m1"), 1)):
        listed = [{"model": str(tmp_path / "m2")}, {"model": other}]
        (tmp_path / "recipe.yaml").write_text(json.dumps({**recipe, "models": listed}))
        command = ["merge", f"--recipe={tmp_path / 'recipe.yaml'}", f"--to={tmp_path / f'out{status}'}"]
        assert main(command) == status
    assert "in " + str(tmp_path / "m1") in capsys.readouterr().err


def test_what_cannot_be_read_is_refused_in_one_line(t5, tmp_path, monkeypatch):
    folder, content = t5
    for name, wrong in (("cut", content[: len(content) // 2]), ("text", b"IQ== 0\nIg== 1\n")):
        shutil.copytree(folder, tmp_path / name)
        (tmp_path / name / "spiece.model").write_bytes(wrong)
        with pytest.raises(WsrError, match=r"spiece.model: no SentencePiece model .*expected one, or tokenizer.json"):
            models.load(str(tmp_path / name))
    shutil.copytree(folder, tmp_path / "bert")
    their_config("bert").save_pretrained(tmp_path / "bert")  # its tokenizer has another kind of vocabulary
    with pytest.raises(WsrError, match=r"has \d+ pieces, of which BertTokenizer of transformers reads 5"):
        read_tokenizer(tmp_path / "bert")
    with pytest.raises(WsrError, match=r"the tokenizer has \d+ entries and the model only 100"):
        read_tokenizer(folder, 100)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "sentencepiece", None)
        with pytest.raises(
            WsrError, match=r"sentencepiece cannot be loaded \(.*\); pip install --upgrade sentencepiece"
        ):
            read_tokenizer(folder)
    (tmp_path / "none").mkdir()
    with pytest.raises(WsrError, match=f"no tokenizer; expected one of .*{', '.join(SENTENCEPIECE_FILES)}"):
        read_tokenizer(tmp_path / "none")
