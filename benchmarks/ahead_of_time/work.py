"""The kinds of work of an encoder or of a training step, told from a compiled instruction."""

from benchmarks.ahead_of_time.text import Instruction, Program

PRODUCTS = "products of dense layers"
ATTENTION = "attention"
ELEMENTWISE = "normalisation, activations and the like"
DROPOUT = "dropout"
OPTIMISER = "optimiser"
COPIES = "copies and transposes"

_BY_FILE = {
    "attention.py": ATTENTION,  # also of long rows, and DeBERTa's
    "nnx/nn/stochastic.py": DROPOUT,
    "wsr/training/program.py": OPTIMISER,
    "optax/": OPTIMISER,
}
_MOVES = {"copy", "transpose", "bitcast", "reshape", "copy-start", "copy-done", "slice", "concatenate", "pad"}


def kind_of(instruction: Instruction, program: Program) -> str:
    """Returns the kind of work of an instruction.

    A fusion with a matrix product is a product, whatever else it does: normalisations and activations that the compiler
    fuses into a product cost little besides.

    Args:
      instruction: one of those that the program executes one after another.
      program: the program it is in.
    """
    inside = list(program.within(instruction))
    product = next((inner for inner in inside if inner.opcode in ("convolution", "dot")), None)
    if product is not None:
        return ATTENTION if _by_source(product, program) == ATTENTION else PRODUCTS
    if all(inner.opcode in _MOVES | {"fusion", "parameter", "tuple", "get-tuple-element"} for inner in inside):
        return COPIES
    return _by_source(instruction, program)


def _by_source(instruction: Instruction, program: Program) -> str:
    file = program.source(instruction)
    return next((kind for part, kind in _BY_FILE.items() if part in file), ELEMENTWISE)
