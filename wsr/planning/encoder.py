"""The shapes of an encoder, without its weights, for a plan."""

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
    """The sizes of an encoder, which determine its operations and bytes."""

    parameters: float
    """Number of parameters."""
    matrix_parameters: float
    """Number of parameters in matrices that every token is multiplied by: without embeddings, biases and norms."""
    layers: int = 0
    """Number of layers; 0: unknown."""
    hidden: int = 0
    """Number of features; 0: unknown."""
    model: Model | None = None
    """The architecture; None: unknown."""
    params: Params | None = None
    """Zeros of the parameters' shapes, which take no memory; None: only the number of parameters is known."""

    def operations(self, texts: float, length: float) -> float:
        """Returns the number of operations of a forward pass over ``texts`` texts of ``length`` tokens.

        A token takes ``2 N`` operations in matrix products, where ``N`` is ``matrix_parameters`` (Kaplan et al. 2020,
        arXiv 2001.08361, table 1; Hoffmann et al. 2022, arXiv 2203.15556, appendix F), and
        ``4 * layers * length * hidden`` in attention, whose queries meet ``length`` keys and values in every layer.
        """
        return texts * length * (2 * self.matrix_parameters + 4 * self.layers * length * self.hidden)

    def training_operations(self, texts: float, length: float) -> float:
        """Returns the number of operations of training on ``texts`` texts: three times those of the forward pass.

        The backward pass takes twice as many as the forward pass, hence the ``6 N`` a token in the literature.
        """
        return 3 * self.operations(texts, length)


def find_encoder(base: str) -> Encoder:
    """Returns the encoder of a checkpoint from its config, without a download.

    Args:
      base: a published name in ``wsr.planning.published``, a registered name, or a folder with a config.json.

    Raises:
      WsrError: the config of ``base`` is not known.

    Example:
      >>> from wsr.planning.encoder import find_encoder
      >>> encoder = find_encoder("roberta-base")
      >>> f"{encoder.parameters / 1e6:.0f} million parameters, {encoder.layers} layers"
      '124 million parameters, 12 layers'
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
    raise WsrError(f"--base={base}: its config is not known; give a folder with config.json, or one of {known}")


def by_number(parameters: float) -> Encoder:
    """Returns an encoder from its number of parameters, as if all of them were in matrices."""
    return Encoder(parameters, parameters)


def _of(model: Model) -> Encoder:
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), shapes)
    leaves = flatten(params)
    layers = next((model.config[name] for name in _LAYERS if name in model.config), 0)
    matrices = sum(leaf.size for path, leaf in leaves.items() if path.rsplit("/", 1)[-1] == "kernel")
    # ALBERT applies the same layer several times.
    times = layers if model.name == "albert" else 1
    return Encoder(sum(leaf.size for leaf in leaves.values()), times * matrices, layers, model.hidden, model, params)
