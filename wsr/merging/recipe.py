"""YAML recipes as for mergekit: models or slices, filters on names, gradients over layers, several stages.

Sums are taken in float32 or better; ``dtype`` only says how the result is stored.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wsr.errors import WsrError, nearest_names
from wsr.merging.adapters import parted
from wsr.merging.mergekit import translation
from wsr.merging.method import METHODS, OfWeights, find
from wsr.merging.recipe_parameters import Settings, method_for, refuse_unknown
from wsr.merging.slices import Slice
from wsr.merging.yaml_file import read_documents
from wsr.runtime.tensor_files import NAMES

KEYS = (
    *("merge_method", "base_model", "models", "slices", "parameters", "dtype", "out_dtype"),
    *("tokenizer_source", "tokenizer", "name", "out_path"),
)
DTYPES = {name: dtype for dtype, name in NAMES.items()}
_INSTEAD = {
    "modules": "models with several stacks of layers are merged whole: list them under models",
    "chat_template": "the result has the template of its base; copy another chat_template.jinja into its folder",
    "genome": "this is a recipe of mergekit-evolve; wsr suggest finds coefficients",
    "residual_weight": "leave it out",
    "lora": "write model: BASE+ADAPTER",
}
"""Keys of mergekit that are refused, and what to do."""


@dataclass(frozen=True)
class RecipeSlice:
    """The models of a slice, with their parameters."""

    base: str | None
    """The base, if the method has one."""
    members: tuple[str, ...]
    """Names or paths of the models to merge; one may be listed several times."""
    each: tuple[Settings, ...]
    """Parameters of each member."""
    shared: tuple[Settings, ...]
    """Parameters of all members, the ones that count most first."""
    layers: Mapping[str, range] | None = None
    """The layers that are taken of each model; None: all of them, and the slice is the whole result."""


@dataclass(frozen=True)
class MergeRecipe:
    """The contents of a recipe."""

    path: Path
    """The recipe's file."""
    name: str
    """Name by which later stages refer to the result; empty for the last stage."""
    merge_method: str
    """Name of the method in mergekit."""
    dtype: str | None
    """Storage type of the result, in the notation of safetensors; None: that of each tensor in the first model."""
    slices: tuple[RecipeSlice, ...]
    """The slices of the result; a recipe that lists models has one."""
    stages: tuple["MergeRecipe", ...] = ()
    """Recipes whose results this one merges, in the order in which they run."""

    @property
    def members(self) -> tuple[str, ...]:
        """The models that are merged; those of several slices once each."""
        if len(self.slices) == 1:
            return self.slices[0].members
        return tuple(dict.fromkeys(name for own in self.slices for name in own.members))

    @property
    def merged(self) -> tuple[str, ...]:
        """The models and adapters that it merges, once each: those of its stages, too, and no results of stages."""
        return self._read(lambda own: own.members)

    @property
    def bases(self) -> tuple[str, ...]:
        """The bases of all its stages, once each."""
        return self._read(lambda own: (own.base,) if own.base else ())

    def _read(self, names: Callable[[RecipeSlice], Sequence[str]]) -> tuple[str, ...]:
        stages = {own.name for own in self.stages}
        listed = [name for own in (*self.stages, self) for part in own.slices for name in names(part)]
        parts = [part for name in listed for part in parted(name)]
        return tuple(name for name in dict.fromkeys(parts) if name and name not in stages)

    def slices_of(self, written: Mapping[str, str]) -> list[Slice]:
        """Returns the slices, with paths in place of the names of stages.

        Args:
          written: the folder of each stage that has run, by name.
        """

        def located(name: str) -> str:
            base, plus, adapter = name.partition("+")
            return written.get(base, base) + plus + adapter

        return [
            Slice(
                tuple(map(located, own.members)),
                located(own.base) if own.base else None,
                method_for(self.path, self.merge_method, own.base, own.members, own.each, own.shared),
                None if own.layers is None else {located(name): layers for name, layers in own.layers.items()},
            )
            for own in self.slices
        ]


def read_recipe(path: Path) -> MergeRecipe:
    """Reads a recipe; of several documents (``---``), the last stage, with the others among its stages.

    Args:
      path: a YAML file.

    Raises:
      WsrError: if the file is not YAML, has a key or method that is not supported, or lists no models.
    """
    found: dict[str, MergeRecipe] = {}
    for content in read_documents(path):
        own = _read(path, content)
        if own.name in found:
            what = f"two stages are called {own.name}" if own.name else "two stages have no name"
            raise WsrError(f"{path}: {what}; name each stage but the last (name: NAME)")
        found[own.name] = own
    if not found:
        raise WsrError(f"{path}: expected a recipe with {', '.join(KEYS)}")
    return _ordered(path, found)


def _ordered(path: Path, found: Mapping[str, MergeRecipe]) -> MergeRecipe:
    """Returns the stage that no other stage merges, with those that it needs in the order in which they run."""

    def used(own: MergeRecipe) -> list[str]:
        names = [name.partition("+")[0] for part in own.slices for name in (part.base or "", *part.members)]
        return [name for name in dict.fromkeys(names) if name in found and name]

    ordered: list[MergeRecipe] = []

    def visit(own: MergeRecipe, above: tuple[str, ...]) -> None:
        if own.name in above:
            raise WsrError(f"{path}: stages merge each other in a circle: {' -> '.join((*above, own.name))}")
        for name in used(own):
            visit(found[name], (*above, own.name))
        if own not in ordered:
            ordered.append(own)

    needed = {name for own in found.values() for name in used(own)}
    last = [own for name, own in found.items() if name not in needed]
    for own in last or list(found.values()):
        visit(own, ())
    if len(last) > 1:
        names = ", ".join(own.name or "the one without a name" for own in last)
        raise WsrError(f"{path}: several stages are merged by no other: {names}; a recipe has one result")
    return replace(last[0], stages=tuple(ordered[:-1]))


def _read(path: Path, content: Any) -> MergeRecipe:
    if not isinstance(content, dict):
        raise WsrError(f"{path}: expected a recipe with {', '.join(KEYS)}")
    unknown = [str(key) for key in content if key not in KEYS]
    if unknown:
        why = _INSTEAD.get(unknown[0], f"a recipe has {', '.join(KEYS)}")
        raise WsrError(f"{path}: {', '.join(unknown)}: not supported; {why}")
    name = str(content.get("merge_method"))
    if name not in METHODS or not issubclass(find(name), OfWeights):
        nearest = nearest_names(name, sorted(METHODS))
        why = " because it needs texts; use --store and --method" if name in METHODS else ""
        raise WsrError(f"{path}: merge_method: {name}: not supported in recipes{why or f'; nearest: {nearest}'}")
    if ("models" in content) == ("slices" in content):
        raise WsrError(f"{path}: expected models, a list of {{model: NAME, parameters: ...}}, or slices")
    base = None if content.get("base_model") is None else _reference(path, "base_model", content["base_model"])
    shared = (_parameters(path, "parameters", content),)
    if "models" in content:
        models = [(model, own) for model, own, _ in _models(path, "models", content["models"], ("model", "parameters"))]
        slices: tuple[RecipeSlice, ...] = (_with_base(path, name, base, models, shared),)
    else:
        slices = tuple(_slices(path, name, base, content["slices"], shared))
    for own in slices:
        refuse_unknown(path, name, (*own.shared, *own.each))
    dtype = content.get("out_dtype") or content.get("dtype")
    if dtype is not None and dtype not in DTYPES:
        raise WsrError(f"{path}: dtype: {dtype}: expected one of {', '.join(DTYPES)}")
    _refuse_tokens(path, content)
    called = str(content.get("name") or content.get("out_path") or "")
    return MergeRecipe(path, called, name, DTYPES[dtype] if dtype else None, slices)


def _models(path: Path, where: str, listed: Any, keys: Sequence[str]) -> list[tuple[str, Settings, Any]]:
    """Returns the name, the parameters and the layers of each entry of a list of models."""
    told = f"expected {where}, a list of {{{', '.join(f'{key}: ...' for key in keys)}}}"
    if not isinstance(listed, list) or not listed:
        raise WsrError(f"{path}: {told}")
    models = []
    for entry in listed:
        if not isinstance(entry, dict) or "model" not in entry:
            raise WsrError(f"{path}: {where}: {entry}: {told}")
        unknown = [str(key) for key in entry if key not in keys]
        if unknown:
            why = _INSTEAD.get(unknown[0], f"expected {', '.join(keys)}, nothing else")
            raise WsrError(f"{path}: {where}: {', '.join(unknown)}: not supported; {why}")
        models.append(
            (_reference(path, where, entry["model"]), _parameters(path, where, entry), entry.get("layer_range"))
        )
    return models


def _slices(path: Path, method: str, base: str | None, listed: Any, shared: tuple[Settings, ...]) -> list[RecipeSlice]:
    if not isinstance(listed, list) or not listed:
        raise WsrError(f"{path}: expected slices, a list of {{sources: [{{model: NAME, layer_range: [0, 8]}}]}}")
    found = []
    for number, entry in enumerate(listed):
        where = f"slices[{number}]"
        if not isinstance(entry, dict):
            raise WsrError(f"{path}: {where}: {entry!r}: expected sources, base_model and parameters")
        unknown = [str(key) for key in entry if key not in ("sources", "base_model", "parameters")]
        if unknown:
            why = _INSTEAD.get(unknown[0], "expected sources, base_model and parameters")
            raise WsrError(f"{path}: {where}: {', '.join(unknown)}: not supported; {why}")
        sources = _models(path, f"{where}.sources", entry.get("sources"), ("model", "layer_range", "parameters"))
        layers: dict[str, range] = {}
        for model, _, given in sources:
            if not (
                isinstance(given, list) and len(given) == 2 and all(type(end) is int and end >= 0 for end in given)
            ):
                raise WsrError(f"{path}: {where}: layer_range of {model} is {given!r}; expected two whole numbers")
            if layers.setdefault(model, range(*given)) != range(*given) or not range(*given):
                raise WsrError(f"{path}: {where}: layer_range of {model} is {given!r}, or listed twice")
        if len({len(own) for own in layers.values()}) > 1:
            raise WsrError(f"{path}: {where}: the sources have different numbers of layers: {layers}")
        own_base = base if entry.get("base_model") is None else _reference(path, where, entry["base_model"])
        if own_base is not None and own_base not in layers:
            if translation(method).base == "required":
                raise WsrError(f"{path}: {where}: base_model {own_base} is not a source; list it with its layer_range")
            own_base = None
        models = [(model, own) for model, own, _ in sources]
        made = _with_base(path, method, own_base, models, (_parameters(path, where, entry), *shared))
        found.append(replace(made, layers=layers))
    return found


def _with_base(
    path: Path, name: str, base: str | None, models: list[tuple[str, Settings]], shared: tuple[Settings, ...]
) -> RecipeSlice:
    """Returns a slice whose base is not a member, or is one, as the method wants it."""
    kind = translation(name).base
    if kind == "required" and base is None:
        raise WsrError(f"{path}: {name} needs base_model, a name or a path")
    if base is not None and kind == "member":
        if base not in (model for model, _ in models):
            models = [*models, (base, {})]
        base = None
    elif base is not None:
        own = [entry for entry in models if entry[0] == base] or [(base, {})]
        models = [entry for entry in models if entry[0] != base]
        if name == "slerp":  # merges two models, one of which mergekit calls the base
            models, base = [*own, *models], None
    members, each = zip(*models, strict=True) if models else ((), ())
    return RecipeSlice(base, members, each, shared)


def _parameters(path: Path, where: str, entry: Mapping[str, Any]) -> Settings:
    found = entry.get("parameters") or {}
    if not isinstance(found, dict):
        raise WsrError(f"{path}: {where}: parameters: {found!r}: expected a table of names and values")
    return found


def _reference(path: Path, where: str, value: Any) -> str:
    """Returns ``MODEL`` or ``MODEL+ADAPTER`` from a text, or from mergekit's table of a model and its adapter."""
    if isinstance(value, str):
        return value
    parts = {"model": value} if isinstance(value, dict) and "path" in value else value
    if isinstance(parts, dict) and "model" in parts and not parts.keys() - {"model", "lora"}:
        named = [parts[key] for key in ("model", "lora") if parts.get(key) is not None]
        names = [own.get("path") if isinstance(own, dict) and set(own) == {"path"} else own for own in named]
        if all(isinstance(name, str) for name in names):
            return "+".join(map(str, names))
    raise WsrError(f"{path}: {where}: {value!r}: expected a name or a path, or BASE+ADAPTER; download a revision first")


def _refuse_tokens(path: Path, content: Mapping[str, Any]) -> None:
    """Refuses tokenizers that are built token by token; others are those of the models, which must agree."""
    tokenizer = content.get("tokenizer") or {"source": content.get("tokenizer_source")}
    if not isinstance(tokenizer, dict) or tokenizer.keys() - {"source"}:
        raise WsrError(
            f"{path}: tokenizer: {tokenizer}: only source is supported; set single tokens or padding with transformers "
            "(resize_token_embeddings) after the merge"
        )
