"""The registered architectures, and the checkpoints that ``load`` knows by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from wsr.errors import WsrError
from wsr.models.counterpart import Counterpart
from wsr.models.model import Checkpoint, Model


@dataclass(frozen=True)
class Architecture:
    """One entry of the registry: how to build an architecture's models and convert their weights."""

    build: Callable[[Mapping[str, Any]], Model]
    example: Mapping[str, Any]
    """A small config, for the tests that every architecture passes."""
    counterpart: Counterpart | None
    """Describes its Hugging Face models; None: its folders can be neither read nor written."""


_architectures: dict[str, Architecture] = {}
_checkpoints: dict[str, Callable[[], Checkpoint]] = {}


def register(
    name: str,
    build: Callable[[Mapping[str, Any]], Model],
    *,
    example: Mapping[str, Any],
    counterpart: Counterpart | None = None,
    checkpoint: Callable[[], Checkpoint] | None = None,
) -> None:
    """Registers an architecture, so that ``wsr.models.build(name, config)`` and stores find it.

    Args:
      name: the name that stores and configs use; it is also the name of the models that ``build`` returns.
      build: returns the model that a config describes.
      example: a small config, for the tests that every architecture passes.
      counterpart: describes its Hugging Face models, so that ``load`` and ``export`` convert them; None: no conversion.
      checkpoint: returns the checkpoint that ``load(name)`` gives; None: no such name.

    Raises:
      WsrError: the name is taken.

    Example:
      >>> import dataclasses, wsr
      >>> def tiny_with_cls(config):
      ...     return dataclasses.replace(wsr.models.build("bert", {**config, "pooling": "cls"}), name="tiny_with_cls")
      >>> wsr.models.register("tiny_with_cls", tiny_with_cls, example=wsr.load("tiny").model.config)
      >>> wsr.models.build("tiny_with_cls", wsr.load("tiny").model.config).config["pooling"]
      'cls'
    """
    if name in _architectures:
        raise WsrError(f"the architecture {name!r} is registered already; choose another name")
    _architectures[name] = Architecture(build, example, counterpart)
    if checkpoint is not None:
        register_checkpoint(name, checkpoint)


def register_checkpoint(name: str, checkpoint: Callable[[], Checkpoint]) -> None:
    """Registers a checkpoint, so that ``load(name)`` returns ``checkpoint()``.

    Raises:
      WsrError: the name is taken.

    Example:
      >>> import wsr
      >>> wsr.models.register_checkpoint("tiny_by_another_name", lambda: wsr.load("tiny"))
      >>> wsr.load("tiny_by_another_name").model.name
      'tiny'
    """
    if name in _checkpoints:
        raise WsrError(f"the checkpoint {name!r} is registered already; choose another name")
    _checkpoints[name] = checkpoint


def build(name: str, config: Mapping[str, Any]) -> Model:
    """Returns the model of a registered architecture with a given config.

    Args:
      name: the architecture, one of ``wsr.models.architectures()``.
      config: its config, without defaults: the error message names missing keys.

    Raises:
      WsrError: an unknown architecture, or a config with missing, unknown or invalid keys.

    Example:
      >>> import jax, wsr
      >>> config = {**wsr.load("tiny").model.config, "hidden_size": 32, "num_hidden_layers": 4}
      >>> model = wsr.models.build("bert", config)
      >>> model.hidden, len(model.init(jax.random.key(0))["layers"])
      (32, 4)
    """
    if name not in _architectures:
        raise WsrError(f"unknown architecture {name!r}; known: {', '.join(sorted(_architectures))}")
    return _architectures[name].build(config)


def architectures() -> Mapping[str, Architecture]:
    """Returns every registered architecture, by name.

    Example:
      >>> import wsr
      >>> {"bert", "deberta_v2", "llama", "vit"} <= set(wsr.models.architectures())
      True
      >>> wsr.models.architectures()["bert"].counterpart.model_class
      'BertModel'
    """
    return dict(_architectures)


def checkpoints() -> Mapping[str, Callable[[], Checkpoint]]:
    """Returns the function that loads each registered checkpoint, by name."""
    return dict(_checkpoints)
