"""Predicts the memory of any chip that a run needs, with the same functions that size a run; nothing is computed."""

from dataclasses import dataclass

import numpy as np

from wsr.data.dataset import Dataset, Split
from wsr.engine.region_features import plan_features
from wsr.engine.settings import Settings
from wsr.planning.encoder import Encoder
from wsr.planning.hardware import Chip
from wsr.region.region import Region
from wsr.runtime.devices import chunk_for_device, memory_budget
from wsr.training.job import Job, Recipe
from wsr.training.memory import member_bytes, pieces_for_training, shared_bytes


@dataclass(frozen=True)
class Memory:
    """Predicted memory on one chip."""

    needed: float
    """Bytes that the work takes."""
    budget: float
    """Bytes that the chip offers."""

    @property
    def fits(self) -> bool:
        """Whether the work is within the budget."""
        return self.needed <= self.budget


def training_memory(encoder: Encoder, chip: Chip, recipe: Recipe, length: float) -> tuple[Memory, int, int, bool]:
    """Returns the memory that training takes on a chip.

    See ``wsr.training.memory``.

    Returns:
      The memory for one member, the number of members trained together, the number of pieces of each batch, and whether
      training rematerialises.

    Args:
      encoder: an encoder with ``model`` and ``params``.
      chip: the chip that training would run on.
      recipe: how members are trained; batch size, dropout and mode matter.
      length: length of each text, in tokens.
    """
    assert encoder.model is not None
    assert encoder.params is not None
    job = Job(_texts(recipe.batch_size, length), 0, recipe)
    budget = memory_budget(device=chip)
    way = pieces_for_training(encoder.model, encoder.params, [job], memory_budget_gib=budget / 2**30, device=chip)
    each, shared = member_bytes(encoder.model, encoder.params, job, *way), shared_bytes(encoder.params, job)
    together = min(chunk_for_device(16, device=chip), max(0, (budget - shared) // each))
    return Memory(shared + each, budget), int(together), *way


def evaluation_memory(encoder: Encoder, chip: Chip, texts: int, length: float) -> Memory:
    """Returns the memory that evaluating one point takes on a chip; see ``wsr.runtime.devices.lay_out``.

    The program is compiled for this machine's device; on a chip of another kind its buffers may differ.

    Args:
      encoder: an encoder with ``model`` and ``params``.
      chip: the chip that evaluation would run on.
      texts: number of texts to encode.
      length: length of each text, in tokens.
    """
    assert encoder.model is not None
    assert encoder.params is not None
    split = _texts(texts, length).splits["finetune"]
    region = Region(encoder.model, encoder.params, (), base_sha256="")
    budget = memory_budget(device=chip)
    found = plan_features(
        region, np.zeros((1, 1)), {"test": split}, settings=Settings(chunk=1, memory_budget_gib=2.0**20)
    )
    return Memory(found.needed_bytes, budget)


def _texts(texts: int, length: float) -> Dataset:
    """Returns a dataset whose fine-tuning split has texts of one length, and its validation split the same texts."""
    tokens = max(1, round(length))
    ids = np.zeros(texts * tokens, np.int32)
    offsets = np.arange(texts + 1, dtype=np.int64) * tokens
    split = Split(ids, ids, offsets, np.zeros(texts, np.int32))
    return Dataset("planned", "planned", 2, ("0", "1"), "accuracy", {"finetune": split, "validation": split}, "")
