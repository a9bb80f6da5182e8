"""``wsr report``: finished runs as one page."""

from collections.abc import Sequence

from wsr.cli.flags import Flag, Group, Page, Values

PAGE = Page(
    "wsr report",
    "wsr report RUN... [options]",
    "Write one page from finished runs, which are folders of wsr demo or of an experiment.",
    (
        "wsr report runs/demo",
        "wsr report runs/demo runs/packaged/convex_hull --out=runs/both.html --figures=runs/figures",
    ),
    (
        Group(
            "Output",
            (
                Flag(
                    "out",
                    "Page to write.",
                    value="FILE",
                    otherwise="report.html in the run; for several runs, beside the first",
                ),
                Flag("figures", "Folder to which each figure is written as SVG and as PDF.", value="FOLDER"),
            ),
        ),
    ),
    positional=None,
)


def run(values: Values, positional: Sequence[str]) -> None:
    """Joins the documents of the runs and writes the page."""
    from pathlib import Path

    from wsr.errors import WsrError
    from wsr.report.document import Document
    from wsr.report.figures import save_all
    from wsr.report.join import join
    from wsr.report.page import write_page

    if not positional:
        raise WsrError("no run is named; give the folder of a finished run: wsr report runs/demo")
    documents = []
    for run_folder in positional:
        file = Path(run_folder) / "document.json"
        if not file.is_file():
            raise WsrError(
                f"{run_folder} holds no finished run: {file.name} is missing; run its command to the end first"
            )
        try:
            documents.append(Document.from_json(file.read_text(encoding="utf-8")))
        except (WsrError, UnicodeDecodeError) as error:
            raise WsrError(
                f"{file} is damaged or was written by another version of wsr: {error}; rerun its command"
            ) from None
    document = join(documents)
    first = Path(positional[0])
    page = Path(values.out) if values.out else (first if len(documents) == 1 else first.parent) / "report.html"
    write_page(document, page)
    print(f"report: {page}")
    if values.figures:
        written = save_all(document, Path(values.figures))
        print(f"figures: {len(written)} files in {values.figures}")
