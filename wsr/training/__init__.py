"""Fine-tunes a population: a chunk of members in one compiled program.

job.py             what a member is trained on and how
population.py      members in, trained members out, chunk by chunk
members.py         trains a population into a store
trainable.py       which arrays a mode trains and which stay
lora.py            low-rank factors beside an encoder
batches.py         the batches of a group, of one shape
memory.py          how many members fit on the device together
program.py         the compiled training loop
early_stopping.py  the best weights by validation loss
sweep/             members as units of work: in this process, as a share, on Ray
pretrain.py        a small encoder from nothing
"""

from wsr.training.job import Job, Mode, Recipe, initial_head
from wsr.training.population import Finetuned, finetune, groups_of, predict, score_member

__all__ = ["Finetuned", "Job", "Mode", "Recipe", "finetune", "groups_of", "initial_head", "predict", "score_member"]
