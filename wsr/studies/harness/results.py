"""Keeps the results of finished runs with the code, and renders blocks of Markdown pages from them.

``<!-- KIND: STUDY OPTIONS -->`` opens a block of a page and ``<!-- end -->`` closes it. The kinds are:

- ``table``: a table of the study's rows that have every value named (``metric="P_B, ties as half"``), with one line for
  each value of ``by`` (``by=group,dataset``) and one column for each value of ``across`` (``across=dataset``), or for
  those of ``columns`` (``columns="rank|accuracy"``). ``interval=yes`` adds 95 % intervals to those columns;
  ``folded=yes`` folds a short table too. ``measure`` and ``method`` name the two halves of a metric such as
  "adjusted_rand, average linkage".
- ``findings``: the findings of the study's report.
- ``figures``: all of its figures, or those numbered (``figures: STUDY 0 2``).
- ``verdict``: the verdict of each of its sections.
"""

import gzip
import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from wsr.engine.evaluate import Protocol
from wsr.errors import WsrError
from wsr.report.document import Document
from wsr.runtime.atomic import write_atomically
from wsr.store.results import read_rows

_LONGEST_UNFOLDED = 30  # lines; longer tables are folded
_PROBED = ("generalised_loss", "accuracy")  # metrics of a probe
_KIND = "table|findings|figures|verdict"
_BLOCK = re.compile(rf"(<!-- ({_KIND}): (.*?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_COUNTS = ("options tried", "texts read")  # metrics without a fraction
_PLAIN = {
    "one_to_one_accuracy": "one-to-one accuracy",
    "majority_accuracy": "majority accuracy",
    "repaired_majority_accuracy": "majority accuracy, repaired",
    "adjusted_rand": "adjusted Rand index",
    "generalised_loss": "generalised loss",
}
"""Names of metrics in tables."""


@dataclass(frozen=True)
class Kept:
    """One study's rows and document, the command that made them and the commit of the code."""

    command: str
    commit: str
    rows: list[dict[str, Any]]
    document: Document
    probe: str | None
    """The probe of the rows, if they have losses or scores of one."""


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
    write_atomically(copy, _with_short_numbers(document).to_json().encode())
    figures = [folder / file for file, _ in figure_files(name, document)]
    for stale in folder.glob(f"figures/{name}.*.svg"):
        stale.unlink()
    drawn = (figure for section in document.sections for figure in section.figures)
    for figure, path in zip(drawn, figures, strict=True):
        save(figure, path)
    return [rows, copy, *figures]


def _with_short_numbers(document: Document) -> Document:
    """Returns a document whose figures have their numbers at four digits, more than pictures show, for small files."""

    def short(value: Any) -> Any:
        if isinstance(value, float):
            return float(f"{value:.4g}")
        if isinstance(value, Mapping):
            return {name: short(own) for name, own in value.items()}
        return [short(own) for own in value] if isinstance(value, list | tuple) else value

    sections = [
        replace(section, figures=tuple(replace(figure, data=short(figure.data)) for figure in section.figures))
        for section in document.sections
    ]
    return replace(document, sections=tuple(sections))


def load_kept(folder: Path) -> dict[str, Kept]:
    """Returns all studies that ``collect`` wrote into a folder, by name.

    Raises:
      WsrError: a file is damaged or lacks its companion; the message names it.
    """
    kept = {}
    for file in sorted(folder.glob("*.jsonl.gz")):
        name = file.name.removesuffix(".jsonl.gz")
        try:
            about, *rows = (json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines())
            document = Document.from_json((folder / f"{name}.json").read_text(encoding="utf-8"))
            kept[name] = Kept(about["command"], about["commit"], rows, document, _probe(about, rows))
        except (OSError, EOFError, ValueError, KeyError) as error:
            raise WsrError(f"{file}: cannot be read ({error}); collect the run again") from error
    return kept


def rendered(page: str, kept: Mapping[str, Kept], *, results: str = "results") -> str:
    """Returns a page with every block rendered anew.

    Args:
      page: the Markdown text.
      kept: the studies, by name.
      results: path of the studies' folder as seen from the page.

    Raises:
      WsrError: a block selects no row or figure, or is not closed.
    """
    if len(re.findall(rf"<!-- (?:{_KIND}): ", page)) != len(_BLOCK.findall(page)):
        raise WsrError("page: a block is not closed; add <!-- end -->")
    place = PurePosixPath(results)

    def block(found: re.Match) -> str:
        opening, kind, words, _, closing = found.groups()
        name, *options = shlex.split(words)
        if name not in kept:
            return f"{opening}Not run: there is no {place / name}.jsonl.gz.\n{closing}"
        return opening + _KINDS[kind](name, kept[name], options, place) + closing

    return _BLOCK.sub(block, page)


def chosen_rows(kept: Kept, values: Mapping[str, str]) -> list[dict[str, Any]]:
    """Returns the study's rows that have each of the named values."""
    return [row for row in kept.rows if all(_told(_field(row, key)) == value for key, value in values.items())]


def verdicts(kept: Kept) -> list[str]:
    """Returns the distinct verdicts of a study's sections, in order."""
    return list(dict.fromkeys(section.verdict for section in kept.document.sections))


def figure_files(name: str, document: Document) -> list[tuple[str, str]]:
    """Returns the path of each figure, relative to the folder of the studies, and its title."""
    titles = [figure.title for section in document.sections for figure in section.figures]
    return [(f"figures/{name}.{number}.svg", title) for number, title in enumerate(titles)]


def markdown_table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Returns a table as Markdown."""
    lines = [header, ["---"] * len(header), *body]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


def _table(name: str, kept: Kept, options: Sequence[str], results: PurePosixPath) -> str:
    chosen = dict(option.split("=", 1) for option in options)
    by = chosen.pop("by", "group,dataset").split(",")
    across, columns = chosen.pop("across", None), chosen.pop("columns", "")
    interval, folded = (chosen.pop(option, None) == "yes" for option in ("interval", "folded"))
    if across is None and "metric" not in chosen and "metric" not in by:
        by.append("metric")
    groups: dict[tuple[str, ...], list[dict]] = {}
    for row in chosen_rows(kept, chosen):
        if all(_field(row, key) is not None for key in (*by, *([across] if across else []))):
            groups.setdefault(tuple(_plain(_field(row, key)) for key in by), []).append(row)
    if not groups:
        wanted = [*(f"{key}={value}" for key, value in chosen.items()), *by, *([across] if across else [])]
        raise WsrError(f"page: table of {name}: no row has {', '.join(wanted)}")
    labels = [key.replace("_", " ") for key in by]
    header, body = _wide(groups, across, columns, interval) if across else _long(groups, chosen.get("metric", "value"))
    rows = [[*place, *cells] for place, cells in zip(groups, body, strict=True)]
    table = markdown_table([*labels, *header], rows)
    if folded or len(rows) > _LONGEST_UNFOLDED:
        table = _folded(f"{len(rows)} lines: {', '.join([*labels, *header])}", table)
    return f"{table}\n{_source(name, kept, results)}"


def _long(groups: Mapping[tuple[str, ...], list[dict]], metric: str) -> tuple[list[str], list[list[str]]]:
    """Returns the header and, for each line, its value, interval and p, or the mean and range of several rows."""
    if all(len(rows) == 1 for rows in groups.values()):
        single = [rows[0] for rows in groups.values()]
        columns = [key for key in ("low", "p_holm") if any(key in row for row in single)]
        header = [_plain(metric), *({"low": "95 % interval", "p_holm": "p, Holm"}[key] for key in columns)]
        return header, [[_number(row["value"]), *(_end(row, key) for key in columns)] for row in single]
    header = ["values", f"{_plain(metric)}: mean", "range"]
    return header, [[str(len(rows)), *_spread(rows)] for rows in groups.values()]


def _wide(
    groups: Mapping[tuple[str, ...], list[dict]], across: str, shown: str, interval: bool
) -> tuple[list[str], list[list[str]]]:
    """Returns the header and the cells, a column for each value of ``across``: a value, or the mean of several rows."""
    found = dict.fromkeys(_plain(_field(row, across)) for rows in groups.values() for row in rows)
    columns = shown.split("|") if shown else list(found)
    body = []
    for rows in groups.values():
        cells = {column: [row for row in rows if _plain(_field(row, across)) == column] for column in columns}
        body.append([_cell(own, interval) if own else "–" for own in cells.values()])
    return columns, body


def _cell(rows: Sequence[Mapping[str, Any]], interval: bool) -> str:
    if len(rows) > 1:
        return _spread(rows)[0]
    if rows[0]["metric"] in _COUNTS:
        return f"{rows[0]['value']:,.0f}"
    value, end = _number(rows[0]["value"]), _end(rows[0], "low")
    return f"{value} ({end})" if interval and end not in ("–", f"{value} to {value}") else value


def _source(name: str, kept: Kept, results: PurePosixPath) -> str:
    probe = f", {kept.probe}" if kept.probe else ""
    return f"`{kept.command}`, commit `{kept.commit}`{probe}, [rows]({results / name}.jsonl.gz)\n"


def _probe(about: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str | None:
    preset = about.get("plan", {}).get("preset")
    if preset is None or not any(row["metric"] in _PROBED for row in rows):
        return None
    # Plans of earlier versions fix C and name no draws.
    return Protocol(preset["probe"], preset["inverse_l2"] or None, preset.get("draws", 1)).told


def _findings(name: str, kept: Kept, options: Sequence[str], results: PurePosixPath) -> str:
    lines = []
    for section in kept.document.sections:
        lines += [f"- **{section.title}: {section.verdict}.** {section.measured}."]
        lines += [f"  - {sentence}" for sentence in (*section.text, section.power) if sentence]
    return "".join(f"{line}\n" for line in dict.fromkeys(lines))  # without repetitions


def _figures(name: str, kept: Kept, options: Sequence[str], results: PurePosixPath) -> str:
    files = figure_files(name, kept.document)
    captions = [figure.caption for section in kept.document.sections for figure in section.figures]
    numbers = [int(option) for option in options] or range(len(files))
    if any(number >= len(files) for number in numbers):
        raise WsrError(f"page: figures of {name}: expected numbers below {len(files)}, got {' '.join(options)}")
    made = []
    for number in numbers:
        file, title = files[number]
        heading = f"*{title[:1].upper()}{title[1:]}.* {captions[number]}".rstrip()
        made.append(f"{heading}<br>![{title}]({results / file})\n")
    return "\n".join(made)


def _verdict(name: str, kept: Kept, options: Sequence[str], results: PurePosixPath) -> str:
    """Returns the verdict with its power: one line if the sections agree, else one line for each."""
    sections = kept.document.sections
    powers = list(dict.fromkeys(section.power for section in sections))
    if len(verdicts(kept)) == 1 and len(powers) == 1:
        return f"**Verdict: {verdicts(kept)[0]}.** {powers[0]}".rstrip() + "\n"
    return "".join(f"- **{own.title}: {own.verdict}.** {own.power}".rstrip() + "\n" for own in sections)


_KINDS: Mapping[str, Callable[[str, Kept, Sequence[str], PurePosixPath], str]] = {
    "table": _table,
    "findings": _findings,
    "figures": _figures,
    "verdict": _verdict,
}


def _folded(summary: str, table: str) -> str:
    """Returns a table folded behind a line to click on; mkdocs needs the attribute to read Markdown inside HTML."""
    return f'<details markdown="1"><summary>{summary}</summary>\n\n{table}\n</details>\n'


def _field(row: Mapping[str, Any], key: str) -> Any:
    """Returns a row's value; ``measure`` and ``method`` are the halves of a metric "measure, method"."""
    if key not in ("measure", "method") or key in row:
        return row.get(key)
    measure, comma, method = row["metric"].partition(", ")
    return (measure if key == "measure" else method) if comma else None


def _plain(value: object) -> str:
    """Returns a value as tables show it."""
    text = _told(value)
    for name, plain in _PLAIN.items():
        text = text.replace(name, plain)
    return text


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
    """Returns the mean, and the range from the smallest to the largest value."""
    values = [row["value"] for row in rows if row["value"] is not None]
    if not values:
        return ["–", "–"]
    return [_number(float(np.mean(values))), f"{_number(min(values))} to {_number(max(values))}"]
