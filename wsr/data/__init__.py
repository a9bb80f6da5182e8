"""Datasets of texts or images: from packages, files, hubs and catalogues to disjoint splits and their batches."""

from wsr.data.dataset import Dataset, Split
from wsr.data.examples import Columns
from wsr.data.load import load_dataset
from wsr.data.table import DatasetSpec, register

__all__ = ["Columns", "Dataset", "DatasetSpec", "Split", "load_dataset", "register"]
