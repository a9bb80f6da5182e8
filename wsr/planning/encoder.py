"""An encoder as a plan sees it: shapes, and no weights."""

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from wsr import models
from wsr.errors import WsrError
from wsr.geometry.trees import flatten
from wsr.models import registry
from wsr.models.huggingface.config import read_config
from wsr.models.model import Model
from wsr.planning.published import CONFIGS
from wsr.types import Params

_LAYERS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")


@dataclass(frozen=True, eq=False)
class Encoder:
    """What its operations and bytes follow from."""

    parameters: float
    matrix_parameters: float
    """Of those, entries of the matrices that every token is multiplied by: no embedding, no bias, no norm."""
    layers: int = 0
    hidden: int = 0
    model: Model | None = None
    params: Params | None = None
    """Zeros of the parameters' shapes, which take no memory; None where only their number is known."""

    def operations(self, texts: float, length: float) -> float:
        """Operations of a forward pass over ``texts`` of ``length`` tokens: ``2 N`` a token, and attention.

        ``2 N D`` as Kaplan et al. 2020 (arXiv 2001.08361, table 1) and Hoffmann et al. 2022 (arXiv 2203.15556, appendix
        F) have it, N without embeddings; a token's query is multiplied with ``length`` keys and as many values:
        ``4 * layers * length * hidden``.
        """
        return texts * length * (2 * self.matrix_parameters + 4 * self.layers * length * self.hidden)

    def training_operations(self, texts: float, length: float) -> float:
        """Operations of as many steps as read ``texts``: the gradient takes twice the forward pass; ``6 N D``."""
        return 3 * self.operations(texts, length)


def find_encoder(base: str) -> Encoder:
    """Returns the encoder of a checkpoint from its config: a published one, a registered name or a folder.

    Raises:
      WsrError: where no config is at hand.
    """
    if base in CONFIGS:
        return _of(models.build(*CONFIGS[base]))
    if base in registry.checkpoints():
        return _of(models.load(base).model)
    if (Path(base) / "config.json").is_file():
        name, config = read_config(Path(base))
        present = models.architectures()[name].counterpart
        optional = dict.fromkeys(present.present, True) if present else {}
        return _of(models.build(name, {**config, **optional, "pooling": "mean"}))
    known = ", ".join([*CONFIGS, *registry.checkpoints()])
    raise WsrError(f"--base={base}: no config of it is at hand; a folder with config.json, or one of {known}")


def by_number(parameters: float) -> Encoder:
    """Returns an encoder of which only the number of parameters is known: all are taken to be multiplied by."""
    return Encoder(parameters, parameters)


def _of(model: Model) -> Encoder:
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), shapes)
    leaves = flatten(params)
    layers = next((model.config[name] for name in _LAYERS if name in model.config), 0)
    matrices = sum(leaf.size for path, leaf in leaves.items() if path.rsplit("/", 1)[-1] == "kernel")
    # ALBERT's layers are the same ones again.
    times = layers if model.name == "albert" else 1
    return Encoder(sum(leaf.size for leaf in leaves.values()), times * matrices, layers, model.hidden, model, params)
