"""From the flags of an experiment to its results: the part that all launchers share. No maths.

Every value of the preset and of the experiment's own settings is a flag. A run's folder holds its plan, its rows, its
document and its page. The same command resumes it; a command with another plan is refused.
"""

import difflib
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from wsr.cli import run_flags
from wsr.cli.flags import Flag, Group, Page, Values
from wsr.cli.program import call
from wsr.cli.record_flags import flags_of, overridden
from wsr.errors import WsrError
from wsr.report.document import Document, Section
from wsr.runtime.buckets import folder_of
from wsr.runtime.compilation import use_persistent_cache
from wsr.studies.harness.lab import Lab
from wsr.studies.harness.plan import same_plan_or_refuse
from wsr.studies.harness.preset import PRESETS, Preset
from wsr.studies.harness.work import Work
from wsr.training.sweep.run import Unfinished

Found = Sequence[tuple[list[dict], Section]]
"""Rows and a section for each question of an experiment."""
Main = Callable[[Lab, Any], Found]
"""The experiment: its findings, from the material of a lab and its settings."""
ELSEWHERE = ("out", "shelf", "debug", *(flag.name for flag in run_flags.GROUP.flags))
"""Flags that say where and how a run happens; they are no part of the command that reproduces it."""


def launch(main: Main, settings: Mapping[str, Any], work: Callable[[Preset, Any], Work]) -> None:
    """Runs an experiment as its flags say, and exits.

    Args:
      main: the experiment.
      settings: its own values by preset, instances of one dataclass.
      work: what it trains and evaluates, for ``--dry_run``.
    """
    module = sys.modules["__main__"]
    assert module.__spec__ is not None, "run experiments as python -m experiments.NAME"
    name = module.__spec__.name.rpartition(".")[2]
    sys.exit(run(name, module.__doc__ or "", main, settings, work, sys.argv[1:]))


def run(
    name: str,
    text: str,
    main: Main,
    settings: Mapping[str, Any],
    work: Callable[[Preset, Any], Work],
    words: Sequence[str],
) -> int:
    """Runs an experiment as ``words`` say, and returns its exit status.

    Args:
      name: the experiment's name.
      text: what its module says.
      main: the experiment.
      settings: its own values by preset.
      work: what it trains and evaluates.
      words: the flags.
    """
    return call(page_of(name, text, type(settings["smoke"])), partial(_run, name, main, settings, work), words)


def page_of(name: str, text: str, settings: type) -> Page:
    """The page of an experiment whose module says ``text``."""
    command = f"python -m experiments.{name}"
    question, _, facts = text.strip().partition("\n")
    return Page(
        name,
        f"{command} [--preset=PRESET] [options]",
        question,
        (f"{command} --preset=smoke", f"{command} --preset=packaged --dry_run"),
        (
            Group(
                "What is run",
                (
                    Flag(
                        "preset",
                        "Preset: smoke takes seconds, packaged minutes to hours, paper needs an accelerator.",
                        "packaged",
                        accepts="smoke, packaged or paper",
                    ),
                    Flag("dry_run", "Print what would be trained and evaluated, and stop.", False),
                ),
            ),
            Group("This experiment", flags_of(settings, "the preset's")),
            Group("Population and protocol", flags_of(Preset, "the preset's")),
            run_flags.GROUP,
            Group(
                "Output",
                (
                    Flag("out", "Folder of the results.", value="FOLDER", otherwise=f"runs/PRESET/{name}"),
                    Flag(
                        "shelf",
                        "Folder or URL of the members and points that studies share.",
                        value="FOLDER",
                        otherwise="runs/PRESET/shelf",
                    ),
                ),
            ),
        ),
        (facts.strip(),),
    )


def _run(
    name: str,
    main: Main,
    settings: Mapping[str, Any],
    work: Callable[[Preset, Any], Work],
    values: Values,
    positional: Sequence[str],
) -> None:
    if values.preset not in PRESETS:
        nearest = difflib.get_close_matches(values.preset, PRESETS, n=1) or list(PRESETS)
        raise WsrError(f"no preset is called {values.preset!r}; did you mean {nearest[0]!r}?")
    preset, own = overridden(PRESETS[values.preset], values), overridden(settings[values.preset], values)
    if values.dry_run:
        print(work(preset, own).told(preset))
        return
    folder = Path(values.out or f"runs/{values.preset}/{name}")
    use_persistent_cache()
    given = [values[flag].serialize() for flag in values if values[flag].present and flag not in ELSEWHERE]
    command = shlex.join(["python", "-m", f"experiments.{name}", *given])
    shelf = folder_of(values.shelf or f"runs/{values.preset}/shelf")
    lab = Lab(preset, folder, shelf, command=command, run=run_flags.run_of(values))
    same_plan_or_refuse(folder, {"experiment": name, "preset": preset, "settings": own})
    try:
        _write(name, lab, main(lab, own))
    except Unfinished as unfinished:
        print(unfinished)


def _write(name: str, lab: Lab, found: Found) -> None:
    from wsr.report.page import write_page
    from wsr.runtime.atomic import write_atomically
    from wsr.store.results import write_rows

    sections = tuple(section for _, section in found)
    summary = tuple(f"{section.headline or section.title} {section.verdict.capitalize()}." for section in sections)
    facts = {
        "Base": f"{lab.preset.base}, {lab.preset.pooling} pooling",
        "Probe": lab.preset.protocol.told,
        "command": lab.command,
    }
    document = Document(name.replace("_", " "), summary, facts, sections)
    write_rows(lab.folder / "results.jsonl", [row for rows, _ in found for row in rows])
    write_atomically(lab.folder / "document.json", document.to_json().encode())
    write_page(document, lab.folder / "report.html")
    print()
    for line in summary:
        print(f"- {line}")
    print(f"\nreport:  {lab.folder / 'report.html'}\nresults: {lab.folder / 'results.jsonl'}")
