"""Data files as they come: cut, garbled, ragged, in another encoding. Examples, or one line that says where."""

import csv
import io
import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from wsr.data.examples import Columns, read_examples
from wsr.data.files import read_file
from wsr.data.load import load_dataset
from wsr.errors import WsrError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
WORDS = ("good", "bad", "film", "naïve", "☃", "𝕏", "a,b", 'say "no"', "tab\tbed", "two\nlines", "نص", "x" * 300)


def rows_of(draw: random.Random, count: int) -> list[dict[str, Any]]:
    return [
        {"text": f"{' '.join(draw.choices(WORDS, k=draw.randint(1, 6)))} {number}", "label": draw.choice(["no", "yes"])}
        for number in range(count)
    ]


def written(rows: list[dict[str, Any]], suffix: str) -> bytes:
    if suffix == ".parquet":
        sink = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
        return sink.getvalue()
    if suffix == ".jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if suffix == ".tsv" else ",", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def line_of(rows: list[dict[str, Any]], suffix: str, number: int) -> int:
    """Where the row ``number`` (from 0) begins, as an editor counts."""
    if suffix == ".parquet":
        return number + 1
    if suffix == ".jsonl":
        return number + 1
    return written(rows[:number], suffix).count(b"\n") + 1 if number else 2


# What is wrong with one cell, and the column that is to be named.
SPOILED: dict[str, tuple[str, Any]] = {
    "empty text": ("text", ""),
    "blank text": ("text", " \t "),
    "empty label": ("label", ""),
    "missing label": ("label", None),
}


def garbled(content: bytes, draw: random.Random) -> bytes:
    """Something that happens to files."""
    place = draw.randrange(len(content) + 1)
    noise = draw.randbytes(draw.randint(1, 40))
    changes = [
        lambda: content[:place],
        lambda: content[place:],
        lambda: content[:place] + noise + content[place:],
        lambda: content[:place] + b"\0" * 30 + content[place:],
        lambda: content[:place] + b'"' + content[place:],
        lambda: content[:place] + b"\xff\xfe" + content[place:],
        lambda: content[:place] + b"," * 50 + content[place:],
        lambda: content[:place] + b"\r" + content[place:],
        lambda: content[:place] + b"[" * 5000 + content[place:],
        lambda: content[:place] + b"9" * 5000 + content[place:],
        lambda: content.decode("utf-8", "replace").encode("utf-16"),
        lambda: content.decode("utf-8", "replace").encode("latin-1", "replace"),
        lambda: b"\xef\xbb\xbf" + content,
        lambda: content * 2,
        lambda: content.replace(b"text", b"body", 1),
        lambda: content.replace(b"\n", b""),
        lambda: bytes(byte ^ (1 << draw.randrange(8)) if draw.random() < 0.01 else byte for byte in content),
        lambda: draw.randbytes(len(content)),
        lambda: b"",
    ]
    return draw.choice(changes)()


@pytest.mark.fault
def test_garbled_files_give_examples_or_one_line(tmp_path: Path, trials: Any, tiny: Any) -> None:
    draw, counted, told = random.Random(6), Counter(read=0, refused=0, tracebacks=0), []
    for number in range(trials(100, torture=1000)):
        suffix = SUFFIXES[number % len(SUFFIXES)]
        file = tmp_path / f"data{suffix}"
        content = written(rows_of(draw, 40), suffix)
        for _ in range(draw.randint(1, 3)):
            content = garbled(content, draw)
        file.write_bytes(content)
        try:
            dataset = load_dataset(str(file), tiny.processor, max_length=16)
            assert dataset.classes >= 2
            counted["read"] += 1
        except WsrError as error:
            told.append(str(error))
        except Exception as error:
            (tmp_path / f"kept-{number}{suffix}").write_bytes(content)
            raise AssertionError(f"file {number} ({suffix}): {type(error).__name__}: {error}") from error
    counted["refused"] = len(told)
    assert all("\n" not in line and "data" in line for line in told), "one line, and which file"
    assert counted["read"] >= counted.total() / 50
    assert counted["refused"] >= counted.total() / 5
    trials.note("fuzzed data files", files=counted.total(), **counted)


@pytest.mark.fault
def test_one_bad_cell_is_named_by_file_row_and_column(tmp_path: Path, trials: Any) -> None:
    draw, named = random.Random(7), 0
    for number in range(trials(40, torture=400)):
        suffix, fault = SUFFIXES[number % len(SUFFIXES)], draw.choice(list(SPOILED))
        rows, (column, cell) = rows_of(draw, 30), SPOILED[fault]
        bad = draw.randrange(len(rows))
        rows[bad][column] = cell
        file = tmp_path / f"data{suffix}"
        file.write_bytes(written(rows, suffix))
        with pytest.raises(WsrError) as error:
            read_examples({"train": read_file(file)}, Columns())
        place = re.escape(str(file)) + rf", (line|row) {line_of(rows, suffix, bad)}, column '{column}'"
        assert re.match(place, str(error.value)), (fault, str(error.value))
        named += 1
    trials.note("one bad cell of a data file", files=named, named=named)


@pytest.mark.fault
def test_a_ragged_row_is_named_by_its_line(tmp_path: Path, trials: Any) -> None:
    draw = random.Random(8)
    for number in range(trials(20, torture=200)):
        suffix = SUFFIXES[number % 2]
        delimiter = "," if suffix == ".csv" else "\t"
        rows = rows_of(draw, 20)
        bad = draw.randrange(len(rows))
        lines, line = written(rows, suffix), line_of(rows, suffix, bad)
        whole = lines.split(b"\n")
        # Cells more at the start of the row: its end may lie some lines below.
        whole[line - 1] = (f"more{delimiter}" * draw.randint(1, 3)).encode() + whole[line - 1]
        file = tmp_path / f"data{suffix}"
        file.write_bytes(b"\n".join(whole))
        with pytest.raises(WsrError, match=rf"data{re.escape(suffix)}, line {line}: expected 2 cells"):
            read_file(file)
