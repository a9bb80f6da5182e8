"""A tiny Llama trained by eight devices, in a process of its own, run by tests: saves arrays that they compare.

python tests/large_model_training_in_a_process.py FILE MODE SHARED_BY...    that many devices share each of two members
"""

import sys

import jax
import numpy as np
from worlds import made_up

from benchmarks.ahead_of_time.compiled import partners
from wsr import models
from wsr.geometry.trees import flatten
from wsr.models import llama, load
from wsr.training import Division, Job, Recipe, finetune, population
from wsr.training.memory import member_bytes, shared_bytes

file, mode, *shares = sys.argv[1:]
sizes = {"vocab_size": 112, "hidden_size": 32, "num_attention_heads": 8, "num_key_value_heads": 8}
model = models.build("llama", {**llama.EXAMPLE, **sizes, "intermediate_size": 48})
start = jax.tree.map(np.array, model.init(jax.random.key(0)))
dataset = made_up(load("tiny"), "made_up_a1")
recipe = Recipe(
    mode=mode, lora_rank=2, lora_targets=r"layers/\d+/.+/kernel", batch_size=16, epochs=2.0, learning_rate=5e-3
)
jobs = [Job(dataset, seed, recipe, size=32) for seed in (0, 1)]
matrices = {leaf.shape for leaf in flatten(start).values() if leaf.ndim == 2}
found: dict = {}
make_program, make_state = population.training_program, population.initial_state


def whole_matrices() -> list[tuple[int, ...]]:
    """Shapes of matrices of the model that lie whole on a device."""
    parts = [shard.data.shape for array in jax.live_arrays() for shard in array.addressable_shards]
    return [shape for shape in parts if shape[-2:] in matrices]


def watched_state(*arguments: object) -> dict:
    """Notes which matrices lie whole on a device before the first step."""
    state = make_state(*arguments)
    found[f"{parts} whole"] = np.array(whole_matrices())
    return state


def watched_program(*arguments: object) -> object:
    """Notes the share of a matrix on a device, the program's memory, and which devices communicate."""
    program = make_program(*arguments)

    def run(state: dict, frozen: dict, *more: object) -> tuple:
        if f"{parts} partners" not in found:
            compiled = program.lower(state, frozen, *more).compile()
            found[f"{parts} partners"] = np.array(partners(compiled.as_text()))
            memory = compiled.memory_analysis()
            found[f"{parts} used"] = memory.argument_size_in_bytes + memory.temp_size_in_bytes
            members = 2 if parts == 1 else 1  # on a device
            found[f"{parts} predicted"] = shared_bytes(start, jobs[0], parts) + members * member_bytes(
                model, start, jobs[0], Division(shared_by=parts)
            )
            matrix = (frozen | state["weights"]["encoder"])["layers/0/attention/query/kernel"]
            found[f"{parts} held"] = np.array(matrix.addressable_shards[0].data.shape[-2:])
        given = program(state, frozen, *more)
        found[f"{parts} compiled"] = program._cache_size()
        return given

    return run


population.training_program, population.initial_state = watched_program, watched_state
for parts in map(int, shares):
    devices = jax.devices() if parts > 1 else jax.devices()[:1]
    for member in finetune(model, start, jobs, chunk=2, division=Division(shared_by=parts), devices=devices):
        for path, leaf in flatten(member.params).items():
            found[f"{parts} {member.job.seed} {path}"] = leaf
        found[f"{parts} {member.job.seed} head"] = member.head["kernel"]
        found[f"{parts} {member.job.seed} losses"] = member.losses
np.savez(file, **found)
