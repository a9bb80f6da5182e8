"""A small training in a process of its own, run by tests: saves what they compare as NumPy arrays.

python tests/training_in_a_process.py FILE DEVICES...    members are cut over so many of the process's devices
"""

import sys

import jax
import numpy as np
from worlds import made_up

from wsr.geometry.trees import flatten
from wsr.models import load
from wsr.training import Job, Recipe, finetune, population
from wsr.training.memory import chunk_for_training

tiny = load("tiny")
dataset = made_up(tiny, "made_up_a1")
recipe = Recipe(learning_rate=5e-3, batch_size=16, epochs=1.0, patience=1, check_every=2)
jobs = [Job(dataset, seed, recipe, size=32 + 16 * (seed % 2)) for seed in range(5)]
found, used = {}, []
make = population.training_program


def spied(*arguments: object) -> object:
    """Notes over how many devices a program cuts its members."""
    used.append(arguments[-1].size)
    return make(*arguments)


population.training_program = spied
for count in map(int, sys.argv[2:]):
    devices = jax.devices()[:count]
    chunk = chunk_for_training(tiny.model, tiny.params, jobs, devices=devices)
    members = list(finetune(tiny.model, tiny.params, jobs, chunk=chunk, devices=devices))
    found[f"{count} chunk"] = chunk
    for member in members:
        for path, leaf in flatten(member.params).items():
            found[f"{count} {member.job.seed} {path}"] = leaf
        found[f"{count} {member.job.seed} head"] = member.head["kernel"]
        found[f"{count} {member.job.seed} losses"] = member.losses
np.savez(sys.argv[1], used=np.array(used), **found)
