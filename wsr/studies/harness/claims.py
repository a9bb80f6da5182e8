"""Renders tables and figures of claims into pages, from ``claims.toml`` and the rows kept beside it.

The file lists claims in groups (``[[paper]]``, ``[[beyond]]``). In the sentences ``here`` and ``shows``, ``{name}``
stands for the mean of the rows that ``values.name`` selects, and ``{name.interval}`` for the 95 % interval of its only
row. On a page ``<!-- claims: GROUP -->`` opens a table and ``<!-- pictures: GROUP -->`` the figures; ``<!-- end -->``
closes either.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from wsr.errors import WsrError
from wsr.studies.harness.results import Kept, chosen_rows, figure_files, markdown_table, verdicts

CLAIMS = "<!-- claims: "
"""Opens a block of claims on a page."""

_BLOCK = re.compile(r"(<!-- (claims|pictures): (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_NO_BREAK = "\u00a0"
_FORMATS = {
    "percent": lambda value: f"{100 * value:.0f} %",
    "points": lambda value: f"{100 * value:+.1f}",
    "nats": lambda value: f"{value:+.3f}",
    "number": lambda value: f"{value:.3f}",
}
"""Points are hundredths of an accuracy, and nats differences of a loss, so both have a sign."""


@dataclass(frozen=True)
class Claim:
    """A claim: a line of the table, and the figure that shows it."""

    study: str
    claim: str
    """The claim, in one plain sentence."""
    here: str
    """The measurement of this project, in a few words."""
    shows: str
    """Describes the figure in one or two sentences."""
    paper: str = ""
    """The value in the paper."""
    figure: int = 0
    """Number of the figure among the study's figures."""
    page: str = ""
    """The study's page; empty: ``STUDY.md`` beside its rows."""
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """For each name in the sentences, the values that select its rows, and under ``as`` its format: percent, points,
    nats or number."""


@dataclass(frozen=True)
class _Value:
    """The rows that a name in a sentence stands for, with their format."""

    rows: Sequence[Mapping[str, Any]]
    form: str

    def __str__(self) -> str:
        return _FORMATS[self.form](float(np.mean([row["value"] for row in self.rows])))

    @property
    def interval(self) -> str:
        if len(self.rows) != 1 or "low" not in self.rows[0]:
            raise WsrError("claims: an interval needs exactly one row, and one that has an interval")
        return " to ".join(_FORMATS[self.form](self.rows[0][end]) for end in ("low", "high"))


def load_claims(file: Path) -> dict[str, list[Claim]]:
    """Returns the claims in a file, by group.

    Raises:
      WsrError: the file is absent or does not hold claims.
    """
    try:
        groups = tomllib.loads(file.read_text(encoding="utf-8"))
        return {group: [Claim(**claim) for claim in claims] for group, claims in groups.items()}
    except (OSError, TypeError, ValueError) as error:
        raise WsrError(f"{file}: cannot be read as claims ({error})") from error


def rendered_claims(page: str, claims: Mapping[str, Sequence[Claim]], kept: Mapping[str, Kept], results: str) -> str:
    """Returns a page with every block of claims rendered anew.

    Args:
      page: the Markdown text.
      claims: the claims, by group.
      kept: the studies, by name.
      results: path of the studies' folder as seen from the page.

    Raises:
      WsrError: a group, a study or the rows of a value do not exist, or a block is not closed.
    """
    if len(re.findall(r"<!-- (?:claims|pictures): ", page)) != len(_BLOCK.findall(page)):
        raise WsrError("page: a block of claims is not closed by <!-- end -->")
    order = [claim for group in claims.values() for claim in group]
    for claim in order:
        if claim.study not in kept:
            raise WsrError(f"claims: {claim.claim!r} names the study {claim.study}, which has no rows")

    def block(found: re.Match) -> str:
        opening, kind, group, _, closing = found.groups()
        if group not in claims:
            raise WsrError(f"page: there is no group of claims {group!r}; expected one of {', '.join(claims)}")
        numbered = [(order.index(claim) + 1, claim) for claim in claims[group]]
        made = _table if kind == "claims" else _pictures
        return opening + made(numbered, kept, PurePosixPath(results)) + closing

    return _BLOCK.sub(block, page)


def _table(claims: Sequence[tuple[int, Claim]], kept: Mapping[str, Kept], results: PurePosixPath) -> str:
    """Returns a table with a line for each claim, and a column of the paper's values if there are any."""
    paper = any(claim.paper for _, claim in claims)
    header = ["claim", *(["the paper"] if paper else []), "here", "verdict"]
    body = []
    for number, claim in claims:
        verdict = _verdict(claim, kept)
        linked = f"{number}. [{claim.claim.rstrip('.')}]({_page(claim, results)})"
        cells = [linked, *([claim.paper] if paper else []), _filled(claim.here, claim, kept), f"**{verdict}**"]
        body.append([cell.replace(" %", f"{_NO_BREAK}%") for cell in cells])
    return markdown_table(header, body)


def _pictures(claims: Sequence[tuple[int, Claim]], kept: Mapping[str, Kept], results: PurePosixPath) -> str:
    """Returns a paragraph for each claim: the claim, a description of its figure, and the figure."""
    made = []
    for number, claim in claims:
        file, title = figure_files(claim.study, kept[claim.study].document)[claim.figure]
        shows = _filled(claim.shows, claim, kept)
        verdict = _verdict(claim, kept).capitalize()
        made.append(f"**{number}. {claim.claim}** *{verdict}.* {shows}<br>![{title}]({results / file})\n")
    return "\n".join(made)


def _verdict(claim: Claim, kept: Mapping[str, Kept]) -> str:
    """Returns the study's verdict, or its several verdicts in the order of its sections."""
    return ", then ".join(verdicts(kept[claim.study]))


def _page(claim: Claim, results: PurePosixPath) -> str:
    return claim.page or f"{results / claim.study}.md"


def _filled(sentence: str, claim: Claim, kept: Mapping[str, Kept]) -> str:
    values = {}
    for name, chosen in claim.values.items():
        rows = chosen_rows(kept[claim.study], {key: value for key, value in chosen.items() if key != "as"})
        if not rows:
            raise WsrError(f"claims: {claim.study}: no row has {', '.join(f'{k}={v}' for k, v in chosen.items())}")
        values[name] = _Value(rows, chosen["as"])
    try:
        return sentence.format(**values)
    except KeyError as error:
        raise WsrError(f"claims: {claim.study}: {sentence!r} names {error}, which its values do not have") from error
