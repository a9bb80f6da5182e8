"""From the flags of an experiment to its results: the part that all launchers share. No maths.

Every value of the preset and of the experiment's own settings is a flag. A run's folder holds its plan, its rows, its
document and its page; the same command goes on with what is there, another plan is refused.
"""

import dataclasses
import difflib
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from absl import app, flags, logging

from wsr.cli import run_flags
from wsr.errors import WsrError
from wsr.report.document import Document, Section
from wsr.runtime.buckets import folder_of
from wsr.runtime.compilation import use_persistent_cache
from wsr.runtime.preemption import STATUS, TOLD, Preempted, sigterm_raises
from wsr.studies.harness.lab import Lab
from wsr.studies.harness.plan import same_plan_or_refuse
from wsr.studies.harness.preset import PRESETS, Preset
from wsr.studies.harness.work import Work
from wsr.training.sweep.run import Unfinished

Found = Sequence[tuple[list[dict], Section]]
"""Rows and a section for each question of an experiment."""
Main = Callable[[Lab, Any], Found]
"""The experiment: what is found with the material of a lab and settings."""


def launch(main: Main, settings: Mapping[str, Any], work: Callable[[Preset, Any], Work]) -> None:
    """Runs an experiment as its flags say, and exits.

    Args:
      main: the experiment.
      settings: its own values by preset, instances of one dataclass.
      work: what it would train and evaluate, for ``--dry_run``.
    """
    module = sys.modules["__main__"]
    assert module.__spec__ is not None, "run experiments as python -m experiments.NAME"
    name = module.__spec__.name.rpartition(".")[2]
    flags.DEFINE_string("preset", "packaged", f"One of {', '.join(PRESETS)}.")
    flags.DEFINE_string("out", None, f"Folder of the results; by default runs/PRESET/{name}.")
    flags.DEFINE_string(
        "shelf", None, "Folder of members and points that studies share, or its URL; by default runs/PRESET/shelf."
    )
    flags.DEFINE_bool("dry_run", False, "Print what would be trained and evaluated, and what it would take.")
    flags.DEFINE_bool("debug", False, "Show the traceback of an error.")
    run_flags.define(flags.FLAGS)
    for record in (Preset, type(settings["smoke"])):
        _define(record)
    if {"--help", "-help", "-h"} & set(sys.argv):
        # Not absl's own, to which a percent sign in the text is a place to fill in.
        told = "".join(flags.FLAGS.module_help(owner) for owner in (__name__, run_flags.__name__))
        print(f"{(module.__doc__ or '').strip()}\n\nFlags:{told}")
        return
    app.run(lambda positional: _run(name, positional, main, settings, work))


def _run(
    name: str,
    positional: Sequence[str],
    main: Main,
    settings: Mapping[str, Any],
    work: Callable[[Preset, Any], Work],
) -> None:
    values = flags.FLAGS
    if not values.debug:  # what the libraries have to tell
        logging.set_verbosity(logging.WARNING)
    try:
        if len(positional) > 1:
            raise WsrError(f"unknown argument {positional[1]!r}; values are given as --flag=value")
        if values.preset not in PRESETS:
            nearest = difflib.get_close_matches(values.preset, PRESETS, n=1) or list(PRESETS)
            raise WsrError(f"no preset is called {values.preset!r}; did you mean {nearest[0]!r}?")
        preset, own = _overridden(PRESETS[values.preset]), _overridden(settings[values.preset])
        if values.dry_run:
            print(work(preset, own).told(preset))
            return
        folder = Path(values.out or f"runs/{values.preset}/{name}")
        use_persistent_cache()
        command = shlex.join(["python", "-m", f"experiments.{name}", *_given()])
        shelf = folder_of(values.shelf or f"runs/{values.preset}/shelf")
        lab = Lab(preset, folder, shelf, command=command, run=run_flags.run_of(values))
        same_plan_or_refuse(folder, {"experiment": name, "preset": preset, "settings": own})
        with sigterm_raises():
            _write(name, lab, main(lab, own))
    except Unfinished as unfinished:
        print(unfinished)
    except WsrError as error:
        if values.debug:
            raise
        sys.exit(f"{name}: error: {' '.join(str(error).split())}")
    except Preempted:
        print(TOLD, file=sys.stderr)
        sys.exit(STATUS)
    except KeyboardInterrupt:
        sys.exit("interrupted; what was finished is kept, the same command goes on from there")


def _write(name: str, lab: Lab, found: Found) -> None:
    from wsr.report.page import write_page
    from wsr.runtime.atomic import write_atomically
    from wsr.store.results import write_rows

    sections = tuple(section for _, section in found)
    summary = tuple(f"{section.title}: {section.verdict}. {section.measured}." for section in sections)
    facts = {"Base": f"{lab.preset.base}, {lab.preset.pooling} pooling", "command": lab.command}
    document = Document(name.replace("_", " "), summary, facts, sections)
    write_rows(lab.folder / "results.jsonl", [row for rows, _ in found for row in rows])
    write_atomically(lab.folder / "document.json", document.to_json().encode())
    write_page(document, lab.folder / "report.html")
    print()
    for line in summary:
        print(f"- {line}")
    print(f"\nreport:  {lab.folder / 'report.html'}\nresults: {lab.folder / 'results.jsonl'}")


def _given() -> list[str]:
    """The flags that were given, but for where results go: what reproduces the run anywhere."""
    own = flags.FLAGS.flags_by_module_dict()[__name__]
    return [flag.serialize() for flag in own if flag.present and flag.name not in ("out", "shelf", "debug")]


def _define(record: type) -> None:
    hints = get_type_hints(record)
    for field in dataclasses.fields(record):
        kind, what = hints[field.name], f"{record.__name__}: by default the preset's."
        if kind is bool:
            flags.DEFINE_bool(field.name, None, what)
        elif kind is int:
            flags.DEFINE_integer(field.name, None, what)
        elif kind is float:
            flags.DEFINE_float(field.name, None, what)
        elif kind is str:
            flags.DEFINE_string(field.name, None, what)
        else:  # a tuple
            flags.DEFINE_list(field.name, None, what)


def _overridden(record: Any) -> Any:
    """The record with the values that were given as flags."""
    hints = get_type_hints(type(record))
    changes = {}
    for field in dataclasses.fields(record):
        value = flags.FLAGS[field.name].value
        if value is None:
            continue
        if isinstance(value, list):
            inner = next(kind for kind in hints[field.name].__args__ if kind is not Ellipsis)
            value = tuple(inner(entry) for entry in value)
        changes[field.name] = value
    return dataclasses.replace(record, **changes)
