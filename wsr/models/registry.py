"""Names of architectures, and of the checkpoints that can be loaded by name alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from wsr.errors import WsrError
from wsr.models.counterpart import Counterpart
from wsr.models.model import Checkpoint, Model


@dataclass(frozen=True)
class Architecture:
    """How to build a model from its config."""

    build: Callable[[Mapping[str, Any]], Model]
    example: Mapping[str, Any]
    """A small config that the common tests use."""
    counterpart: Counterpart | None
    """What makes Hugging Face folders of it readable and writable."""


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
    """Makes ``build(config) -> Model`` known as ``name``.

    With ``counterpart`` its Hugging Face folders are read and written; with ``checkpoint``, ``load(name)`` works.
    """
    if name in _architectures:
        raise WsrError(f"the architecture {name!r} is registered already; choose another name")
    _architectures[name] = Architecture(build, example, counterpart)
    if checkpoint is not None:
        register_checkpoint(name, checkpoint)


def register_checkpoint(name: str, checkpoint: Callable[[], Checkpoint]) -> None:
    """Makes ``load(name)`` return ``checkpoint()``."""
    if name in _checkpoints:
        raise WsrError(f"the checkpoint {name!r} is registered already; choose another name")
    _checkpoints[name] = checkpoint


def build(name: str, config: Mapping[str, Any]) -> Model:
    """Returns the model of architecture ``name`` with ``config``."""
    if name not in _architectures:
        raise WsrError(f"unknown architecture {name!r}; known: {', '.join(sorted(_architectures))}")
    return _architectures[name].build(config)


def architectures() -> Mapping[str, Architecture]:
    """Every registered architecture by name."""
    return dict(_architectures)


def checkpoints() -> Mapping[str, Callable[[], Checkpoint]]:
    """Every checkpoint that has a name, as a function that loads it."""
    return dict(_checkpoints)
