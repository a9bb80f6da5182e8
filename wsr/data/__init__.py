"""Datasets: from packages, files, hubs and catalogues to tokenised, disjoint splits and packed batches."""

from wsr.data.dataset import Dataset, Split
from wsr.data.examples import Columns
from wsr.data.load import load_dataset
from wsr.data.table import DatasetSpec, register

__all__ = ["Columns", "Dataset", "DatasetSpec", "Split", "load_dataset", "register"]
