"""The base classes of merge methods: frozen dataclasses whose fields are documented and checked options."""

import importlib
import importlib.metadata
import re
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar, get_args, get_type_hints

import numpy as np

from wsr.errors import WsrError, nearest_names

if TYPE_CHECKING:
    from wsr.engine.evaluate import Protocol
    from wsr.engine.settings import Settings
    from wsr.merging.ingredients import Ingredients, Leaf, Out
    from wsr.region.region import Region

_KNOWN: "dict[str, str | type[Method]]" = {
    "uniform": "wsr.merging.averages.Uniform",
    "weighted": "wsr.merging.averages.Weighted",
    "linear": "wsr.merging.averages.Weighted",
    "task_arithmetic": "wsr.merging.averages.TaskArithmetic",
    "slerp": "wsr.merging.spheres.Slerp",
    "multislerp": "wsr.merging.spheres.MultiSlerp",
    "karcher": "wsr.merging.spheres.Karcher",
    "model_stock": "wsr.merging.spheres.ModelStock",
    "ties": "wsr.merging.sparse.Ties",
    "dare_linear": "wsr.merging.sparse.DareLinear",
    "dare_ties": "wsr.merging.sparse.DareTies",
    "della": "wsr.merging.sparse.Della",
    "della_linear": "wsr.merging.sparse.DellaLinear",
    "breadcrumbs": "wsr.merging.sparse.Breadcrumbs",
    "breadcrumbs_ties": "wsr.merging.sparse.BreadcrumbsTies",
    "sce": "wsr.merging.sce.Sce",
    "ram": "wsr.merging.consensus.Ram",
    "ramplus_tl": "wsr.merging.consensus.RamPlus",
    "consensus": "wsr.merging.consensus.Consensus",
    "emr": "wsr.merging.consensus.Emr",
    "pcb": "wsr.merging.pcb.Pcb",
    "lines": "wsr.merging.layers.Lines",
    "nuslerp": "wsr.merging.fusion.NuSlerp",
    "nearswap": "wsr.merging.fusion.NearSwap",
    "arcee_fusion": "wsr.merging.fusion.ArceeFusion",
    "passthrough": "wsr.merging.fusion.Passthrough",
    "iso_c": "wsr.merging.spectral.IsoC",
    "iso_cts": "wsr.merging.spectral.IsoCts",
    "tsv_m": "wsr.merging.spectral.TsvM",
    "wudi": "wsr.merging.wudi.Wudi",
    "knots": "wsr.merging.aligned.Knots",
    "core_space": "wsr.merging.aligned.CoreSpace",
    "greedy": "wsr.merging.soups.GreedySoup",
    "learned": "wsr.merging.soups.Learned",
    "learned_free": "wsr.merging.soups.LearnedFree",
    "fisher": "wsr.merging.fisher.Fisher",
    "regmean": "wsr.merging.regmean.RegMean",
    "regmean_plus_plus": "wsr.merging.regmean_plus_plus.RegMeanPlusPlus",
    "adamerging": "wsr.merging.adamerging.AdaMerging",
}
METHODS: "Mapping[str, str | type[Method]]" = types.MappingProxyType(_KNOWN)
"""The class of every method, by name, or its place; classes in other files are imported when they are first used."""

ENTRY_POINTS = "wsr.merging"
"""Group of the entry points by which installed packages add methods: ``name = "package.module:Class"``."""

Check = Callable[[Any], bool]
M = TypeVar("M", bound="Method")


def option(
    default: Any, what: str, allowed: str = "", check: Check = lambda value: True, *, otherwise: str = ""
) -> Any:
    """A field that is an option.

    Args:
      default: its value where none is given.
      what: a sentence that says what the option does.
      allowed: the allowed values in words, after "expected"; empty where the type says it.
      check: whether a value is allowed.
      otherwise: what a default of None stands for.
    """
    return field(default=default, metadata={"what": what, "allowed": allowed, "check": check, "otherwise": otherwise})


def share(default: float, what: str) -> Any:
    """An option in [0, 1]; where its type allows several numbers, each of them."""
    return option(
        default,
        what,
        "a number from 0 to 1",
        lambda value: bool(((np.array(value) >= 0) & (np.array(value) <= 1)).all()),
    )


def positive(default: float, what: str) -> Any:
    """An option above 0."""
    return option(default, what, "a number above 0", lambda value: value > 0)


def at_least(least: float, default: float, what: str) -> Any:
    """An option that is ``least`` or more."""
    number = "a whole number" if isinstance(default, int) else "a number"
    return option(default, what, f"{number}, at least {least:g}", lambda value: value >= least)


def one_of(default: str, what: str, *names: str) -> Any:
    """An option that is one of some words."""
    return option(default, what, " or ".join(filter(None, (", ".join(names[:-1]), names[-1]))), lambda v: v in names)


def expression(what: str, *, otherwise: str) -> Any:
    """An option that is a regular expression on the paths of leaves; None where none is given."""
    return option(None, what, "a regular expression", _is_expression, otherwise=otherwise)


def weights() -> Any:
    """The option that weighs members."""
    return option(None, "Weights of the members, in the order of the members.", otherwise="1 for each member")


@dataclass(frozen=True)
class Given:
    """Data that a merge may use besides the weights.

    Example:
      >>> import wsr
      >>> data = wsr.load_dataset("made_up_a1", wsr.load("tiny").processor, max_length=48)
      >>> given = wsr.merging.Given(dataset=data)  # wsr.merge(region, wsr.merging.GreedySoup(), given)
      >>> given.dataset.name
      'made_up_a1'
    """

    dataset: Any = None
    """What chooses the coefficients, or a list of several: the probe and validation splits of a dataset, or a half of
    plain texts or questions for decoders."""
    own: Mapping[str, Any] = field(default_factory=dict)
    """Datasets that the members were fine-tuned on, by name."""
    heads: Mapping[str, Any] = field(default_factory=dict)
    """Head of each member, by the member's name; a probe is fitted for a member without one."""
    protocol: "Protocol | None" = None
    """The classifier that measures a point; None: the default of ``wsr.evaluate``."""
    settings: "Settings | None" = None
    """Chunk size, memory, devices, precision and cache of results; None: the defaults of ``wsr.evaluate``."""

    @property
    def datasets(self) -> tuple[Any, ...]:
        """The datasets on which coefficients are chosen."""
        if self.dataset is None:
            return ()
        return tuple(self.dataset) if isinstance(self.dataset, list | tuple) else (self.dataset,)


@dataclass(frozen=True)
class Method:
    """A merge method; its fields are its options, which are checked at construction.

    Example:
      >>> import wsr
      >>> issubclass(wsr.merging.Ties, wsr.merging.Method)
      True
      >>> wsr.merging.Ties(density=1.5)
      Traceback (most recent call last):
      wsr.errors.WsrError: ties: density = 1.5; expected ...
    """

    needs: ClassVar[tuple[str, ...]] = ()
    """Fields of ``Given`` that the method needs: "dataset" or "own"; empty if it needs only weights."""
    members: ClassVar[tuple[int, int | None]] = (1, None)
    """Fewest and most members."""

    def __post_init__(self) -> None:
        """Raises ``WsrError`` if an option has an invalid value."""
        for own in fields(self):
            value = getattr(self, own.name)
            if value is not None and not own.metadata["check"](value):
                raise WsrError(f"{name_of(type(self))}: {own.name} = {value!r}; expected {own.metadata['allowed']}")

    def refuse_members(self, names: Sequence[str]) -> None:
        """Raises ``WsrError`` if the number of members does not fit the method or its per-member options.

        Args:
          names: names of the members.
        """
        name, (fewest, most) = name_of(type(self)), self.members
        if len(names) < fewest or (most is not None and len(names) > most):
            wanted = f"exactly {fewest}" if most == fewest else f"at least {fewest}"
            several = "" if fewest == 1 else "s"
            raise WsrError(f"{name} merges {wanted} member{several}; found {len(names)}: {', '.join(names)}")
        for own in ("weights", "density"):
            given = getattr(self, own, None)
            if isinstance(given, tuple) and len(given) != len(names):
                raise WsrError(
                    f"{name}: {own} has {len(given)} numbers; expected one for each of "
                    f"{len(names)} members: {', '.join(names)}"
                )


class OfWeights(Method):
    """A method that needs only weights and merges them leaf by leaf."""

    wide: ClassVar[bool] = False
    """Whether the method can merge leaves in float64; others merge in float32."""
    based: ClassVar[bool] = True
    """Whether the method needs a base."""
    threaded: ClassVar[bool] = False
    """Whether leaves are merged in threads even where processes could be forked: JAX may be used, or memory shared."""

    def prepared(self, ingredients: "Ingredients") -> Callable[["Leaf", "Out"], None]:
        """Returns ``fill(leaf, out)``, which writes the merged leaf into ``out`` by ``block.put(out, merged)``.

        ``out`` is a flat array or a tensor in a file, into which ``out[start:stop] = merged`` writes a piece.

        Anything that depends on more than one leaf is computed here, in separate passes over the ingredients.

        Args:
          ingredients: the base and the members.
        """
        raise NotImplementedError


class OfData(Method):
    """A method that uses texts; it merges a region in memory."""

    def merge(self, region: "Region", given: Given) -> Mapping[str, Any]:
        """Returns the parameters of the merged encoder.

        Args:
          region: the members.
          given: the data that the method needs.
        """
        raise NotImplementedError


def find(name: str) -> type[Method]:
    """Returns the class of a method by name.

    Args:
      name: name of the method, one of ``METHODS``.

    Raises:
      WsrError: if there is no such method; the message lists the nearest names.

    Example:
      >>> import wsr
      >>> wsr.merging.find("ties").__name__
      'Ties'
    """
    if name not in METHODS:
        raise WsrError(f"no merge method is called {name!r}; nearest: {nearest_names(name, METHODS)}")
    place = METHODS[name]
    if not isinstance(place, str):
        return place
    module, _, kind = place.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), kind)
    except (ImportError, AttributeError) as error:
        raise WsrError(f"the merge method {name} cannot be imported from {place}: {error}") from error
    _refuse_incomplete(name, found)
    return found


def name_of(kind: type[Method]) -> str:
    """Returns the first name of a method's class in ``METHODS``."""
    place = f"{kind.__module__}.{kind.__name__}"
    return next((name for name, own in METHODS.items() if own in (place, kind)), kind.__name__)


def register(name: str) -> "Callable[[type[M]], type[M]]":
    """Adds a method of your own: a decorator for a frozen dataclass whose fields are options.

    The method then works by its name in ``wsr.merging.find``, in recipes and on the command line. A package that is
    installed can name its class in the entry points ``wsr.merging`` instead.

    Args:
      name: name of the method, in lower case with underscores.

    Raises:
      WsrError: if the name is taken, or the class is not a method.

    Example:
      >>> from dataclasses import dataclass
      >>> import numpy as np
      >>> import wsr
      >>> from wsr.merging.method import OfWeights, option
      >>> @wsr.merging.register("median")
      ... @dataclass(frozen=True)
      ... class Median(OfWeights):
      ...     '''The median of the task vectors, entry by entry.'''
      ...     scale: float = option(1.0, "Factor of the merged task vector.")
      ...     def prepared(self, ingredients):
      ...         def fill(leaf, out):
      ...             for block in leaf.blocks():
      ...                 block.put(out, block.base + self.scale * np.median(block.vectors, axis=0))
      ...         return fill
      >>> merged = wsr.merge(wsr.made_up_region(3), wsr.merging.find("median")(scale=0.5))
    """

    def add(kind: type[M]) -> type[M]:
        _refuse_incomplete(name, kind)
        if METHODS.get(name, kind) is not kind:
            raise WsrError(f"a merge method is called {name} already; choose another name")
        _KNOWN[name] = kind
        return kind

    return add


def _refuse_incomplete(name: str, kind: Any) -> None:
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise WsrError(f"merge method {name!r}: expected a name in lower case with underscores")
    if not (isinstance(kind, type) and issubclass(kind, (OfWeights, OfData)) and "__dataclass_params__" in vars(kind)):
        raise WsrError(f"merge method {name}: expected a class that extends OfWeights, with @dataclass(frozen=True)")
    bare = [own.name for own in fields(kind) if "what" not in own.metadata]
    if bare:
        raise WsrError(f"merge method {name}: make {', '.join(bare)} by option(default, what), which the help shows")


def _add_installed() -> None:
    """Adds the methods of installed packages; a name that is taken keeps its method."""
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        if point.name in _KNOWN:
            warnings.warn(f"{point.value}: a merge method is called {point.name} already; it is left out", stacklevel=2)
        else:
            _KNOWN[point.name] = point.value.replace(":", ".")


_add_installed()


class Option(NamedTuple):
    """One option of a method, in words."""

    hint: Any
    default: Any
    what: str
    allowed: str
    otherwise: str


def options_of(kind: type[Method]) -> dict[str, Option]:
    """Returns each option's type, default, meaning, allowed values and what a default of None stands for."""
    hints = get_type_hints(kind)
    return {
        own.name: Option(
            hints[own.name],
            None if own.default is MISSING else own.default,
            own.metadata["what"],
            _allowed(hints[own.name], own.metadata["allowed"]),
            own.metadata["otherwise"],
        )
        for own in fields(kind)
    }


def _allowed(hint: Any, words: str) -> str:
    """The allowed values in words."""
    several = float in kinds_of(hint) and any(get_args(kind) for kind in kinds_of(hint))
    return f"{words}, or one per member" if words and several else words or kind_of(hint)


def made(name: str, given: Mapping[str, Any]) -> Method:
    """Returns the method with the options given; raises naming those that it does not have, or of the wrong kind."""
    kind = find(name)
    known = options_of(kind)
    unknown = [option for option in given if option not in known]
    if unknown:
        raise WsrError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
    for option, value in given.items():
        if not _fits(value, known[option][0]):
            raise WsrError(f"{name}: {option} = {value!r}; expected {kind_of(known[option][0])}")
    return kind(**given)


def kind_of(hint: Any) -> str:
    """The type of an option in words."""
    told = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
    return " or ".join(told.get(kind, "numbers, one per member") for kind in kinds_of(hint) if kind is not type(None))


def _is_expression(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True


def kinds_of(hint: Any) -> tuple[Any, ...]:
    """Returns the types that an option may have."""
    return get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _fits(value: Any, hint: Any) -> bool:
    return any(_is(value, kind) for kind in kinds_of(hint))


def _is(value: Any, kind: Any) -> bool:
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(value))
    if isinstance(kind, type) and not issubclass(kind, tuple):
        return type(value) is kind
    return isinstance(value, tuple) and len(value) > 0 and all(_is(entry, float) for entry in value)
