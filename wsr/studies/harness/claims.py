"""The table of claims and the figure of each, made from ``claims.toml`` and the rows kept beside it.

The file lists claims in groups (``[[paper]]``, ``[[beyond]]``). ``here`` and ``shows`` are sentences; ``{name}`` stands
for the mean of the rows that ``values.name`` selects, ``{name.interval}`` for the 95 % interval of its only row.
On a page ``<!-- claims: GROUP -->`` opens a table, ``<!-- pictures: GROUP -->`` the figures; ``<!-- end -->`` closes.
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
"""What opens a block of claims on a page."""

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
    """A line of the table, and the figure below it."""

    study: str
    claim: str
    """What is claimed, in one plain sentence."""
    here: str
    """What this project measured, in a few words."""
    shows: str
    """What the figure shows, in one or two sentences."""
    paper: str = ""
    """The paper's figure."""
    figure: int = 0
    """Which of the study's figures."""
    page: str = ""
    """The study's page, where it is not ``STUDY.md`` beside its rows."""
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Name to the rows it stands for, and under ``as`` one of percent, points, nats and number."""


@dataclass(frozen=True)
class _Value:
    """What a name in a sentence stands for."""

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
    """Reads the claims by group.

    Raises:
      WsrError: where the file is absent or no such file.
    """
    try:
        groups = tomllib.loads(file.read_text(encoding="utf-8"))
        return {group: [Claim(**claim) for claim in claims] for group, claims in groups.items()}
    except (OSError, TypeError, ValueError) as error:
        raise WsrError(f"{file}: cannot be read as claims ({error})") from error


def rendered_claims(page: str, claims: Mapping[str, Sequence[Claim]], kept: Mapping[str, Kept], results: str) -> str:
    """Returns the page with every block of claims made anew; ``results`` is the folder of the studies from the page.

    Raises:
      WsrError: where a group, a study or the rows of a value do not exist, or a block is not closed.
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
    """A line a claim; the paper's column only where the paper says anything."""
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
    """A paragraph a claim: the claim, what the figure shows, and the figure below it."""
    made = []
    for number, claim in claims:
        file, title = figure_files(claim.study, kept[claim.study].document)[claim.figure]
        shows = _filled(claim.shows, claim, kept)
        verdict = _verdict(claim, kept).capitalize()
        made.append(f"**{number}. {claim.claim}** *{verdict}.* {shows}<br>![{title}]({results / file})\n")
    return "\n".join(made)


def _verdict(claim: Claim, kept: Mapping[str, Kept]) -> str:
    """What the study says; several verdicts in the order of its sections."""
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
