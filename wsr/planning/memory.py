"""Predicts the memory of any chip that a run needs, with the same functions that size a run; nothing is computed."""

from dataclasses import dataclass

import jax
import numpy as np

from wsr.data.dataset import Dataset, Split
from wsr.engine.region_features import plan_features, whole_member_bytes
from wsr.engine.settings import Settings
from wsr.models import cuts
from wsr.planning.encoder import Encoder
from wsr.planning.hardware import Hardware
from wsr.region.region import Region
from wsr.runtime.devices import chunk_for_device, copies_of_a_member, divisors, memory_budget, mesh_for
from wsr.training.division import Division
from wsr.training.job import Job, Recipe
from wsr.training.memory import division_for_training, member_bytes, shared_bytes


@dataclass(frozen=True)
class Memory:
    """Predicted memory on one chip."""

    needed: int
    """Bytes that the work takes, or only those of its models if they exceed the budget by themselves."""
    budget: int
    """Bytes that the chip offers."""

    @property
    def fits(self) -> bool:
        """Whether the work is within the budget."""
        return self.needed <= self.budget


def training_memory(
    encoder: Encoder, hardware: Hardware, recipe: Recipe, length: float
) -> tuple[Memory, int, Division]:
    """Returns the memory that training takes on each chip, divided as ``wsr.train`` would.

    Returns:
      The memory for one member, the number of members trained together on a chip, or on the chips that share a member,
      and how their training is divided.

    Args:
      encoder: an encoder with ``model`` and ``params``.
      hardware: the machine that training would run on.
      recipe: how members are trained; batch size, dropout and mode matter.
      length: length of each text, in tokens.
    """
    assert encoder.model is not None
    assert encoder.params is not None
    job, chip = Job(_texts(recipe.batch_size, length), 0, recipe), hardware.chip
    budget = memory_budget(device=chip)
    division = division_for_training(
        encoder.model,
        encoder.params,
        [job],
        memory_budget_gib=budget / 2**30,
        devices=[chip] * hardware.chips_together,
    )
    each = member_bytes(encoder.model, encoder.params, job, division)
    shared = shared_bytes(encoder.params, job, division.shared_by)
    together = min(chunk_for_device(16, device=chip), max(0, (budget - shared) // each))
    return Memory(shared + each, budget), together, division


def evaluation_memory(
    encoder: Encoder, hardware: Hardware, points: int, texts: int, length: float
) -> tuple[Memory, int]:
    """Returns the memory that evaluation takes on each chip, one point at a time, and how many chips share each model.

    Members are read one after another. As few chips share a model as fit it, and all of a host if none do, by the rule
    of ``wsr.runtime.devices.with_smallest_model``. The program is compiled for this machine's device, which stands for
    each of the chips; on a chip of another kind its buffers may differ.

    Args:
      encoder: an encoder with ``model`` and ``params``.
      hardware: the machine that evaluation would run on.
      points: number of points.
      texts: number of texts to encode.
      length: length of each text, in tokens.
    """
    assert encoder.model is not None
    assert encoder.params is not None
    texts_of_a_point = {"test": _texts(texts, length).splits["finetune"]}
    base_alone = Region(encoder.model, encoder.params, (), base_sha256="")
    budget, copies = memory_budget(device=hardware.chip), copies_of_a_member(hardware.chip)
    chips = jax.local_devices()[:1] * hardware.chips_together
    for parts in divisors(len(chips)):
        model = cuts.bytes_on_each(encoder.params, parts)
        needed = (2 + copies) * model  # the base, the point, and a member that is added to it
        if needed <= budget:
            mesh = mesh_for(points, model=parts, devices=chips)
            settings = Settings(chunk=1, mesh=mesh, memory_budget_gib=2.0**20)
            layout = plan_features(base_alone, np.zeros((1, 1)), texts_of_a_point, settings=settings)
            needed = layout.needed_bytes + copies * sum(whole_member_bytes(encoder.params, mesh))
        if needed <= budget:
            break
    return Memory(needed, budget), parts


def _texts(texts: int, length: float) -> Dataset:
    """Returns a dataset whose fine-tuning split has texts of one length, and its validation split the same texts."""
    tokens = max(1, round(length))
    ids = np.zeros(texts * tokens, np.int32)
    offsets = np.arange(texts + 1, dtype=np.int64) * tokens
    split = Split(ids, ids, offsets, np.zeros(texts, np.int32))
    return Dataset("planned", "planned", 2, ("0", "1"), "accuracy", {"finetune": split, "validation": split}, "")
