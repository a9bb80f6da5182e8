"""``python -m benchmarks.ahead_of_time``: the table of programs on absent TPUs.

Rows are kept in ``benchmarks/results/tpu_ahead_of_time.jsonl`` as they come, and a rerun compiles what is missing.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.ahead_of_time.chips import CHIPS, mesh_of, use_compiler

if TYPE_CHECKING:
    from wsr.models.precision import Precision

OUT = Path("benchmarks/results/tpu_ahead_of_time.jsonl")
TEXT = 27  # tokens of a text, as in the packaged corpora
PRECISIONS: "tuple[Precision, ...]" = ("float32", "bfloat16")
STEPS = (
    *((points, 16, 64) for points in (1, 2, 4, 8, 16)),
    *((1, 64, 64), (1, 8, 512), (2, 2, 512), (4, 2, 512), (4, 8, 512)),
)
"""Points, rows and tokens of a row of the steps that are compared."""
LONG = ((8, 512), (2, 2048), (1, 8192))
"""Rows and tokens of a row of the steps with and without the scores of whole rows."""
ENCODERS = ("minilm", "roberta-base", "modernbert-base", "llama-1b")


def main() -> None:
    """Compiles the programs whose rows are missing, and prints all rows as a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ahead_of_time", description=__doc__)
    parser.add_argument("--chips", default=",".join(CHIPS), help="chips to compile for")
    parser.add_argument("--only", default="", help="compile only rows whose name contains this")
    parser.add_argument("--out", type=Path, default=OUT, help="file of the rows")
    given = parser.parse_args()
    use_compiler()
    rows = _read(given.out)
    for chip in given.chips.split(","):
        for name, row in _programs(chip):
            if (chip, name) in rows or given.only not in name:
                continue
            rows[chip, name] = {"chip": chip, "program": name, **row()}
            print(json.dumps(rows[chip, name]), file=sys.stderr, flush=True)
            given.out.parent.mkdir(parents=True, exist_ok=True)
            with given.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[chip, name]) + "\n")
    print(table(list(rows.values())))


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as a Markdown table."""
    lines = [
        "| chip | program | ms | share of the bfloat16 peak | temporary GiB | GiB in all | collectives |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "error" in row:
            lines.append(f"| {row['chip']} | {row['program']} | {row['error']} | | | | |")
            continue
        share = f"{row['share_of_peak']:.3f}" if "share_of_peak" in row else ""
        memory = f"{row['memory_gib']:.2f}" if "memory_gib" in row else ""
        chips = f", {row['mesh']['model']} chips a model" if "mesh" in row else ""
        lines.append(
            f"| {row['chip']} | {row['program']}{chips} | {row['milliseconds']:.2f} | {share} | "
            f"{row['temporary_gib']:.2f} | {memory} | "
            f"{', '.join(row['collectives']) or 'none'} |"
        )
    return "\n".join(lines)


def _programs(chip: str) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yields the name of each row and the function that compiles it."""
    for encoder in ENCODERS:
        for precision in PRECISIONS:
            for points in (4, 16):
                name = f"encode, {encoder}, {points} points x 16 rows x 64 tokens, {precision}"
                yield name, partial(_encoding, chip, encoder, precision, points)
    for points, rows, length in STEPS:
        name = (
            f"step of {points * rows * length} tokens, roberta-base of 4 layers, {points} x {rows} x {length}, bfloat16"
        )
        yield name, partial(_step, chip, points, rows, length)
    for encoder in ENCODERS[:2]:
        for precision in PRECISIONS:
            for members in (1, 4):
                name = f"train one step, {encoder}, members {members}, 32 texts, {precision}"
                yield name, partial(_training, chip, encoder, precision, members)
    yield "begin 4 points with the base, roberta-base", partial(_mixing, chip, models=1, begun=False)
    yield "mix one member into 4 points, roberta-base", partial(_mixing, chip, models=1, begun=True)
    yield "begin 4 points with the base and 7 members, roberta-base", partial(_mixing, chip, models=8, begun=False)
    window = "8 rows x 512 tokens, bfloat16"
    yield f"encode, llama-7b, its losses, as few chips a model as fit, 1 point x {window}", partial(_large, chip)
    yield "mix one member into 1 point, llama-7b, as few chips a model as fit", partial(_mixing_large, chip)
    yield "train LoRA one step, llama-7b, as few chips a model as fit, 32 texts, float32", partial(_lora, chip)
    for classes in (2, 20):
        name = f"one turn of a probe, 16 points x 800 texts x 768 features, {classes} classes"
        yield name, partial(_probing, chip, classes)
    for rows, length in LONG if chip == "v5e" else ():
        for how in ("in blocks", "whole"):
            name = f"long rows, scores {how}, modernbert-base of 3 layers, 1 x {rows} x {length}, bfloat16"
            yield name, partial(_long, chip, rows, length, how)


def _encoding(chip: str, name: str, precision: "Precision", points: int) -> dict[str, Any]:
    from benchmarks.ahead_of_time import programs

    model, mesh = programs.encoder(name), mesh_of(chip)
    shapes = {"points": points, "rows": 16, "length": 64, "slots": 64}
    lower = partial(programs.encoding, model, mesh, precision=precision, **shapes)
    return _row(lower, chip, programs.operations(model, points * 16 * 64, TEXT))


def _step(chip: str, points: int, rows: int, length: int) -> dict[str, Any]:
    from benchmarks.ahead_of_time import programs

    model, mesh, tokens = programs.encoder("roberta-base", 4), mesh_of(chip), points * rows * length
    shapes = {"points": points, "rows": rows, "length": length, "slots": 64}
    found = _row(
        partial(programs.encoding, model, mesh, precision="bfloat16", **shapes),
        chip,
        programs.operations(model, tokens, TEXT if length == 64 else 250),
    )
    if "error" in found:
        return found
    return found | {"milliseconds_for_16384_tokens": found["milliseconds"] * 16384 / tokens}


def _training(chip: str, name: str, precision: "Precision", members: int) -> dict[str, Any]:
    from benchmarks.ahead_of_time import programs

    model, mesh = programs.encoder(name), mesh_of(chip)
    # Packed: 32 texts of 27 tokens take 14 rows of 64, rounded up to a multiple of 4.
    shapes = {"members": members, "batch": 32, "rows": 16, "length": 64}
    lower = partial(programs.training, model, mesh, precision=precision, **shapes)
    return _row(lower, chip, 3 * programs.operations(model, members * 32 * TEXT, TEXT))


def _mixing(chip: str, models: int, begun: bool) -> dict[str, Any]:
    from benchmarks.ahead_of_time import programs

    lower = partial(programs.mixing, programs.encoder("roberta-base"), mesh_of(chip), points=4)
    return _row(partial(lower, models=models, begun=begun), chip)


def _large(chip: str) -> dict[str, Any]:
    from benchmarks.ahead_of_time import programs
    from wsr.engine.language_model import _of_losses

    model, mesh = _shared(chip)
    shapes = {"points": 1, "rows": 8, "length": 512, "slots": 64}
    lower = partial(programs.encoding, _of_losses(model), mesh, precision="bfloat16", **shapes)
    # A token attends to half of its window on average. The products with the head are left out.
    operations = programs.operations(model, 8 * 512, 512 / 2)
    return _row(lower, chip, operations / mesh.shape["model"]) | {"mesh": dict(mesh.shape)}


def _mixing_large(chip: str) -> dict[str, Any]:
    from benchmarks.ahead_of_time import programs

    model, mesh = _shared(chip)
    return _row(partial(programs.mixing, model, mesh, points=1), chip) | {"mesh": dict(mesh.shape)}


def _lora(chip: str) -> dict[str, Any]:
    from benchmarks.ahead_of_time import programs
    from wsr.runtime.devices import member_mesh

    model, mesh = _shared(chip)
    groups = member_mesh(mesh.shape["points"], model=mesh.shape["model"], devices=list(mesh.devices.flat))
    lower = partial(programs.lora, model, groups, batch=32, rows=16, length=64, rank=8)
    # Forward, and backward to the hidden states; frozen matrices have no gradient, but adapted ones have.
    operations = 3 * programs.operations(model, 32 * TEXT, TEXT)
    return _row(lower, chip, operations / mesh.shape["model"]) | {"mesh": dict(groups.shape)}


def _shared(chip: str) -> tuple[Any, Any]:
    """Returns a Llama of 7 billion parameters, and all chips of a host with as few to a model as fit its memory."""
    from benchmarks.ahead_of_time import programs

    model, chips = programs.encoder("llama-7b"), math.prod(CHIPS[chip].host)
    fitting = (
        parts for parts in (1, 2, 4) if programs.evaluation_bytes(model, parts) <= 0.9 * CHIPS[chip].memory_bytes
    )
    parts = next(fitting, chips)
    return model, mesh_of(chip, chips // parts, 1, parts)


def _probing(chip: str, classes: int) -> dict[str, Any]:
    from benchmarks.ahead_of_time import programs

    return _row(partial(programs.probing, mesh_of(chip), points=16, texts=800, hidden=768, classes=classes), chip)


def _long(chip: str, rows: int, length: int, how: str) -> dict[str, Any]:
    from unittest import mock

    from benchmarks.ahead_of_time import programs
    from wsr.models.layers import attention

    shapes = {"points": 1, "rows": rows, "length": length, "slots": 64}
    model = programs.encoder("modernbert-base", 3)
    lower = partial(programs.encoding, model, mesh_of(chip), precision="bfloat16", **shapes)
    # Without a share of the peak: how many operations a long row takes depends on its masks.
    with mock.patch.object(attention, "WHOLE_SCORES", length if how == "whole" else 0):
        return _row(lower, chip)


def _row(lower: Callable[[], Any], chip: str, operations: float = 0.0) -> dict[str, Any]:
    import jax

    from benchmarks.ahead_of_time.compiled import compile_for

    try:
        found = compile_for(lower(), chip)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return {"error": "does not fit the memory of the chip"}
    row = asdict(found)
    del row["partners"]
    return row | ({"share_of_peak": found.share_of_peak(operations, chip)} if operations else {})


def _read(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {(row["chip"], row["program"]): row for row in map(json.loads, lines)}


if __name__ == "__main__":
    main()
