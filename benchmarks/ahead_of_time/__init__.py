"""Speed on TPUs that are not there: the engine's programs, compiled ahead of time.

The compiler of TPUs (libtpu) runs without one. A compiled program tells its memory, its collectives and, instruction by
instruction, the cycles that the compiler expects. Their sum is an estimate: dispatch and transfers are not in it. It is
good for comparing programs on one chip, and for noticing that a change made one worse.

chips.py      the TPUs: topology, clock, peak, memory
programs.py   the programs of the engine, lowered for a mesh of absent devices
compiled.py   what a compiled program tells
__main__.py   the table, and the ceilings that make test-tpu-aot holds programs to
"""
