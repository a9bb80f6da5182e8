"""The report as one HTML file that needs nothing else: no script, no font, no request."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from wsr.report.document import Document, Figure, Section
from wsr.report.figures import draw, missing
from wsr.report.html import framed
from wsr.report.style import readable
from wsr.report.tables import table_html
from wsr.runtime.atomic import write_atomically

# The kinds of the two figures that stand beside the findings.
STORY = ("heatmap", "map")
_UP = '<a class="up" href="#contents">Contents</a>'
# A verdict is told by its shape and its words, and only then by its colour.
_MARKS = {
    "holds": '<path d="M3.5 8.5l3 3 6-7" />',
    "holds in part": '<path d="M2.5 9.5c2-3.4 3.7-3.4 5.5-1.5s3.5 1.9 5.5-1.5" />',
    "refuted": '<path d="M4 4l8 8M12 4l-8 8" />',
    "no effect": '<path d="M3 6.2h10M3 9.8h10" />',
    "open": '<circle cx="8" cy="8" r="4.5" />',
    "not tested": '<circle cx="8" cy="8" r="4.5" stroke-dasharray="2 2.4" />',
}


def write_page(document: Document, path: str | Path) -> None:
    """Writes the report to ``path``, whole or not at all; raises WsrError where that cannot be."""
    write_atomically(Path(path), page_html(document).encode())


def page_html(document: Document) -> str:
    """Returns the report as the text of an HTML file: what was found, an index, what was run, a section a question."""
    story = _story(document.sections)
    command = document.facts.get("command", "")
    sections = "\n".join(
        _section(section, number, story, command) for number, section in enumerate(document.sections, start=1)
    )
    body = f"""
<header><h1>{_text(document.title)}</h1></header>
<main>
{_findings(document)}
{_pictures(story)}
{_index(document.sections)}
{_facts(document)}
{sections}
</main>
<footer><p class="caption">Point at a mark of a figure to see its name and value.</p></footer>
"""
    return framed(document.title, body, skip=("findings", "Skip to the findings"))


def _story(sections: Sequence[Section]) -> tuple[Figure, ...]:
    """The heat map and the map of the first section that has both: they stand beside the findings."""
    for section in sections:
        first = {kind: next((own for own in section.figures if own.kind == kind), None) for kind in STORY}
        if all(first.values()):
            return tuple(own for own in first.values() if own)
    return ()


def _findings(document: Document) -> str:
    lines = "".join(
        f"<li>{_verdict(section.verdict) if section.paper else ''}<span>{_text(section.headline)} "
        f'<a href="#s{number}" aria-label="Section {number}: {_text(section.title)}">{number}</a></span></li>'
        for number, section in enumerate(document.sections, start=1)
        if section.headline
    ) or "".join(f"<li><span>{_text(line)}</span></li>" for line in document.summary)
    told = f'<ul class="summary">{lines}</ul>' if lines else ""
    return f'<div class="findings" id="findings" tabindex="-1"><h2>What was found</h2>{told}</div>'


def _pictures(story: Sequence[Figure]) -> str:
    drawn = "".join(_figure(figure, f"story{place}-") for place, figure in enumerate(story))
    return f'<div class="figures story">{drawn}</div>' if drawn else ""


def _index(sections: Sequence[Section]) -> str:
    """A line for each section: its claim, what the paper says, what was found here, and the verdict."""
    if not sections:
        return ""
    claims = any(section.paper for section in sections)
    columns = ("Claim", "The paper", "Here", "Verdict") if claims else ("Question", "Here")
    head = "".join(f'<th scope="col" class="label">{column}</th>' for column in columns)
    lines = ""
    for number, section in enumerate(sections, start=1):
        link = f'<a href="#s{number}">{number}. {_text(section.title)}</a>'
        paper = f'<td class="muted">{_text(section.paper_short or section.paper) or "–"}</td>' if claims else ""
        verdict = f"<td>{_verdict(section.verdict) if section.paper else '–'}</td>" if claims else ""
        here = f"<td>{_text(section.measured_short or section.measured)}</td>"
        lines += f'<tr><th scope="row">{link}</th>{paper}{here}{verdict}</tr>'
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"
    return f'<nav id="contents" class="index{"" if claims else " own"}" aria-label="Contents">{table}</nav>'


def _facts(document: Document) -> str:
    entries = []
    for name, fact in document.facts.items():
        if name == "command":
            entries.append(f'<div class="wide"><dt class="label">{_text(name)}</dt><dd>{_code(fact)}</dd></div>')
        else:
            entries.append(f'<div><dt class="label">{_text(name)}</dt><dd>{_text(fact)}</dd></div>')
    if not entries:
        return ""
    return f'<div class="run"><h2>What was run</h2><dl class="facts">{"".join(entries)}</dl></div>'


def _section(section: Section, number: int, story: Sequence[Figure], of_all: str) -> str:
    paragraphs = "".join(f"<p>{_text(paragraph)}</p>" for paragraph in section.text)
    own = [figure for figure in section.figures if not any(figure is shown for shown in story)]
    figures = "".join(_figure(figure, f"s{number}f{count}-") for count, figure in enumerate(own))
    above = [figure.title for figure in section.figures if any(figure is shown for shown in story)]
    if above:
        paragraphs += f'<p class="muted">At the <a href="#findings">top of the page</a>: {_text("; ".join(above))}.</p>'
    tables = "".join(table_html(table) for table in section.tables if table.rows)
    command = f'<div class="command"><span class="label">To reproduce</span>{_code(section.command)}</div>'
    verdict = _verdict(section.verdict) if section.paper else ""
    return f"""<section id="s{number}" aria-labelledby="h{number}">
<div class="heading"><h2 id="h{number}">{number}. {_text(section.title)}</h2>{verdict}{_UP}</div>
<p class="question">{_text(section.question)}</p>
{f'<p class="headline">{_text(section.headline)}</p>' if section.headline else ""}
{_beside(section) if section.paper else ""}
{paragraphs}
{f'<div class="figures">{figures}</div>' if figures else ""}
{tables}
{command if section.command not in ("", of_all) else ""}
</section>"""


def _beside(section: Section) -> str:
    return f"""<dl class="beside">
<div><dt class="label">The paper</dt><dd>{_text(section.paper)}</dd></div>
<div><dt class="label">Measured here</dt>{_parts(section.measured)}{_power(section.power)}</div>
</dl>"""


def _parts(measured: str) -> str:
    """Each part of what was measured on a line of its own."""
    return "".join(f"<dd>{_text(part)}</dd>" for part in measured.split("; "))


def _power(power: str) -> str:
    return f'<dd class="muted">{_text(power)}</dd>' if power else ""


def _figure(figure: Figure, prefix: str) -> str:
    caption = " ".join(filter(None, (figure.caption, missing(figure))))
    return (
        f"<figure><h3>{_text(figure.title)}</h3>{draw(figure, prefix)}"
        f'<figcaption><p class="caption">{_text(caption)}</p></figcaption></figure>'
    )


def _verdict(verdict: str) -> str:
    icon = (
        '<svg viewBox="0 0 16 16" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" '
        f'stroke-linejoin="round" aria-hidden="true">{_MARKS[verdict]}</svg>'
    )
    return f'<span class="verdict {verdict.replace(" ", "-")}">{icon}{verdict}</span>'


def _code(command: str) -> str:
    # A line breaks between words, never within a flag, as browsers like to do after a hyphen.
    lines = (
        " ".join(f'<span class="word">{escape(readable(word))}</span>' for word in line.split(" "))
        for line in command.splitlines()
    )
    return "<pre><code>" + "\n".join(lines) + "</code></pre>"


def _text(text: str) -> str:
    return escape(readable(text)).replace(" %", "\u00a0%")
