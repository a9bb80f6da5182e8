"""Texts without labels: lines, documents, windows, and which of a labelled dataset's texts are taken."""

import numpy as np
import pytest

from wsr.data.examples import Columns
from wsr.data.load import load_dataset
from wsr.data.texts import load_texts
from wsr.errors import WsrError


def _ids(texts, number):
    """Token ids of all windows of a text."""
    ends = [*texts.first_window, len(texts.windows)]
    offsets = texts.windows.offsets
    return texts.windows.token_ids[offsets[ends[number]] : offsets[ends[number + 1]]].tolist()


def test_a_text_a_line_in_windows_that_lose_no_token(tiny, tmp_path):
    lines = ["one two", "a much longer line that needs windows", "   ", "three"]
    (tmp_path / "book.txt").write_text("\n".join(lines) + "\n")
    texts = load_texts(tmp_path / "book.txt", tiny.processor, max_length=6)
    filled = [line for line in lines if line.strip()]
    assert (texts.name, len(texts)) == ("book", 3)
    for number, line in enumerate(filled):
        assert _ids(texts, number) == tiny.processor(line)["input_ids"]
    assert texts.windows.lengths.max() == 6
    lengths = [len(tiny.processor(line)["input_ids"]) for line in filled]
    assert len(texts.windows) == sum(-(-length // 6) for length in lengths)
    # Of each window all tokens but the first.
    assert texts.predicted.tolist() == [length - -(-length // 6) for length in lengths]


def test_a_text_a_file_of_a_folder(tiny, tmp_path):
    (tmp_path / "b.txt").write_text("second\n\nwith a paragraph")
    (tmp_path / "a.txt").write_text("first")
    texts = load_texts(tmp_path, tiny.processor)
    assert [_ids(texts, number) for number in range(2)] == [
        tiny.processor(text)["input_ids"] for text in ("first", "second\n\nwith a paragraph")
    ]
    (tmp_path / "c.txt").write_bytes(b"fine\n\xff")
    with pytest.raises(WsrError, match=r"c\.txt, line 2: byte 0xff is not UTF-8"):
        load_texts(tmp_path, tiny.processor)


def test_of_a_labelled_dataset_the_texts_that_no_member_saw(tiny):
    texts = load_texts("made_up_a1", tiny.processor, max_length=48)
    test = load_dataset("made_up_a1", tiny.processor, max_length=48).splits["test"]
    np.testing.assert_array_equal(texts.windows.token_ids, test.token_ids)
    fewer = load_texts("made_up_a1", tiny.processor, max_length=48, size=10)
    drawn = load_dataset("made_up_a1", tiny.processor, max_length=48, sizes={"test": 10}).splits["test"]
    np.testing.assert_array_equal(fewer.windows.token_ids, drawn.token_ids)
    assert fewer.content_hash != texts.content_hash


def test_a_table_of_texts_alone_is_taken_whole_and_one_with_other_columns_is_not(tiny, tmp_path):
    rows = [f"text number {number}" for number in range(40)]
    (tmp_path / "plain.csv").write_text("sentence\n" + "\n".join(rows))
    columns = Columns("sentence")
    assert len(load_texts(tmp_path / "plain.csv", tiny.processor, columns=columns)) == 40
    # Whatever its labels are called, a member may have been trained on it.
    (tmp_path / "rated.csv").write_text("sentence,stars\n" + "\n".join(f"{row},1" for row in rows))
    assert 0 < len(load_texts(tmp_path / "rated.csv", tiny.processor, columns=columns)) < len(rows) / 3
    with pytest.raises(WsrError, match=r"plain\.csv: no column 'text'; found 'sentence'"):
        load_texts(tmp_path / "plain.csv", tiny.processor)


def test_texts_with_nothing_to_predict_are_left_out_or_refused(tmp_path):
    class OneTokenAWord:
        """Adds no special tokens, as tokenizers of decoders do."""

        model_input_names = ("input_ids",)

        class backend_tokenizer:
            @staticmethod
            def to_str():
                return "{}"

        def num_special_tokens_to_add(self, pair):
            return 0

        def __call__(self, texts, pairs, **_):
            return {"input_ids": [[len(word) for word in text.split()] for text in texts]}

    (tmp_path / "short.txt").write_text("one\ntwo words\nthree")
    texts = load_texts(tmp_path / "short.txt", OneTokenAWord())
    assert len(texts) == 1
    assert texts.notes[-1] == "short: left out 2 texts with fewer than two tokens"
    (tmp_path / "short.txt").write_text("one\ntwo")
    with pytest.raises(WsrError, match="short: no text has two tokens"):
        load_texts(tmp_path / "short.txt", OneTokenAWord())
