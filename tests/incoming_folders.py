"""Hugging Face folders as people bring them, made from the tiny checkpoint without PyTorch."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load_file, save_file

from wsr import models


def near(params: Any, seed: int, scale: float = 0.01) -> Any:
    """A model near ``params``: each entry moved a little."""
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: np.asarray(leaf + scale * random.standard_normal(leaf.shape), np.float32), params)


def write(base: models.Checkpoint, folder: Path, seed: int, scale: float = 0.01) -> Path:
    """Writes a folder of a model near ``base``."""
    models.export(replace(base, params=near(base.params, seed, scale)), folder)
    return folder


def write_independent(base: models.Checkpoint, folder: Path, seed: int) -> Path:
    """Writes a folder of a model that has nothing in common with ``base`` but its form."""
    random = np.random.default_rng(seed)
    drawn = jax.tree.map(lambda leaf: 0.2 * random.standard_normal(leaf.shape).astype(np.float32), base.params)
    models.export(replace(base, params=drawn), folder)
    return folder


def edit_config(folder: Path, **changes: Any) -> None:
    """Changes attributes of a folder's config."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rewrite(folder: Path, change: Any) -> dict[str, np.ndarray]:
    """Replaces the tensors of a folder by ``change(tensors)``."""
    path = folder / "model.safetensors"
    tensors = change(load_file(path))
    path.unlink()
    save_file(tensors, path)
    return tensors
