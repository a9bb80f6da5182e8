"""Speed on TPUs that are not there, and on an H100: the engine's programs, compiled ahead of time.

The compiler of TPUs (libtpu) runs without one. A compiled program tells its memory, its collectives and, instruction by
instruction, the cycles that the compiler expects. Their sum is an estimate: dispatch and transfers are not in it. It is
good for comparing programs on one chip, and for noticing that a change made one worse. The compiler of GPUs tells the
types of products, the bytes that kernels move, and memory.

chips.py      the TPUs: topology, clock, peak, memory
gpu.py        the H100, and what a program compiled for it tells
programs.py   the programs of the engine, lowered for a mesh of absent devices
compiled.py   what a program compiled for a TPU tells
text.py       a compiled program, read from the text that XLA writes
work.py       the kind of work of an instruction: products, attention, element-wise work, copies
listed.py     the programs of the table
__main__.py   the table, and the rows that it keeps
"""
