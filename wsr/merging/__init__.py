"""A population in, one model out: a method is a small class whose fields are its options.

method.py         what a method is: options, what it needs beside the weights
ingredients.py     base and members as leaves that are read in pieces; no model need be whole in memory
run.py            every leaf under its method; parameter groups
averages.py       uniform, weighted (linear), task arithmetic
spheres.py        SLERP, its generalisation to many, Karcher mean, Model Stock: coefficients from a Gram matrix
sparse.py         TIES, DARE, DELLA, breadcrumbs: task vectors of which a part is kept
sce.py            SCE
order_statistics.py   the value of a rank among numbers that are read in pieces
soups.py          greedy soup and learned coefficients: chosen on a dataset
fisher.py, regmean.py, adamerging.py, own_texts.py   what members' own texts say
recipe.py, yaml_file.py, files.py, tensor_files.py   YAML recipes over safetensors files

Nothing here imports JAX before a method that needs it runs: a merge of files starts in a moment.
"""

import importlib
from typing import Any

from wsr.merging.method import METHODS, Given, Method, find

_CLASSES = {place.rpartition(".")[2]: place.rpartition(".")[0] for place in METHODS.values()}
"""The module of each method's class: ``wsr.merging.Ties`` and the others are imported when they are first used."""

__all__ = ["METHODS", "Given", "Method", "find", *_CLASSES]


def __getattr__(name: str) -> Any:
    if name not in _CLASSES:
        raise AttributeError(f"module 'wsr.merging' has no attribute {name!r}")
    return getattr(importlib.import_module(_CLASSES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
