"""``python -m benchmarks.ahead_of_time``: the tables of programs on absent TPUs and on an absent H100.

Rows are kept in ``benchmarks/results/tpu_ahead_of_time.jsonl`` as they come, and a rerun compiles what is missing.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.ahead_of_time import chips, gpu
from benchmarks.ahead_of_time.listed import listed

OUT = Path("benchmarks/results/tpu_ahead_of_time.jsonl")


def main() -> None:
    """Compiles the programs whose rows are missing, and prints all rows as tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ahead_of_time", description=__doc__)
    parser.add_argument("--chips", default=",".join(chips.CHIPS), help="chips to compile for")
    parser.add_argument("--only", default="", help="compile only rows whose name contains this")
    parser.add_argument("--out", type=Path, default=OUT, help="file of the rows")
    given = parser.parse_args()
    wanted = given.chips.split(",")
    (gpu if gpu.NAME in wanted else chips).use_compiler()
    rows = _read(given.out)
    for program in listed():
        for chip in program.chips:
            if chip not in wanted or (chip, program.name) in rows or given.only not in program.name:
                continue
            row = {"chip": chip, "program": program.name, **program.row(chip)}
            rows[chip, program.name] = row
            print(json.dumps(row), file=sys.stderr, flush=True)
            given.out.parent.mkdir(parents=True, exist_ok=True)
            with given.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    print("\n\n".join(tables([row for row in rows.values() if row["chip"] in wanted])))


def tables(rows: list[dict[str, Any]]) -> list[str]:
    """Returns the rows as Markdown tables: all on TPUs, their time by kind of work, and all on a GPU."""
    by_kind = [
        [
            row["chip"],
            row["program"],
            ", ".join(f"{kind} {ms / row['milliseconds']:.2f}" for kind, ms in row["milliseconds_by_kind"].items()),
        ]
        for row in rows
        if "milliseconds_by_kind" in row
    ]
    found = [
        _table(
            "chip, program, ms, share of the bfloat16 peak, temporary GiB, GiB in all, collectives",
            [_of_tpu(row) for row in rows if row["chip"] != gpu.NAME],
        ),
        _table("chip, program, share of the time by kind of work", by_kind),
        _table(
            "chip, program, ms by bytes, ms by operations, temporary GiB, kernels, products",
            [_of_gpu(row) for row in rows if row["chip"] == gpu.NAME],
        ),
    ]
    return [table for table in found if table]


def _of_tpu(row: dict[str, Any]) -> list[str]:
    if "error" in row:
        return [row["chip"], row["program"], row["error"], "", "", "", ""]
    shared = f", {row['mesh']['model']} chips a model" if "mesh" in row else ""
    return [
        row["chip"],
        row["program"] + shared,
        f"{row['milliseconds']:.2f}" + (f" and {row['untold']} kernels" if row.get("untold") else ""),
        f"{row['share_of_peak']:.3f}" if "share_of_peak" in row else "",
        f"{row['temporary_gib']:.2f}",
        f"{row['memory_gib']:.2f}" if "memory_gib" in row else "",
        ", ".join(row["collectives"]) or "none",
    ]


def _of_gpu(row: dict[str, Any]) -> list[str]:
    return [
        row["chip"],
        row["program"],
        f"{row['milliseconds_by_bytes']:.2f}",
        f"{row['milliseconds_by_operations']:.2f}",
        f"{row['temporary_gib']:.2f}",
        f"{row['kernels']}",
        ", ".join(f"{count} of {types}" for types, count in row["products"].items()),
    ]


def _table(heads: str, rows: list[list[str]]) -> str:
    if not rows:
        return ""
    columns = heads.split(", ")
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _read(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {(row["chip"], row["program"]): row for row in map(json.loads, lines)}


if __name__ == "__main__":
    main()
