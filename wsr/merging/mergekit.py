"""How methods and parameters of mergekit 0.1.5 map to those of this package.

Where mergekit and a paper differ, a recipe follows mergekit: TIES trims leaf by leaf, DARE and DELLA restore the sum of
magnitudes that they dropped from, SLERP is a straight line above a cosine of 0.9995; ``MERGEKIT`` has all differences.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from wsr.errors import WsrError
from wsr.merging.method import Method, find, kinds_of, options_of

REQUIRED = object()
"""The default of a parameter that a recipe must give."""


@dataclass(frozen=True)
class Translation:
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


def translation(name: str) -> Translation:
    """Returns how a recipe maps to a method; one that mergekit lacks has its own options as parameters."""
    return MERGEKIT.get(name) or _own_options(find(name))


def _own_options(kind: type[Method]) -> Translation:
    """``weights`` is called ``weight`` as in mergekit; options with one value per member may stand with the member."""
    types = {name: kinds_of(about.hint) for name, about in options_of(kind).items()}
    each = {name: "weight" if name == "weights" else name for name in types if any(map(get_args, types[name]))}

    def options(values: dict[str, Any]) -> dict[str, Any]:
        found = {name: values[name] for name in types if name not in each}
        found |= {name: None if set(values[own]) == {None} else values[own] for name, own in each.items()}
        return {name: value for name, value in found.items() if value is not None}

    return Translation(
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
) -> Translation:
    """Returns the translation of a method of mergekit's family of sums of task vectors."""
    return Translation(
        "required",
        lambda values: {**_sparse(values), **more(values)},
        {"normalize": (bool, normalize), "rescale": (bool, rescale), "lambda": (float, 1.0)},
        {"weight": (float, REQUIRED), "density": (float, 1.0), **each},
    )


def _della(values: dict[str, Any]) -> dict[str, Any]:
    return {"epsilon": 2 * _same("epsilon", values["epsilon"])}


def _gamma(values: dict[str, Any]) -> dict[str, Any]:
    return {"gamma": _same("gamma", values["gamma"])}


MERGEKIT: Mapping[str, Translation] = {
    "linear": Translation(
        "member",
        lambda values: {"weights": values["weight"], "normalise": values["normalize"]},
        {"normalize": (bool, True)},
        {"weight": (float, REQUIRED)},
    ),
    "task_arithmetic": Translation(
        "required",
        lambda values: {"weights": values["weight"], "normalise": values["normalize"], "scale": values["lambda"]},
        {"normalize": (bool, False), "lambda": (float, 1.0), "rescale": (bool, False)},
        {"weight": (float, REQUIRED), "density": (float, 1.0)},
    ),
    "slerp": Translation(
        "required", lambda values: {"t": values["t"], "linear_above": 0.9995}, {"t": (float, REQUIRED)}, {}
    ),
    "multislerp": Translation(
        "optional",
        lambda values: {
            "weights": values["weight"],
            "normalise": values["normalize_weights"],
            "around": "base" if values["base_model"] else "zero",
        },
        {"normalize_weights": (bool, True), "eps": (float, 1e-8)},
        {"weight": (float, REQUIRED)},
    ),
    "karcher": Translation(
        "member",
        lambda values: {"steps": values["max_iter"], "tolerance": values["tol"]},
        {"max_iter": (int, 10), "tol": (float, 1e-5)},
        {},
    ),
    "model_stock": Translation("required", lambda values: {"least_product": 1e-6}, {}, {}),
    "sce": Translation(
        "required", lambda values: {"density": values["select_topk"], "floor": 1e-6}, {"select_topk": (float, 1.0)}, {}
    ),
    "nuslerp": Translation(
        "optional",
        lambda values: {
            "weights": values["weight"],
            "scope": "leaf" if values["nuslerp_flatten"] else "input" if values["nuslerp_row_wise"] else "output",
            "around": "base" if values["base_model"] else "zero",
        },
        {"nuslerp_flatten": (bool, True), "nuslerp_row_wise": (bool, False)},
        {"weight": (float, REQUIRED)},
    ),
    "nearswap": Translation("required", lambda values: {"t": values["t"]}, {"t": (float, REQUIRED)}, {}),
    "arcee_fusion": Translation("required", lambda values: {}, {}, {}),
    "ram": Translation("required", lambda values: {"epsilon": values["epsilon"]}, {"epsilon": (float, 1e-5)}, {}),
    "ramplus_tl": Translation(
        "required",
        lambda values: {name: values[name] for name in ("epsilon", "r", "alpha")},
        {"epsilon": (float, 1e-5), "r": (float, 0.1), "alpha": (float, 0.2)},
        {},
    ),
    "passthrough": Translation("member", lambda values: {"scale": values["scale"][0]}, {}, {"scale": (float, 1.0)}),
    "ties": _generalised(True, False, lambda values: {"scope": "leaf"}),
    "dare_ties": _generalised(False, True),
    "dare_linear": _generalised(False, True),
    "breadcrumbs": _generalised(False, False, _gamma, gamma=(float, 0.01)),
    "breadcrumbs_ties": _generalised(False, False, _gamma, gamma=(float, 0.01)),
    "della": _generalised(True, True, _della, epsilon=(float, 0.15)),
    "della_linear": _generalised(False, True, _della, epsilon=(float, 0.15)),
}
