"""The programs of the table: those that matter most come first, each on every chip.

Not in the list, because nobody needs them: whole encoders at 16 points (a TPU's step reads 4,096 tokens, and the steps
of four layers show why), small training steps in bfloat16 or of several members, and LoRA of 7 billion parameters on
other chips than the smallest. A Gram matrix is not in it either: NumPy computes it on the host.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.ahead_of_time import gpu
from benchmarks.ahead_of_time.chips import CHIPS, mesh_of

if TYPE_CHECKING:
    from wsr.models.precision import Precision

_TEXT = 27  # tokens of a text, as in the packaged corpora
_PRECISIONS: "tuple[Precision, ...]" = ("float32", "bfloat16")
_STEPS = (
    *((points, 16, 64) for points in (1, 2, 4, 8, 16)),
    *((1, 64, 64), (1, 8, 512), (2, 2, 512), (4, 2, 512), (4, 8, 512)),
)
"""Points, rows and tokens of a row of the steps that are compared."""
_LONG = ((8, 512), (2, 2048), (1, 8192))
"""Rows and tokens of a row of the steps with and without the scores of whole rows."""
_SMALL = ("minilm", "roberta-base")


class Listed(NamedTuple):
    """A program of the table."""

    name: str
    row: Callable[[str], dict[str, Any]]
    """Compiles the program for a chip and returns what it tells."""
    chips: tuple[str, ...] = tuple(CHIPS)


def listed() -> Iterator[Listed]:
    """Yields the programs of the table."""
    yield from (_training_named(encoder, "float32", 128) for encoder in _SMALL)
    yield from (_encoding_named(encoder, precision) for precision in _PRECISIONS for encoder in _SMALL)
    yield from (_eight_members(encoder, chips) for chips in (8, 1) for encoder in _SMALL)
    yield from (_training_named(encoder, "bfloat16", 128) for encoder in _SMALL)
    for classes in (2, 20):
        name = f"one turn of a probe, 16 points x 800 texts x 768 features, {classes} classes"
        yield Listed(name, partial(_probing, classes=classes))
    yield from (_encoding_named("modernbert-base", precision) for precision in _PRECISIONS)
    yield from (_step_named(*sizes) for sizes in _STEPS)
    yield from (_encoding_named("llama-1b", precision) for precision in _PRECISIONS)
    yield from (_training_named(encoder, "float32", _TEXT) for encoder in _SMALL)
    yield from _mixing_programs()
    yield from (_long_named(*sizes, how) for sizes in _LONG for how in ("in blocks", "whole"))
    yield from _programs_of_a_large_model()
    yield from _programs_of_a_gpu()


def _encoding_named(encoder: str, precision: "Precision") -> Listed:
    name = f"encode, {encoder}, 4 points x 16 rows x 64 tokens, {precision}"
    return Listed(name, partial(_encoding, encoder=encoder, precision=precision))


def _training_named(encoder: str, precision: "Precision", text: int) -> Listed:
    name = f"train one step, {encoder}, members 1, 32 texts of {text} tokens, {precision}"
    return Listed(name, partial(_training, encoder=encoder, precision=precision, text=text))


def _eight_members(encoder: str, chips: int) -> Listed:
    """The step of eight members on the eight chips of a host, or of all on one chip."""
    over = f"8 on {chips} chips" if chips > 1 else "8"
    name = f"train one step, {encoder}, members {over}, 32 texts of 128 tokens, float32"
    row = partial(_training, encoder=encoder, precision="float32", text=128, chips=chips, members=8 // chips)
    return Listed(name, row, ("v5e",))


def _step_named(points: int, rows: int, length: int) -> Listed:
    tokens = points * rows * length
    name = f"step of {tokens} tokens, roberta-base of 4 layers, {points} x {rows} x {length}, bfloat16"
    return Listed(name, partial(_step, points=points, rows=rows, length=length))


def _long_named(rows: int, length: int, how: str) -> Listed:
    name = f"long rows, scores {how}, modernbert-base of 3 layers, 1 x {rows} x {length}, bfloat16"
    return Listed(name, partial(_long, rows=rows, length=length, how=how), ("v5e",))


def _mixing_programs() -> Iterator[Listed]:
    yield Listed("begin 4 points with the base, roberta-base", partial(_mixing, models=1, begun=False))
    yield Listed("mix one member into 4 points, roberta-base", partial(_mixing, models=1, begun=True))
    yield Listed("begin 4 points with the base and 7 members, roberta-base", partial(_mixing, models=8, begun=False))


def _programs_of_a_large_model() -> Iterator[Listed]:
    few = "llama-7b, as few chips a model as fit"
    window = "1 point x 8 rows x 512 tokens, bfloat16"
    yield Listed(f"encode, llama-7b, its losses, as few chips a model as fit, {window}", _large)
    yield Listed(f"mix one member into 1 point, {few}", _mixing_large)
    yield Listed(f"train LoRA one step, {few}, 32 texts, float32", _lora, ("v5e",))


def _programs_of_a_gpu() -> Iterator[Listed]:
    """Yields steps of 16,384 tokens, as many as a GPU takes."""
    sizes = {**dict.fromkeys((*_SMALL, "modernbert-base"), (16, 16)), "llama-1b": (4, 64)}
    for encoder, (points, rows) in sizes.items():
        for precision in _PRECISIONS:
            name = f"encode, {encoder}, {points} points x {rows} rows x 64 tokens, {precision}"
            row = partial(_encoding_on_gpu, encoder=encoder, precision=precision, points=points, rows=rows)
            yield Listed(name, row, (gpu.NAME,))


def _encoding(chip: str, *, encoder: str, precision: "Precision") -> dict[str, Any]:
    from benchmarks.ahead_of_time import programs

    model = programs.encoder(encoder)
    shapes = {"points": 4, "rows": 16, "length": 64, "slots": 64}
    lower = partial(programs.encoding, model, mesh_of(chip), precision=precision, **shapes)
    return _row(lower, chip, programs.operations(model, 4 * 16 * 64, _TEXT))


def _encoding_on_gpu(_: str, *, encoder: str, precision: "Precision", points: int, rows: int) -> dict[str, Any]:
    from benchmarks.ahead_of_time import programs
    from wsr.planning.hardware import CHIPS

    model, chip = programs.encoder(encoder), CHIPS[gpu.NAME]
    shapes = {"points": points, "rows": rows, "length": 64, "slots": 64 * -(-rows * 64 // _TEXT // 64)}
    lowered = programs.encoding(model, gpu.mesh(), precision=precision, **shapes)
    rate = chip.float32_flops if precision == "float32" else chip.bfloat16_flops
    operations = programs.operations(model, points * rows * 64, _TEXT)
    return asdict(gpu.compile_for_gpu(lowered)) | {"milliseconds_by_operations": 1e3 * operations / rate}


def _step(chip: str, *, points: int, rows: int, length: int) -> dict[str, Any]:
    from benchmarks.ahead_of_time import programs

    model, mesh, tokens = programs.encoder("roberta-base", 4), mesh_of(chip), points * rows * length
    shapes = {"points": points, "rows": rows, "length": length, "slots": 64}
    found = _row(
        partial(programs.encoding, model, mesh, precision="bfloat16", **shapes),
        chip,
        programs.operations(model, tokens, _TEXT if length == 64 else 250),
    )
    if "error" in found:
        return found
    return found | {"milliseconds_for_16384_tokens": found["milliseconds"] * 16384 / tokens}


def _long(chip: str, *, rows: int, length: int, how: str) -> dict[str, Any]:
    from unittest import mock

    from benchmarks.ahead_of_time import programs
    from wsr.models.layers import attention

    shapes = {"points": 1, "rows": rows, "length": length, "slots": 64}
    model = programs.encoder("modernbert-base", 3)
    lower = partial(programs.encoding, model, mesh_of(chip), precision="bfloat16", **shapes)
    # Without a share of the peak: how many operations a long row takes depends on its masks.
    with mock.patch.object(attention, "WHOLE_SCORES", length if how == "whole" else 0):
        return _row(lower, chip)


def _training(
    chip: str, *, encoder: str, precision: "Precision", text: int, members: int = 1, chips: int = 1
) -> dict[str, Any]:
    """Compiles a step of ``members`` members a chip, of 32 texts each."""
    from benchmarks.ahead_of_time import programs

    model, mesh = programs.encoder(encoder), mesh_of(chip, chips)
    # Packed: 32 texts of 27 tokens take 14 rows of 64, rounded up to a multiple of 4. Longer texts take a row each.
    rows, length = (16, 64) if text == _TEXT else (32, text)
    shapes = {"members": members, "batch": 32, "rows": rows, "length": length}
    lower = partial(programs.training, model, mesh, precision=precision, **shapes)
    # A program trains a segment of many steps; what it does before and after them counts little.
    return _row(lower, chip, 3 * programs.operations(model, members * 32 * text, text), one_turn=True)


def _mixing(chip: str, *, models: int, begun: bool) -> dict[str, Any]:
    from benchmarks.ahead_of_time import programs

    lower = partial(programs.mixing, programs.encoder("roberta-base"), mesh_of(chip), points=4)
    return _row(partial(lower, models=models, begun=begun), chip)


def _large(chip: str) -> dict[str, Any]:
    from benchmarks.ahead_of_time import programs
    from wsr.engine.language_model import _of_losses

    model, mesh = _shared(chip)
    shapes = {"points": 1, "rows": 8, "length": 512, "slots": 64}
    lower = partial(programs.encoding, _of_losses(model), mesh, precision="bfloat16", **shapes)
    # A token attends to half of its window on average. The products with the head lie in a loop whose body counts once.
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
    operations = 3 * programs.operations(model, 32 * _TEXT, _TEXT)
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


def _probing(chip: str, *, classes: int) -> dict[str, Any]:
    from benchmarks.ahead_of_time import programs

    return _row(partial(programs.probing, mesh_of(chip), points=16, texts=800, hidden=768, classes=classes), chip)


def _row(lower: Callable[[], Any], chip: str, operations: float = 0.0, *, one_turn: bool = False) -> dict[str, Any]:
    import jax

    from benchmarks.ahead_of_time.compiled import compile_for

    try:
        found = compile_for(lower(), chip, one_turn=one_turn)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return {"error": "does not fit the memory of the chip"}
    row = asdict(found)
    del row["partners"]
    return row | ({"share_of_peak": found.share_of_peak(operations, chip)} if operations else {})
