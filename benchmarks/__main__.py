"""Runs benchmarks, prints a table each and writes everything as JSON.

python -m benchmarks [--only=evaluation,probes] [--out=FOLDER]
"""

import importlib
import json
import subprocess
import time
from pathlib import Path
from statistics import median

from absl import app, flags, logging
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.harness import Result
from benchmarks.machine import machine
from wsr.runtime.compilation import use_persistent_cache

BENCHMARKS = ("evaluation", "surrogate", "probes", "similarity", "finetuning", "start")
# Not part of a plain run: why the project is written as it is; what needs 25 or 45 GB of disk, or a rival of its own.
CHOICES = ("encoder", "attention", "packing", "checkpoints", "merging", "merging_leaf", "merging_size")

_ONLY = flags.DEFINE_list("only", list(BENCHMARKS), f"Which of {', '.join(BENCHMARKS + CHOICES)}.")
_OUT = flags.DEFINE_string("out", None, "A folder for the results, a JSON file each.")


def main(arguments: list[str]) -> None:
    """Runs what is asked for, one after another."""
    unknown = [name for name in _ONLY.value if name not in BENCHMARKS + CHOICES] + arguments[1:]
    if unknown:
        raise app.UsageError(
            f"no benchmark is called {', '.join(unknown)}; there are {', '.join(BENCHMARKS + CHOICES)}"
        )
    logging.set_verbosity(logging.WARNING)
    use_persistent_cache()
    commit = _commit()  # before results are written, which may be files that git tracks
    for name in _ONLY.value:
        print(f"{name} ...", flush=True)
        began = time.perf_counter()
        results = importlib.import_module(f"benchmarks.{name}").run()
        show(results)
        if _OUT.value:
            _write(Path(_OUT.value) / f"{name}.json", name, results, commit, (time.perf_counter() - began) / 60)


def _write(path: Path, name: str, results: list[Result], commit: str, minutes: float) -> None:
    content = {
        "command": f"python -m benchmarks --only={name}",
        "commit": commit,
        "minutes": round(minutes, 1),
        "machine": machine(),
        "results": [result.to_json() for result in results],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"written: {path}", flush=True)


def show(results: list[Result]) -> None:
    """Prints a line a contender, then the marks."""
    table = Table("benchmark", "contender", "time", "wsr is faster by", title="Medians; ratios pair by pair")
    for result in results:
        for number, (contender, seconds) in enumerate(result.seconds.items()):
            table.add_row(
                result.name if number == 0 else "",
                escape(contender),
                f"{_time(median(seconds) / result.units)} a {result.unit}",
                "" if contender == result.ours else f"{result.ratio(contender):.2f}",
                end_section=number == len(result.seconds) - 1,
            )
    console = Console()
    console.print(table)
    for result in results:
        for name, value in result.figures.items():
            console.print(
                f"{result.name}: {name} {value:.4g}" if isinstance(value, float) else f"{result.name}: {name} {value}"
            )
        for mark in result.marks:
            sign = "<=" if mark.at_most else ">="
            verdict = "reached" if mark.reached else "NOT reached"
            console.print(f"{result.name}: {mark.what}: {mark.value:.3g} (wanted {sign} {mark.wanted:g}): {verdict}")


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def _commit() -> str:
    found = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    app.run(main)
