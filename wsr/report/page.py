"""The report as one HTML file that needs nothing else: no script, no font, no request."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from wsr.report.document import Document, Figure, Section
from wsr.report.figures import draw, missing
from wsr.report.style import readable
from wsr.report.stylesheet import STYLESHEET
from wsr.report.tables import table_html
from wsr.runtime.atomic import write_atomically

# Styles stand in the file itself; nothing may be loaded, sent or run.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_UP = '<a class="up" href="#contents">Contents</a>'
# A verdict is told by its shape and its words, and only then by its colour.
_MARKS = {
    "holds": '<path d="M3.5 8.5l3 3 6-7" />',
    "partly": '<path d="M2.5 9.5c2-3.4 3.7-3.4 5.5-1.5s3.5 1.9 5.5-1.5" />',
    "does not hold": '<path d="M4 4l8 8M12 4l-8 8" />',
    "not settled": '<path d="M3 6.2h10M3 9.8h10" />',
    "not tested": '<circle cx="8" cy="8" r="4.5" stroke-dasharray="2 2.4" />',
}


def write_page(document: Document, path: str | Path) -> None:
    """Writes the report to ``path``, whole or not at all; raises WsrError where that cannot be."""
    write_atomically(Path(path), page_html(document).encode())


def page_html(document: Document) -> str:
    """Returns the report as the text of an HTML file."""
    sections = "\n".join(_section(section, number) for number, section in enumerate(document.sections, start=1))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{_text(document.title)}</title>
<link rel="icon" href="data:,">
<style>{STYLESHEET}</style>
</head>
<body>
<header>
<h1>{_text(document.title)}</h1>
{_facts(document)}
</header>
<main>
{_findings(document)}
{sections}
</main>
<footer><p class="caption">Hover over a mark of a figure for its name and value.</p></footer>
</body>
</html>
"""


def _facts(document: Document) -> str:
    entries = []
    for name, fact in document.facts.items():
        if name == "command":
            entries.append(f'<div class="wide"><dt class="label">{_text(name)}</dt><dd>{_code(fact)}</dd></div>')
        else:
            entries.append(f'<div><dt class="label">{_text(name)}</dt><dd>{_text(fact)}</dd></div>')
    return f'<dl class="facts">{"".join(entries)}</dl>' if entries else ""


def _findings(document: Document) -> str:
    lines = "".join(f"<li>{_text(line)}</li>" for line in document.summary)
    summary = f'<ul class="summary">{lines}</ul>' if lines else ""
    return f'<div class="findings"><h2>What was found</h2>{summary}{_contents(document.sections)}</div>'


def _contents(sections: Sequence[Section]) -> str:
    if not sections:
        return ""
    claims = any(section.paper for section in sections)
    lines = ""
    for number, section in enumerate(sections, start=1):
        link = f'<a href="#s{number}">{number}. {_text(section.title)}</a>'
        beside = f'<span class="muted">{_text(section.paper)}</span>' if claims else ""
        verdict = _verdict(section.verdict) if claims else ""
        lines += f"<li>{verdict}{link}{beside}<span>{_text(section.measured)}</span></li>"
    head = '<li class="label" aria-hidden="true"><span></span><span></span><span>The paper</span><span>Here</span></li>'
    kind = "claims" if claims else "claims own"
    return f'<nav id="contents" aria-label="Contents"><ol class="{kind}">{head if claims else ""}{lines}</ol></nav>'


def _section(section: Section, number: int) -> str:
    paragraphs = "".join(f"<p>{_text(paragraph)}</p>" for paragraph in section.text)
    figures = "".join(_figure(figure, f"s{number}f{count}-") for count, figure in enumerate(section.figures))
    tables = "".join(table_html(table) for table in section.tables)
    command = f'<div class="command"><span class="label">To reproduce</span>{_code(section.command)}</div>'
    verdict = _verdict(section.verdict) if section.paper else ""
    return f"""<section id="s{number}">
<div class="heading"><h2>{number}. {_text(section.title)}</h2>{verdict}{_UP}</div>
<p class="question">{_text(section.question)}</p>
{_beside(section) if section.paper else ""}
{paragraphs}
{f'<div class="figures">{figures}</div>' if figures else ""}
{tables}
{command if section.command else ""}
</section>"""


def _beside(section: Section) -> str:
    return f"""<dl class="beside">
<div><dt class="label">The paper</dt><dd>{_text(section.paper)}</dd></div>
<div class="measured"><dt class="label">Measured here</dt><dd>{_text(section.measured)}</dd></div>
</dl>"""


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
