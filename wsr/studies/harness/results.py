"""Keeps the results of finished runs with the code, and renders them into a Markdown page.

A page contains blocks, each between an opening comment and ``<!-- end -->``:

- ``<!-- table: STUDY by=group,dataset metric="P_B, ties as half" -->`` holds a table of the study's rows that have
  every value named, with one line for each value of ``by``; ``across=dataset`` makes a column for each dataset;
- ``<!-- findings: STUDY -->`` and ``<!-- figures: STUDY -->`` hold the findings and figures of the study's document;
- ``<!-- verdicts: all -->`` holds the verdicts of all studies.
"""

import gzip
import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsr.errors import WsrError
from wsr.report.document import Document
from wsr.runtime.atomic import write_atomically
from wsr.store.results import read_rows

_LONGEST_UNFOLDED = 30  # lines; longer tables are folded
_BLOCK = re.compile(r"(<!-- (table|findings|figures|verdicts): (.*?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Kept:
    """One study's rows and document, the command that made them and the commit of the code."""

    command: str
    commit: str
    rows: list[dict[str, Any]]
    document: Document


def collect(run: Path, folder: Path, *, commit: str) -> list[Path]:
    """Copies the results of a finished run into a folder and returns the files: rows (compressed), document, figures.

    Args:
      run: the folder of the run.
      folder: receives the files.
      commit: commit of the code that made the run.

    Raises:
      WsrError: the run is not finished.
    """
    from wsr.report.figures import save

    for needed in ("plan.json", "results.jsonl", "document.json"):
        if not (run / needed).is_file():
            raise WsrError(f"{run} holds no finished run, since it has no {needed}; run its command to the end first")
    name = run.name
    document = Document.from_json((run / "document.json").read_text(encoding="utf-8"))
    about = {"command": document.facts.get("command", ""), "commit": commit}
    about["plan"] = json.loads((run / "plan.json").read_text(encoding="utf-8"))
    lines = [json.dumps(about), *(json.dumps(row) for row in read_rows(run / "results.jsonl"))]
    rows = folder / f"{name}.jsonl.gz"
    # Without the time of writing, so that equal rows make equal files.
    write_atomically(rows, gzip.compress("".join(f"{line}\n" for line in lines).encode(), mtime=0))
    copy = folder / f"{name}.json"
    write_atomically(copy, document.to_json().encode())
    figures = [folder / file for file, _ in _figure_files(name, document)]
    for stale in folder.glob(f"figures/{name}.*.svg"):
        stale.unlink()
    drawn = (figure for section in document.sections for figure in section.figures)
    for figure, path in zip(drawn, figures, strict=True):
        save(figure, path)
    return [rows, copy, *figures]


def load_kept(folder: Path) -> dict[str, Kept]:
    """Returns all studies that ``collect`` wrote into a folder, by name.

    Raises:
      WsrError: a file is damaged, or lacks its companion; the message names it.
    """
    kept = {}
    for file in sorted(folder.glob("*.jsonl.gz")):
        name = file.name.removesuffix(".jsonl.gz")
        try:
            about, *rows = (json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines())
            document = Document.from_json((folder / f"{name}.json").read_text(encoding="utf-8"))
            kept[name] = Kept(about["command"], about["commit"], rows, document)
        except (OSError, EOFError, ValueError, KeyError) as error:
            raise WsrError(f"{file}: cannot be read ({error}); collect the run again") from error
    return kept


def rendered(page: str, kept: Mapping[str, Kept], *, results: str = "results") -> str:
    """Returns a page with every block rendered anew.

    Args:
      page: the Markdown text.
      kept: the studies, by name.
      results: path of the studies' folder, as the page links to it.

    Raises:
      WsrError: a block selects no row, names an unknown study, or is not closed.
    """
    if len(re.findall(r"<!-- (?:table|findings|figures|verdicts): ", page)) != len(_BLOCK.findall(page)):
        raise WsrError("page: a block is not closed; add <!-- end -->")

    def block(found: re.Match) -> str:
        opening, kind, words, _, closing = found.groups()
        name, *options = shlex.split(words)
        if kind == "verdicts":
            return opening + _verdicts(kept) + closing
        if name not in kept:
            return f"{opening}Not run: there is no {results}/{name}.jsonl.gz.\n{closing}"
        return opening + _KINDS[kind](name, kept[name], options, results) + closing

    return _BLOCK.sub(block, page)


def _table(name: str, kept: Kept, options: Sequence[str], results: str) -> str:
    chosen = dict(option.split("=", 1) for option in options)
    by = chosen.pop("by", "group,dataset").split(",")
    across = chosen.pop("across", None)
    if across:
        return _wide(name, kept, by, across, chosen, results)
    if "metric" not in chosen and "metric" not in by:
        by.append("metric")
    groups: dict[tuple[str, ...], list[dict]] = {}
    for row in kept.rows:
        if all(_told(row.get(key)) == value for key, value in chosen.items()) and all(key in row for key in by):
            groups.setdefault(tuple(_told(row[key]) for key in by), []).append(row)
    if not groups:
        raise WsrError(f"page: table of {name}: no row has {', '.join([*options, *by])}")
    labels = [key.replace("_", " ") for key in by]
    value = chosen.get("metric", "value")
    if all(len(rows) == 1 for rows in groups.values()):
        single = {place: rows[0] for place, rows in groups.items()}
        columns = [key for key in ("low", "p_holm") if any(key in row for row in single.values())]
        header = [*labels, value, *({"low": "95 % interval", "p_holm": "p, Holm"}[key] for key in columns)]
        body = [[*place, _number(row["value"]), *(_end(row, key) for key in columns)] for place, row in single.items()]
    else:
        header = [*labels, "rows", f"{value}: mean", "smallest", "largest"]
        body = [[*place, str(len(rows)), *_spread(rows)] for place, rows in groups.items()]
    return f"{_folded(header, body)}\n{_source(name, kept, results)}"


def _wide(name: str, kept: Kept, by: Sequence[str], across: str, chosen: Mapping[str, str], results: str) -> str:
    """Returns a table with a line for each value of ``by`` and a column for each value of ``across``."""
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for row in kept.rows:
        if all(_told(row.get(key)) == value for key, value in chosen.items()) and all(key in row for key in by):
            cells.setdefault(tuple(_told(row[key]) for key in by), {})[_told(row[across])] = _number(row["value"])
    if not cells:
        raise WsrError(f"page: table of {name}: no row has {', '.join(f'{k}={v}' for k, v in chosen.items())}")
    columns = list(dict.fromkeys(column for own in cells.values() for column in own))
    header = [*(key.replace("_", " ") for key in by), *columns]
    body = [[*place, *(own.get(column, "–") for column in columns)] for place, own in cells.items()]
    return f"{_folded(header, body)}\n{_source(name, kept, results)}"


def _source(name: str, kept: Kept, results: str) -> str:
    return f"`{kept.command}`, commit `{kept.commit}`, [rows]({results}/{name}.jsonl.gz)\n"


def _findings(name: str, kept: Kept, options: Sequence[str], results: str) -> str:
    lines = []
    for section in kept.document.sections:
        lines += [f"- **{section.title}: {section.verdict}.** {section.measured}."]
        lines += [f"  - {sentence}" for sentence in section.text]
    return "".join(f"{line}\n" for line in dict.fromkeys(lines))  # without repetitions


def _figures(name: str, kept: Kept, options: Sequence[str], results: str) -> str:
    return "".join(f"![{title}]({results}/{file})\n" for file, title in _figure_files(name, kept.document))


_KINDS: Mapping[str, Callable[[str, Kept, Sequence[str], str], str]] = {
    "table": _table,
    "findings": _findings,
    "figures": _figures,
}


def _verdicts(kept: Mapping[str, Kept]) -> str:
    header = ["study", "what it looks at", "question", "the claim"]
    body = [
        [f"`{name}`", section.title, section.question, f"**{section.verdict}**"]
        for name, own in kept.items()
        for section in own.document.sections
    ]
    return _markdown(header, body)


def _figure_files(name: str, document: Document) -> list[tuple[str, str]]:
    titles = [figure.title for section in document.sections for figure in section.figures]
    return [(f"figures/{name}.{number}.svg", title) for number, title in enumerate(titles)]


def _folded(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table; a long one is folded behind a line to click on."""
    table = _markdown(header, body)
    if len(body) <= _LONGEST_UNFOLDED:
        return table
    return f"<details><summary>{len(body)} lines: {', '.join(header)}</summary>\n\n{table}\n</details>\n"


def _markdown(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *body]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


def _told(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _end(row: Mapping[str, Any], key: str) -> str:
    if key not in row:
        return "–"
    if key == "low":
        return f"{_number(row['low'])} to {_number(row['high'])}"
    return "< 0.001" if row[key] < 0.001 else f"{row[key]:.3f}"


def _spread(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    values = np.array([row["value"] for row in rows if row["value"] is not None])
    if not values.size:
        return ["–"] * 3
    return [_number(float(how(values))) for how in (np.mean, np.min, np.max)]
