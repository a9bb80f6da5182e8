"""Small worlds that several tests share: the tiny encoder and made-up datasets."""

import jax
import numpy as np

from wsr.data.dataset import Dataset
from wsr.data.load import load_dataset
from wsr.models import Checkpoint
from wsr.region.region import Region, from_params

SIZES = {"finetune": 64, "probe": 40, "validation": 24, "test": 40}


def made_up(checkpoint: Checkpoint, name: str, **sizes: int) -> Dataset:
    """A made-up dataset, tokenised for ``checkpoint``."""
    return load_dataset(name, checkpoint.processor, max_length=48, sizes=SIZES | sizes)


def three_near(checkpoint: Checkpoint) -> Region:
    """Three members near ``checkpoint``."""
    generator = np.random.default_rng(0)

    def moved(leaf: np.ndarray) -> np.ndarray:
        return (leaf + 0.05 * generator.normal(size=leaf.shape)).astype(np.float32)

    members = {f"m{number}": jax.tree.map(moved, checkpoint.params) for number in range(3)}
    return from_params(checkpoint.model, checkpoint.params, members)
