"""YAML recipes as for mergekit, for the methods that both packages have.

Where mergekit 0.1.5 and a paper differ, a recipe follows mergekit: TIES trims leaf by leaf, DARE and DELLA restore the
sum of magnitudes that they dropped from, SLERP is a straight line above a cosine of 0.9995; ``_METHODS`` lists all
differences. Sums are taken in float32 or better; ``dtype`` only says how the result is stored.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from wsr.errors import WsrError, nearest_names
from wsr.merging.method import METHODS, Method, OfWeights, find, kinds_of, made, options_of
from wsr.merging.yaml_file import read_yaml
from wsr.runtime.tensor_files import NAMES

KEYS = ("merge_method", "base_model", "models", "parameters", "dtype", "out_dtype")
DTYPES = {name: dtype for dtype, name in NAMES.items()}
_REQUIRED = object()


@dataclass(frozen=True)
class _Translation:
    """How a method of mergekit maps to a method of this package."""

    base: str
    """How mergekit uses ``base_model``: "required", "optional", or "member" if it is one of the models."""
    options: Callable[[dict[str, Any]], dict[str, Any]]
    """Turns the shared parameters, and the per-member ones as lists, into our options."""
    shared: Mapping[str, tuple[type, Any]]
    """Parameters of the merge: type and default."""
    each: Mapping[str, tuple[type, Any]]
    """Parameters of each member: type and default."""
    method: str = ""
    """Our name of the method, if it differs."""


@dataclass(frozen=True)
class MergeRecipe:
    """The contents of a recipe."""

    path: Path
    """The recipe's file."""
    merge_method: str
    """Name of the method in mergekit."""
    base_model: str | None
    """The base, if the method has one."""
    members: tuple[str, ...]
    """Names or paths of the models to merge; one may be listed several times."""
    dtype: str | None
    """Storage type of the result, in the notation of safetensors; None: that of each tensor in the first model."""
    shared: Mapping[str, Any]
    """Parameters of the merge."""
    each: tuple[Mapping[str, Any], ...]
    """Parameters of each member."""

    def method(self, leaf: str) -> Method:
        """Returns the method for one tensor.

        Args:
          leaf: name of the tensor.

        Raises:
          WsrError: if a required parameter is missing, or a value has the wrong type.
        """
        translation = _translation(self.merge_method)
        values: dict[str, Any] = {"base_model": self.base_model} | {
            name: self._value(name, leaf, kind, default, (self.shared,))
            for name, (kind, default) in translation.shared.items()
        }
        for name, (kind, default) in translation.each.items():
            values[name] = tuple(
                self._value(name, leaf, kind, default, (own, self.shared), member)
                for member, own in zip(self.members, self.each, strict=True)
            )
        return made(translation.method or self.merge_method, translation.options(values))

    def _value(
        self, name: str, leaf: str, kind: type, default: Any, scopes: Sequence[Mapping[str, Any]], member: str = ""
    ) -> Any:
        for scope in scopes:
            if name in scope:
                found = self._setting(name, scope[name], leaf)
                if found is not None:
                    return self._typed(name, found, kind)
        if default is _REQUIRED:
            raise WsrError(f"{self.path}: {self.merge_method} needs {name}{f' of {member}' if member else ''} ({leaf})")
        return default

    def _setting(self, name: str, setting: Any, leaf: str) -> Any:
        """Returns a value, or the first of several ``{filter, value}`` whose filter occurs in the tensor's name."""
        for entry in setting if isinstance(setting, list) else [setting]:
            if not isinstance(entry, Mapping):
                if isinstance(setting, list):
                    raise WsrError(
                        f"{self.path}: {name}: {setting}: gradients over layers are not supported; use filters"
                    )
                return entry
            unknown = set(entry) - {"filter", "value"}
            if unknown or "value" not in entry:
                raise WsrError(
                    f"{self.path}: {name}: {dict(entry)}: expected value, and filter if it is not for all tensors"
                )
            if isinstance(entry["value"], list):
                raise WsrError(f"{self.path}: {name}: {entry['value']}: gradients over layers are not supported")
            if entry.get("filter") in (None, "*") or str(entry["filter"]) in leaf:
                return entry["value"]
        return None

    def _typed(self, name: str, value: Any, kind: type) -> Any:
        try:
            if kind is bool:
                if not isinstance(value, bool):
                    raise ValueError
                return value
            if isinstance(value, bool):
                raise ValueError
            return kind(value)  # YAML reads 1e-5 as a string
        except (TypeError, ValueError):
            raise WsrError(f"{self.path}: {name} = {value!r}; expected {kind.__name__}") from None


def read_recipe(path: Path) -> MergeRecipe:
    """Reads a recipe.

    Args:
      path: a YAML file.

    Raises:
      WsrError: if the file is not YAML, has a key or method that is not supported, or lists no models.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise WsrError(f"{path}: expected a recipe with {', '.join(KEYS)}")
    unknown = [str(key) for key in content if key not in KEYS]
    if unknown:
        raise WsrError(f"{path}: {', '.join(unknown)}: not supported; a recipe has {', '.join(KEYS)}")
    name = str(content.get("merge_method"))
    if name not in METHODS or not issubclass(find(name), OfWeights):
        nearest = nearest_names(name, sorted(METHODS))
        why = " because it needs texts; use --store and --method" if name in METHODS else ""
        raise WsrError(f"{path}: merge_method: {name}: not supported in recipes{why or f'; nearest: {nearest}'}")
    models = _models(path, content.get("models"))
    return _with_base(path, name, content, models)


def _models(path: Path, listed: Any) -> list[tuple[str, Mapping[str, Any]]]:
    if not isinstance(listed, list) or not listed:
        raise WsrError(f"{path}: expected models, a list of {{model: NAME, parameters: ...}}")
    models = []
    for entry in listed:
        if not isinstance(entry, dict) or not isinstance(entry.get("model"), str):
            raise WsrError(f"{path}: models: {entry}: expected model, a name or a path, and parameters")
        unknown = set(entry) - {"model", "parameters"}
        if unknown or not isinstance(entry.get("parameters") or {}, dict):
            raise WsrError(f"{path}: models: {entry}: expected model and parameters, nothing else")
        models.append((entry["model"], entry.get("parameters") or {}))
    return models


def _with_base(
    path: Path, name: str, content: Mapping[str, Any], models: list[tuple[str, Mapping[str, Any]]]
) -> MergeRecipe:
    translation, given = _translation(name), content.get("base_model")
    shared = content.get("parameters") or {}
    base = given if isinstance(given, str) else None
    if (given is not None and base is None) or (translation.base == "required" and base is None):
        raise WsrError(f"{path}: {name} needs base_model, a name or a path; found {given!r}")
    if base is not None and translation.base == "member":
        if base not in (model for model, _ in models):
            models.append((base, {}))
        base = None
    elif base is not None:
        own = [entry for entry in models if entry[0] == base] or [(base, {})]
        models = [entry for entry in models if entry[0] != base]
        if name == "slerp":  # merges two models, one of which mergekit calls the base
            models, base = [*own, *models], None
    known = {*translation.shared, *translation.each, "int8_mask"}
    used = {key for scope in (shared, *(parameters for _, parameters in models)) for key in scope}
    if used - known:
        strange = ", ".join(sorted(map(str, used - known)))
        raise WsrError(f"{path}: {strange}: not a parameter of {name}; it has {', '.join(sorted(known))}")
    dtype = content.get("out_dtype") or content.get("dtype")
    if dtype is not None and dtype not in DTYPES:
        raise WsrError(f"{path}: dtype: {dtype}: expected one of {', '.join(DTYPES)}")
    members, each = zip(*models, strict=True) if models else ((), ())
    return MergeRecipe(path, name, base, members, DTYPES[dtype] if dtype else None, shared, each)


def _translation(name: str) -> _Translation:
    """Returns how a recipe maps to a method; one that mergekit lacks has its own options as parameters."""
    return _METHODS.get(name) or _own_options(find(name))


def _own_options(kind: type[Method]) -> _Translation:
    """``weights`` is called ``weight`` as in mergekit; options with one value per member may stand with the member."""
    types = {name: kinds_of(about.hint) for name, about in options_of(kind).items()}
    each = {name: "weight" if name == "weights" else name for name in types if any(map(get_args, types[name]))}

    def options(values: dict[str, Any]) -> dict[str, Any]:
        found = {name: values[name] for name in types if name not in each}
        found |= {name: None if set(values[own]) == {None} else values[own] for name, own in each.items()}
        return {name: value for name, value in found.items() if value is not None}

    return _Translation(
        "required" if getattr(kind, "based", True) else "member",
        options,
        {name: (kinds[0], None) for name, kinds in types.items() if name not in each},
        dict.fromkeys(each.values(), (float, None)),
    )


def _sparse(values: dict[str, Any]) -> dict[str, Any]:
    """Returns the options of methods that keep a part of each task vector."""
    return {
        "weights": values["weight"],
        "density": tuple(min(density, 1.0) for density in values["density"]),
        "normalise": values["normalize"],
        "scale": values["lambda"],
        "rescale": "norm" if values["rescale"] else "none",
    }


def _same(name: str, values: tuple[float, ...]) -> float:
    """Returns the value that all members share; raises if they differ."""
    if len(set(values)) > 1:
        raise WsrError(f"recipe: {name} {', '.join(map(str, values))}: expected one value for all members")
    return values[0]


def _generalised(
    normalize: bool, rescale: bool, more: Callable[[dict[str, Any]], dict[str, Any]] = lambda values: {}, **each: Any
) -> _Translation:
    """Returns the translation of a method of mergekit's family of sums of task vectors."""
    return _Translation(
        "required",
        lambda values: {**_sparse(values), **more(values)},
        {"normalize": (bool, normalize), "rescale": (bool, rescale), "lambda": (float, 1.0)},
        {"weight": (float, _REQUIRED), "density": (float, 1.0), **each},
    )


def _della(values: dict[str, Any]) -> dict[str, Any]:
    return {"epsilon": 2 * _same("epsilon", values["epsilon"])}


def _gamma(values: dict[str, Any]) -> dict[str, Any]:
    return {"gamma": _same("gamma", values["gamma"])}


_METHODS: Mapping[str, _Translation] = {
    "linear": _Translation(
        "member",
        lambda values: {"weights": values["weight"], "normalise": values["normalize"]},
        {"normalize": (bool, True)},
        {"weight": (float, _REQUIRED)},
    ),
    "task_arithmetic": _Translation(
        "required",
        lambda values: {"weights": values["weight"], "normalise": values["normalize"], "scale": values["lambda"]},
        {"normalize": (bool, False), "lambda": (float, 1.0), "rescale": (bool, False)},
        {"weight": (float, _REQUIRED), "density": (float, 1.0)},
    ),
    "slerp": _Translation(
        "required", lambda values: {"t": values["t"], "linear_above": 0.9995}, {"t": (float, _REQUIRED)}, {}
    ),
    "multislerp": _Translation(
        "optional",
        lambda values: {
            "weights": values["weight"],
            "normalise": values["normalize_weights"],
            "around": "base" if values["base_model"] else "zero",
        },
        {"normalize_weights": (bool, True), "eps": (float, 1e-8)},
        {"weight": (float, _REQUIRED)},
    ),
    "karcher": _Translation(
        "member",
        lambda values: {"steps": values["max_iter"], "tolerance": values["tol"]},
        {"max_iter": (int, 10), "tol": (float, 1e-5)},
        {},
    ),
    "model_stock": _Translation("required", lambda values: {"least_product": 1e-6}, {}, {}),
    "sce": _Translation(
        "required", lambda values: {"density": values["select_topk"], "floor": 1e-6}, {"select_topk": (float, 1.0)}, {}
    ),
    "nuslerp": _Translation(
        "optional",
        lambda values: {
            "weights": values["weight"],
            "scope": "leaf" if values["nuslerp_flatten"] else "input" if values["nuslerp_row_wise"] else "output",
            "around": "base" if values["base_model"] else "zero",
        },
        {"nuslerp_flatten": (bool, True), "nuslerp_row_wise": (bool, False)},
        {"weight": (float, _REQUIRED)},
    ),
    "nearswap": _Translation("required", lambda values: {"t": values["t"]}, {"t": (float, _REQUIRED)}, {}),
    "arcee_fusion": _Translation("required", lambda values: {}, {}, {}),
    "ram": _Translation("required", lambda values: {"epsilon": values["epsilon"]}, {"epsilon": (float, 1e-5)}, {}),
    "ramplus_tl": _Translation(
        "required",
        lambda values: {name: values[name] for name in ("epsilon", "r", "alpha")},
        {"epsilon": (float, 1e-5), "r": (float, 0.1), "alpha": (float, 0.2)},
        {},
    ),
    "passthrough": _Translation("member", lambda values: {"scale": values["scale"][0]}, {}, {"scale": (float, 1.0)}),
    "ties": _generalised(True, False, lambda values: {"scope": "leaf"}),
    "dare_ties": _generalised(False, True),
    "dare_linear": _generalised(False, True),
    "breadcrumbs": _generalised(False, False, _gamma, gamma=(float, 0.01)),
    "breadcrumbs_ties": _generalised(False, False, _gamma, gamma=(float, 0.01)),
    "della": _generalised(True, True, _della, epsilon=(float, 0.15)),
    "della_linear": _generalised(False, True, _della, epsilon=(float, 0.15)),
}
