"""What a report says, apart from how it looks: findings, figures and tables as JSON-able data.

A figure holds the numbers it shows, never a picture. Its ``data`` by ``kind`` (``?``: may be left out):

    heatmap    matrix [n, n], names [n], groups [n], value_label?, vmin?, vmax?
    map        x [n], y [n], names [n], groups [n], families? [n], marks? [{x, y, label}]
    curves     series [{name, x, y, group?, low?, high?}], x_label, y_label,
               x_scale? "linear" | "log" | "symlog", marks? [{x, label}]: vertical lines
    groups     panels [{title, groups [{name, values, names?}]}], y_label
    intervals  rows [{name, series [{name, mean, low?, high?, values?}]}], x_label
    contours   x [n], y [m], values [m, n], x_label, y_label, value_label,
               outlines? [{x, y}], marks? [{x, y, label, group?}]: one shape for each group
    dendrogram merges [{left, right, height}], names [n], groups [n], height_label, cut?: branches are the n models in
               order, then the n - 1 merges in order
    triangle   corners [3], coefficients [n, 3], values [n], value_label, marks? [{coefficients, label, group?}]

NaN and infinity become None (JSON has neither): a number that is missing, which a figure counts and says so.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

from wsr.errors import WsrError
from wsr.runtime import strict_json

VERDICTS = ("holds", "holds in part", "refuted", "no effect", "open", "not tested")
"""The five verdicts on a claim (``wsr.studies.harness.verdict`` has their rules), and that of a claim not tested."""
_EARLIER = {"partly": "holds in part", "does not hold": "refuted", "not settled": "open"}
"""Verdicts in documents of earlier versions."""

Cell = str | float | int | None

# For each kind of figure its data: key -> what it holds; "?" marks a key that may be left out.
# Records inside records are written "outer.inner".
_SCHEMA: Mapping[str, Mapping[str, str]] = {
    "heatmap": {
        "matrix": "matrix",
        "names": "texts",
        "groups": "texts",
        "value_label?": "text",
        "vmin?": "number",
        "vmax?": "number",
    },
    "map": {
        "x": "numbers",
        "y": "numbers",
        "names": "texts",
        "groups": "texts",
        "families?": "texts",
        "marks?": "records",
    },
    "map.marks": {"x": "number", "y": "number", "label": "text"},
    "curves": {
        "series": "records",
        "x_label": "text",
        "y_label": "text",
        "x_scale?": "text",
        "marks?": "records",
    },
    "curves.series": {
        "name": "text",
        "x": "numbers",
        "y": "numbers",
        "group?": "text",
        "low?": "numbers",
        "high?": "numbers",
    },
    "curves.marks": {"x": "number", "label": "text"},
    "groups": {"panels": "records", "y_label": "text"},
    "groups.panels": {"title": "text", "groups": "records"},
    "groups.panels.groups": {"name": "text", "values": "numbers", "names?": "texts"},
    "intervals": {"rows": "records", "x_label": "text"},
    "intervals.rows": {"name": "text", "series": "records"},
    "intervals.rows.series": {
        "name": "text",
        "mean": "number",
        "low?": "number",
        "high?": "number",
        "values?": "numbers",
    },
    "contours": {
        "x": "numbers",
        "y": "numbers",
        "values": "matrix",
        "x_label": "text",
        "y_label": "text",
        "value_label": "text",
        "outlines?": "records",
        "marks?": "records",
    },
    "contours.outlines": {"x": "numbers", "y": "numbers"},
    "contours.marks": {"x": "number", "y": "number", "label": "text", "group?": "text"},
    "dendrogram": {
        "merges": "records",
        "names": "texts",
        "groups": "texts",
        "height_label": "text",
        "cut?": "number",
    },
    "dendrogram.merges": {"left": "number", "right": "number", "height": "number"},
    "triangle": {
        "corners": "texts",
        "coefficients": "matrix",
        "values": "numbers",
        "value_label": "text",
        "marks?": "records",
    },
    "triangle.marks": {"coefficients": "numbers", "label": "text", "group?": "text"},
}
# Keys that hold one entry for each entry of another key of the same record.
_PARALLEL: Mapping[str, tuple[str, ...]] = {
    "heatmap": ("names", "matrix", "groups"),
    "map": ("names", "x", "y", "groups", "families"),
    "curves.series": ("x", "y", "low", "high"),
    "groups.panels.groups": ("values", "names"),
    "dendrogram": ("names", "groups"),
    "contours": ("y", "values"),
    "contours.outlines": ("x", "y"),
    "triangle": ("values", "coefficients"),
}
# The length of each row of a matrix: a number, or that of another key.
_ROW_LENGTHS: Mapping[str, tuple[str, str | int]] = {
    "heatmap": ("matrix", "names"),
    "contours": ("values", "x"),
    "triangle": ("coefficients", 3),
}
KINDS = tuple(kind for kind in _SCHEMA if "." not in kind)
X_SCALES = ("linear", "log", "symlog")


@dataclass(frozen=True)
class Figure:
    """One picture: what it shows, and the numbers for it (see the top of this file)."""

    kind: str
    title: str
    caption: str
    data: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise WsrError(f"figure {self.title!r}: unknown kind {self.kind!r}; expected one of {', '.join(KINDS)}")
        object.__setattr__(self, "data", _plain(self.data))
        _check_record(self.data, self.kind, f"figure {self.title!r}")
        if self.kind in _ROW_LENGTHS:
            key, wanted = _ROW_LENGTHS[self.kind]
            length = wanted if isinstance(wanted, int) else len(self.data[wanted])
            if any(len(row) != length for row in self.data[key]):
                raise WsrError(f"figure {self.title!r}: {key} is not {length} values in each row")
        if self.kind == "dendrogram":
            _check_tree(self.data, f"figure {self.title!r}")
        if self.kind == "triangle" and len(self.data["corners"]) != 3:
            raise WsrError(f"figure {self.title!r}: a triangle has 3 corners, not {len(self.data['corners'])}")
        if (self.data.get("x_scale") or "linear") not in X_SCALES:
            raise WsrError(f"figure {self.title!r}: x_scale {self.data['x_scale']!r} is not one of {X_SCALES}")


@dataclass(frozen=True)
class Table:
    """Rows of cells under column names; None is shown as a dash."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(tuple(map(_cell, row)) for row in self.rows))
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise WsrError(f"table {self.title!r}: row {number} has {len(row)} cells, not {len(self.columns)}")


@dataclass(frozen=True)
class Section:
    """One question of a study: the paper's answer, the measured one, and whether the claim holds here.

    ``title`` is the claim in a few words. ``paper`` is empty where somebody asks about models of their own: there is
    no claim then, and no verdict is shown. Documents of earlier versions have no headline and no short forms, and
    other words for verdicts, which are replaced.
    """

    title: str
    question: str
    paper: str
    measured: str
    verdict: str
    text: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    command: str = ""
    headline: str = ""
    """The finding as one sentence for a reader who does not know the field; without intervals."""
    paper_short: str = ""
    """The paper's answer on one line of the index, at most 44 letters."""
    measured_short: str = ""
    """The measured answer on one line of the index, at most 44 letters."""
    power: str = ""
    """The smallest effect that the data could have shown, as a sentence; empty where the verdict needs no interval."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "verdict", _EARLIER.get(self.verdict, self.verdict))
        if self.verdict not in VERDICTS:
            raise WsrError(f"section {self.title!r}: verdict {self.verdict!r} is not one of {', '.join(VERDICTS)}")


@dataclass(frozen=True)
class Document:
    """A whole report: what was run, and a section for each question.

    ``summary`` is for a terminal; a page shows it only where no section has a headline.
    """

    title: str
    summary: tuple[str, ...]
    facts: Mapping[str, str] = field(default_factory=dict)
    sections: tuple[Section, ...] = ()

    def to_json(self) -> str:
        """Returns the document as strict JSON text."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, allow_nan=False, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Document":
        """Reads what ``to_json`` wrote; raises WsrError for anything that is not exactly a document."""
        try:
            record = strict_json.parse(text)
        except ValueError as error:
            raise WsrError(f"report: not JSON ({error})") from None
        return _read(cls, record, "report")


_Record = TypeVar("_Record", Document, Section, Table, Figure)


def _read(cls: type[_Record], record: object, where: str) -> _Record:
    hints = get_type_hints(cls)
    required = {f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING}
    values = dict(_check_keys(record, frozenset(required), frozenset(hints) - required, where))
    for name, value in values.items():
        values[name] = _field(hints[name], value, f"{where}: {name}")
    return cls(**values)


def _field(hint: Any, value: Any, where: str) -> Any:
    """Returns ``value`` as the type that a field of a record declares."""
    if get_origin(hint) is tuple:
        _expect(value, list, where)
        inner = get_args(hint)[0]
        return tuple(_field(inner, entry, f"{where} {number}") for number, entry in enumerate(value))
    if get_origin(hint) is Mapping:
        _expect(value, dict, where)
        inner = get_args(hint)[1]
        return {key: _field(inner, entry, f"{where} {key!r}") for key, entry in value.items()}
    if hint is Any:
        return value
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _read(hint, value, where)  # type: ignore[type-var]
    if hint is str:
        _expect(value, str, where)
    elif isinstance(value, bool | list | dict):
        raise WsrError(f"{where}: expected text, a number or null, found {type(value).__name__}")
    return value


def _check_record(record: object, kind: str, where: str) -> None:
    holds = {key.rstrip("?"): what for key, what in _SCHEMA[kind].items()}
    optional = frozenset(key[:-1] for key in _SCHEMA[kind] if key.endswith("?"))
    data = _check_keys(record, frozenset(holds) - optional, optional, where)
    present = {key: value for key, value in data.items() if not (key in optional and value is None)}
    for key, value in present.items():
        if holds[key] == "records":
            _expect(value, list, f"{where}: {key}")
            for number, inner in enumerate(value):
                _check_record(inner, f"{kind}.{key}", f"{where}: {key} {number}")
        elif not _holds(value, holds[key]):
            raise WsrError(f"{where}: {key}: expected {holds[key]}, found {json.dumps(value)[:60]}")
    lengths = {key: len(present[key]) for key in _PARALLEL.get(kind, ()) if key in present}
    if len(set(lengths.values())) > 1:
        raise WsrError(f"{where}: one entry each expected, found {', '.join(f'{k} {n}' for k, n in lengths.items())}")


def _check_tree(data: Mapping[str, Any], where: str) -> None:
    """Raises unless every branch but the last, which is the whole tree, is merged once and after it was made."""
    models, merges = len(data["names"]), data["merges"]
    used = [branch for merge in merges for branch in (merge["left"], merge["right"])]
    made = [
        branch < models + number for number, merge in enumerate(merges) for branch in (merge["left"], merge["right"])
    ]
    if sorted(used) != list(range(2 * len(merges))) or len(merges) != max(models - 1, 0) or not all(made):
        raise WsrError(f"{where}: {len(merges)} merges do not make one tree of {models} models")


def _holds(value: object, what: str) -> bool:
    if what == "text":
        return isinstance(value, str)
    if what == "number":
        return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    inner = {"texts": "text", "numbers": "number", "matrix": "numbers"}[what]
    return isinstance(value, list) and all(_holds(entry, inner) for entry in value)


def _check_keys(record: object, required: frozenset[str], optional: frozenset[str], where: str) -> dict[str, Any]:
    _expect(record, dict, where)
    assert isinstance(record, dict)
    missing, unknown = sorted(required - record.keys()), sorted(record.keys() - required - optional)
    if missing or unknown:
        raise WsrError(f"{where}: missing {missing}, unknown {unknown}; expected {sorted(required | optional)}")
    return record


def _expect(value: object, kind: type, where: str) -> None:
    if not isinstance(value, kind):
        raise WsrError(f"{where}: expected a {kind.__name__}, found {type(value).__name__}")


def _plain(value: Any) -> Any:
    """Returns ``value`` of plain JSON types only."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, str) or value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Sequence):
        return [_plain(inner) for inner in value]
    return _plain(np.asarray(value).tolist())  # a NumPy or JAX array


def _cell(value: Any) -> Cell:
    if isinstance(value, float | np.floating) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    plain = _plain(value)
    return str(plain) if isinstance(plain, bool | list | dict) else plain
