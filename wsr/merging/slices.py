"""Slices: parts of the result, each merged of layers of its own models, as in mergekit's recipes.

A layer of a model is known by the number in the names of its tensors, such as ``model.layers.3.mlp.up_proj.weight``.
Tensors outside layers come from the first slice (token tables and what belongs to them) or from the last.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsr.errors import WsrError
from wsr.merging.layers import layer_of
from wsr.merging.method import Method

_BEFORE = re.compile(r"embed(?!_out)|(^|[./])(wte|wpe|shared)[./]")
"""Names of tensors that come before the layers."""
_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
"""Names that configs give to the number of layers."""

MethodOf = Callable[[str, float, Sequence[str]], Method]
"""``method(name, depth, names)`` of a tensor of the result: its name, the position of its layer in the slice, from 0 to
1, and its name in each member."""


@dataclass(frozen=True)
class Slice:
    """A part of the result and what it is merged of."""

    members: tuple[str, ...]
    """The models that are merged; one may be listed several times."""
    base: str | None
    """The base, if the method has one."""
    method: MethodOf
    """The method of each tensor."""
    layers: Mapping[str, range] | None = None
    """The layers that are taken of each model; None: the slice is the whole result."""

    @property
    def models(self) -> tuple[str, ...]:
        """Returns each model once; the first gives the types of the tensors."""
        return tuple(dict.fromkeys((*((self.base,) if self.base else ()), *self.members)))

    def __len__(self) -> int:
        """Number of layers of a slice that does not take all."""
        return len(next(iter(self.layers.values()))) if self.layers else 0


def depths(names: Iterable[str]) -> dict[str, float]:
    """Returns the position of each tensor's layer in its stack of layers: 0 is the first, 1 the last; 0 outside layers.

    The only layer of a stack has the position 1, as in mergekit.

    Args:
      names: names of tensors or paths of leaves.

    Example:
      >>> from wsr.merging.slices import depths
      >>> depths(["layers/0/kernel", "layers/1/kernel", "layers/2/kernel", "embedding"])
      {'layers/0/kernel': 0.0, 'layers/1/kernel': 0.5, 'layers/2/kernel': 1.0, 'embedding': 0.0}
    """
    places = {name: layer_of(name) for name in names}
    ends: dict[str, list[int]] = {}
    for stack, layer in filter(None, places.values()):
        first, last = ends.setdefault(stack, [layer, layer])
        ends[stack] = [min(first, layer), max(last, layer)]

    def depth(place: tuple[str, int] | None) -> float:
        if place is None:
            return 0.0
        first, last = ends[place[0]]
        return (place[1] - first) / (last - first) if last > first else 1.0

    return {name: depth(place) for name, place in places.items()}


def taken(model: str, names: Iterable[str], slices: Sequence[Slice], number: int) -> dict[str, str]:
    """Returns the names of the tensors that a slice takes of a model, by their names in the result.

    Args:
      model: the model.
      names: the names of its tensors.
      slices: the slices of the result.
      number: index of the slice.

    Raises:
      WsrError: if the model has fewer layers, or several stacks of layers.
    """
    own, names = slices[number], list(names)
    if own.layers is None:
        return {name: name for name in names}
    wanted, start = own.layers[model], sum(len(before) for before in slices[:number])
    places = {name: layer_of(name) for name in names}
    stacks = sorted({place[0] for place in places.values() if place})
    if len(stacks) != 1:
        told = f"has layers under {', '.join(stacks)}" if stacks else "has no numbered layers"
        raise WsrError(f"slices: {model} {told}; slices are taken of models with one stack; list whole models instead")
    have = 1 + max(place[1] for place in places.values() if place)
    if wanted.stop > have:
        raise WsrError(f"slices: layer_range [{wanted.start}, {wanted.stop}] of {model}, which has {have} layers")
    found = {}
    for name, place in places.items():
        if place and place[1] in wanted:
            stack, layer = place
            found[f"{stack}{start + layer - wanted.start}{name[len(f'{stack}{layer}') :]}"] = name
        elif not place and number == (0 if _BEFORE.search(name) else len(slices) - 1):
            found[name] = name
    return found


def without_layers(config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Returns a config without its number of layers and its lists of one entry for each layer."""
    if config is None:
        return None
    return {name: value for name, value in config.items() if name not in _COUNTS and not _by_layer(config, name)}


def with_layers(configs: Mapping[str, Mapping[str, Any]], slices: Sequence[Slice]) -> dict[str, Any]:
    """Returns the config of the result: that of the first model, with as many layers as the slices have.

    Args:
      configs: the config of each model.
      slices: the slices of the result, which take some layers each.

    Raises:
      WsrError: if the config of the first model does not say how many layers it has.
    """
    first = slices[0].models[0]
    config = dict(configs[first])
    counts = [name for name in _COUNTS if isinstance(config.get(name), int)]
    if not counts:
        raise WsrError(f"slices: the config of {first} has none of {', '.join(_COUNTS)}, so its layers are not counted")
    for name in configs[first]:
        if _by_layer(configs[first], name):
            config[name] = [
                configs[own.models[0]][name][layer] for own in slices for layer in (own.layers or {})[own.models[0]]
            ]
    return config | dict.fromkeys(counts, sum(map(len, slices)))


def _by_layer(config: Mapping[str, Any], name: str) -> bool:
    """Whether an attribute of a config is a list of one entry for each layer, such as ``layer_types``."""
    count = next((config[own] for own in _COUNTS if own in config), None)
    return "layer" in name and isinstance(config[name], list) and len(config[name]) == count
