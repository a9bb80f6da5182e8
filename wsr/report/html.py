"""The frame of every page: one HTML file that needs nothing else, with a policy that forbids every request."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from wsr.report.style import readable
from wsr.report.stylesheet import STYLESHEET


def framed(
    title: str, body: str, *, skip: tuple[str, str], style: str = "", scripts: Sequence[str] = (), data: Any = None
) -> str:
    """Returns the text of an HTML file.

    Args:
      title: title of the page, plain text.
      body: content of its body, HTML.
      skip: where its first link leads and what it says, for readers without a mouse.
      style: style besides the common one.
      scripts: scripts, which run in this order at the end of the body. Without any, the policy forbids scripts.
      data: what the scripts read from the element ``data``, as JSON values; None: no such element.
    """
    there, says = skip
    held = "" if data is None else f'<script type="application/json" id="data">{_json(data)}</script>\n'
    run = "".join(f"<script>{script}</script>" for script in scripts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_policy(scripts)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{text(title)}</title>
<link rel="icon" href="data:,">
<style>{STYLESHEET}{style}</style>
</head>
<body>
<a class="skip" href="#{there}">{says}</a>
{body.strip()}
{held}{run}
</body>
</html>
"""


def text(plain: str) -> str:
    """Returns text as HTML, on one line."""
    return escape(readable(plain))


def asset(folder: str, name: str) -> str:
    """Returns the text of a file in ``wsr/report/FOLDER/assets``."""
    return (files(f"wsr.report.{folder}") / "assets" / name).read_text(encoding="utf-8")


def _policy(scripts: Sequence[str]) -> str:
    """Only these scripts run, and nothing is loaded or sent."""
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()}'" for own in scripts]
    run = f"script-src {' '.join(hashes)}; " if hashes else ""
    return f"default-src 'none'; {run}style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def _json(content: Mapping[str, Any]) -> str:
    # "<" would end or comment out the element that holds the data.
    return json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
