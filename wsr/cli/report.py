"""renders finished studies again as pages: wsr report RUN..."""

from collections.abc import Sequence

from absl import flags


def define(values: flags.FlagValues) -> None:
    """Defines the verb's flags."""
    flags.DEFINE_string(
        "out", None, "The page to write; by default report.html in the (first) run.", flag_values=values
    )


def run(values: flags.FlagValues, positional: Sequence[str]) -> None:
    """Joins the documents of the runs and writes the page."""
    from pathlib import Path

    from wsr.errors import WsrError
    from wsr.report.document import Document
    from wsr.report.page import write_page

    if not positional:
        raise WsrError("name the folder of a finished run: wsr report runs/demo")
    documents = []
    for run_folder in positional:
        file = Path(run_folder) / "document.json"
        if not file.is_file():
            raise WsrError(
                f"{run_folder} holds no finished run: there is no {file.name}; run its command to the end first"
            )
        documents.append(Document.from_json(file.read_text(encoding="utf-8")))
    first = documents[0]
    joined = Document(
        first.title if len(documents) == 1 else "wsr report",
        tuple(line for document in documents for line in document.summary),
        first.facts
        if len(documents) == 1
        else {d.title: "; ".join(f"{k}: {v}" for k, v in d.facts.items()) for d in documents},
        tuple(section for document in documents for section in document.sections),
    )
    page = Path(values.out) if values.out else Path(positional[0]) / "report.html"
    write_page(joined, page)
    print(f"report: {page}")
