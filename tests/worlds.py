"""Small worlds that several tests share: the tiny encoder and made-up datasets."""

from wsr.data.dataset import Dataset
from wsr.data.load import load_dataset
from wsr.models import Checkpoint

SIZES = {"finetune": 64, "probe": 40, "validation": 24, "test": 40}


def made_up(checkpoint: Checkpoint, name: str, **sizes: int) -> Dataset:
    """A made-up dataset, tokenised for ``checkpoint``."""
    return load_dataset(name, checkpoint.tokenizer, max_length=48, sizes=SIZES | sizes)
