"""Fine-tunes a population, a chunk of members in one compiled program.

job.py             says what a member is trained on, and how
population.py      trains a population, chunk by chunk
members.py         trains a population into a store
trainable.py       splits the parameters into those that a mode trains and the rest
lora.py            trains low-rank factors beside an encoder
batches.py         makes the batches of a group, all of one shape
memory.py          computes how many members fit on the device together
program.py         compiles the training loop
early_stopping.py  keeps the best weights by validation loss
sweep/             trains members in this process, as a share of a sweep, or on Ray
pretrain.py        pretrains a small encoder from random parameters
"""

from wsr.training.job import Job, Mode, Recipe, initial_head
from wsr.training.population import Finetuned, finetune, groups_of, predict, score_member

__all__ = ["Finetuned", "Job", "Mode", "Recipe", "finetune", "groups_of", "initial_head", "predict", "score_member"]
