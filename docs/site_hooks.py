"""Adds to the site what is not written in docs/: the API by room, the help of every verb, executed tutorials, and four
pages of the repository.

A room's page lists the public modules of `wsr/ROOM/` under the first line of its docstring. A tutorial is shown as
`make tutorials` executed it, or without outputs where that has not run.
"""

import ast
import contextlib
import io
import os
import re
from pathlib import Path

import jupytext
import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter
from nbconvert.filters import strip_ansi

from wsr.cli import VERBS, main

ROOT = Path(__file__).parent.parent
EXECUTED = ROOT / "build" / "tutorials"
FROM_ELSEWHERE = {
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "launch.md": "launch/README.md",
    "experiments.md": "experiments/README.md",
}
"""Page of the site: the file of the repository that it shows."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages, the pictures of executed tutorials, and the page of each study to the navigation."""
    for page, source in FROM_ELSEWHERE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_moved(text, Path(source), page)))
    for room in sorted(path.parent for path in (ROOT / "wsr").glob("*/__init__.py")):
        files.append(File.generated(config, f"api/{room.name}.md", content=_room_page(room)))
    files.append(File.generated(config, "command_line.md", content=_command_line()))
    for source in sorted((ROOT / "docs" / "tutorials").glob("*.py")):
        text, pictures = _tutorial(source)
        files.append(File.generated(config, f"tutorials/{source.stem}.md", content=text))
        for name, picture in pictures.items():
            files.append(File.generated(config, f"tutorials/{name}", content=picture))
    results = next(entry["Results"] for entry in config["nav"] if "Results" in entry)
    studies = {file.src_uri for file in files.documentation_pages() if file.src_uri.startswith("results/")}
    results[1:1] = sorted(studies.difference(results))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links out of docs/ lead to the page that shows the file, lists in lists are indented as the site's Markdown wants
    it, and `{{ rooms }}` becomes the README's list of rooms.
    """
    markdown = re.sub(r"^  (?=[-*] )", "    ", markdown, flags=re.MULTILINE)
    markdown = markdown.replace("{{ rooms }}", _rooms())
    for shown, source in [*FROM_ELSEWHERE.items(), ("api/index.md", "README.md")]:
        here = os.path.relpath(source, Path("docs") / Path(page.file.src_uri).parent)
        there = os.path.relpath(shown, Path(page.file.src_uri).parent)
        markdown = re.sub(rf"\]\({re.escape(here)}(#[^)]*)?\)", rf"]({there}\1)", markdown)
    return markdown


def _moved(text: str, source: Path, page: str) -> str:
    """The text with the links that a page of docs/ would have."""

    def link(match: re.Match[str]) -> str:
        target = os.path.normpath(source.parent / match[1])
        return f"]({os.path.relpath(target, 'docs')}{match[2] or ''})"

    return re.sub(r"\]\((?!\w+:|#)([^)#]+)(#[^)]*)?\)", link, text)


def _command_line() -> str:
    """What every verb prints for --help."""
    parts = [
        "# The command line",
        "Every verb explains its options with `wsr VERB --help`; this page shows all of them.",
    ]
    for verb, summary in VERBS.items():
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            main([verb, "--help"])
        parts.append(
            f"## wsr {verb}\n\n{summary[0].upper()}{summary[1:]}.\n\n```text\n{printed.getvalue().strip()}\n```"
        )
    return "\n\n".join(parts)


def _rooms() -> str:
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Where things are")[1]
    rows = [row for row in re.findall(r"^\|.*$", section, re.MULTILINE) if "`" not in row or "`wsr/" in row]
    return re.sub(r"`wsr/(\w+)/`", r"[`wsr.\1`](\1.md)", "\n".join(rows))


def _room_page(room: Path) -> str:
    summary = (ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))) or "").split("\n")[0]
    modules = [path for path in sorted(room.rglob("*.py")) if not path.name.startswith("_")]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules]
    return "\n\n".join([f"# wsr.{room.name}", summary, *(f"::: {name}" for name in names)])


def _tutorial(source: Path) -> tuple[str, dict[str, bytes]]:
    """The page, and its pictures by file name."""
    executed = EXECUTED / f"{source.stem}.ipynb"
    notebook = nbformat.read(executed, as_version=4) if executed.exists() else jupytext.read(source)
    for cell in notebook.cells:
        if cell.cell_type == "code":  # progress and warnings say nothing to a reader
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                if output.output_type == "stream":
                    output.text = strip_ansi(output.text)
    resources = {"unique_key": source.stem, "output_files_dir": source.stem}
    text, made = MarkdownExporter().from_notebook_node(notebook, resources=resources)
    return text.replace("![png](", "![The figure that the cell above draws]("), made["outputs"]
