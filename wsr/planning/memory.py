"""Memory of a chip that is not here, by the predictions that runs themselves go by; nothing is computed."""

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
from wsr.training.memory import member_bytes, shared_bytes


@dataclass(frozen=True)
class Memory:
    """Predicted bytes on one chip."""

    needed: float
    budget: float

    @property
    def fits(self) -> bool:
        """Whether it is within the budget."""
        return self.needed <= self.budget


def training_memory(encoder: Encoder, chip: Chip, recipe: Recipe, length: float) -> tuple[Memory, int]:
    """Returns what one member in training needs on a chip, and how many are trained together; see
    ``wsr.training.memory``.

    Args:
      encoder: with shapes.
      chip: where it would run.
      recipe: batch size, dropout and mode count.
      length: tokens of each text.
    """
    assert encoder.model is not None
    assert encoder.params is not None
    job = Job(_texts(recipe.batch_size, length), 0, recipe)
    each, shared = member_bytes(encoder.model, encoder.params, job), shared_bytes(encoder.params, job)
    budget = memory_budget(device=chip)
    together = min(chunk_for_device(16, device=chip), max(0, (budget - shared) // each))
    return Memory(shared + each, budget), int(together)


def evaluation_memory(encoder: Encoder, chip: Chip, texts: int, length: float) -> Memory:
    """Returns what evaluating one point over ``texts`` needs on a chip; see ``wsr.runtime.devices.lay_out``.

    The program is compiled for the device that is here, whose buffers another kind need not have.
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
    """A dataset whose fine-tuning split has texts of one length."""
    tokens = max(1, round(length))
    ids = np.zeros(texts * tokens, np.int32)
    offsets = np.arange(texts + 1, dtype=np.int64) * tokens
    split = Split(ids, ids, offsets, np.zeros(texts, np.int32))
    return Dataset("planned", "planned", 2, ("0", "1"), "accuracy", {"finetune": split}, "")
