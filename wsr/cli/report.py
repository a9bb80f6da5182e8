"""renders finished studies again, several as one page, figures as files: wsr report RUN... [--figures=FOLDER]"""

from collections.abc import Sequence

from absl import flags


def define(values: flags.FlagValues) -> None:
    """Defines the verb's flags."""
    flags.DEFINE_string(
        "out",
        None,
        "The page to write; by default report.html in the run, or beside the first of several.",
        flag_values=values,
    )
    flags.DEFINE_string("figures", None, "Folder for each figure as SVG and as PDF.", flag_values=values)


def run(values: flags.FlagValues, positional: Sequence[str]) -> None:
    """Joins the documents of the runs and writes the page."""
    from pathlib import Path

    from wsr.errors import WsrError
    from wsr.report.document import Document
    from wsr.report.figures import save_all
    from wsr.report.join import join
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
        try:
            documents.append(Document.from_json(file.read_text(encoding="utf-8")))
        except (WsrError, UnicodeDecodeError) as error:
            raise WsrError(f"{file} is damaged or of another version: {error}") from None
    document = join(documents)
    first = Path(positional[0])
    page = Path(values.out) if values.out else (first if len(documents) == 1 else first.parent) / "report.html"
    write_page(document, page)
    print(f"report: {page}")
    if values.figures:
        written = save_all(document, Path(values.figures))
        print(f"figures: {len(written)} files in {values.figures}")
