"""Merging: many models in, one out. A method is a small class whose fields are its options.

method.py         the base classes of methods: options, and the data they need besides the weights
ingredients.py    base and members as leaves that are read in pieces, so that no model is whole in memory
run.py            merges a region, dicts of arrays or files leaf by leaf, with other methods for groups of leaves
arrays.py         dicts of arrays
averages.py       uniform, weighted (linear), task arithmetic
linear.py         which methods add up task vectors with coefficients known beforehand
spheres.py        SLERP, SLERP of many models, Karcher mean, Model Stock: coefficients from a Gram matrix
sparse.py         TIES, DARE, DELLA, breadcrumbs: task vectors of which a part is kept
sce.py            SCE
consensus.py      RAM, consensus of TALL masks, EMR: entries by how many members use them
pcb.py            PCB
layers.py         LiNeS
fusion.py         NuSLERP, nearswap, Arcee Fusion, passthrough
task_matrices.py  the base class of methods that merge matrices and average all other leaves
spectral.py       Iso-C, Iso-CTS, TSV-M: singular vectors of task matrices
wudi.py           WUDI
aligned.py        KnOTS, Core Space: adapters in a space that they share
magnitudes.py     which entries are kept by their magnitude
order_statistics.py   the k-th smallest of numbers that are read in pieces
soups.py          greedy soup and learned coefficients, chosen on a dataset
fisher.py, regmean.py, regmean_plus_plus.py, adamerging.py, own_texts.py   methods that use the members' own texts
recipe.py, recipe_parameters.py, yaml_file.py   YAML recipes
mergekit.py       how mergekit's methods and parameters map to ours
files.py          merges safetensors files and folders, by a recipe or by one method
slices.py         parts of the result that take some layers of their own models
fitting.py        whether models that lie in files fit together
adapters.py       models that are a base and an adapter
writing.py        writes the merged tensors in pieces
unfinished.py     the folder of a merge that is not complete, and its record
steps.py          averages of the checkpoints of one run

A method of your own is a class with ``register``, or with an entry point of the group ``wsr.merging``.

JAX is imported only by methods that need it, when they run, so that a merge of files starts at once.
"""

import importlib
from typing import Any

from wsr.merging.method import METHODS, Given, Method, find, register

_CLASSES = {
    place.rpartition(".")[2]: place.rpartition(".")[0]
    for place in METHODS.values()
    if isinstance(place, str) and place.startswith(f"{__name__}.")
}
"""The module of each method's class: ``wsr.merging.Ties`` and the others are imported when they are first used."""

__all__ = ["METHODS", "Given", "Method", "find", "register", *_CLASSES]


def __getattr__(name: str) -> Any:
    if name not in _CLASSES:
        raise AttributeError(f"module 'wsr.merging' has no attribute {name!r}")
    return getattr(importlib.import_module(_CLASSES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
