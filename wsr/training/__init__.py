"""Fine-tunes a population, a chunk of members in one compiled program.

recipe.py          says how a member is trained, with all defaults
job.py             says what a member is trained on
population.py      trains a population, chunk by chunk
members.py         trains a population into a store
trainable.py       splits the parameters into those that a mode trains and the rest
lora.py            trains low-rank factors beside an encoder
batches.py         makes the batches of a group, all of one shape
division.py        says how training is divided to fit the memory
memory.py          chooses the division, and how many members fit on the device together
program.py         compiles the training loop
early_stopping.py  keeps the best weights by validation loss
sweep/             trains members in this process, as a share of a sweep, or on Ray
pretrain.py        pretrains a small encoder from random parameters

The names below are imported when they are first used: a recipe needs no JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsr.training.division import Division as Division
    from wsr.training.job import Job as Job
    from wsr.training.job import initial_head as initial_head
    from wsr.training.population import Finetuned as Finetuned
    from wsr.training.population import finetune as finetune
    from wsr.training.population import groups_of as groups_of
    from wsr.training.population import predict as predict
    from wsr.training.population import score_member as score_member
    from wsr.training.recipe import Mode as Mode
    from wsr.training.recipe import Recipe as Recipe

_MODULES = {
    "Division": "division",
    "Finetuned": "population",
    "Job": "job",
    "Mode": "recipe",
    "Recipe": "recipe",
    "finetune": "population",
    "groups_of": "population",
    "initial_head": "job",
    "predict": "population",
    "score_member": "population",
}

__all__ = [
    "Division",
    "Finetuned",
    "Job",
    "Mode",
    "Recipe",
    "finetune",
    "groups_of",
    "initial_head",
    "predict",
    "score_member",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'wsr.training' has no attribute {name!r}")
    return getattr(importlib.import_module(f"wsr.training.{_MODULES[name]}"), name)
