"""Makes a ``Model``, pure functions over a plain dict, of a Flax module (NNX or Linen).

Modules with state that has no meaningful average (batch statistics, stored random keys) are refused: no such state
would fit a point between two models.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen, nnx
from jaxtyping import Array, Float

from wsr.errors import WsrError
from wsr.models.model import Model
from wsr.types import Batch, Params, Reads


def from_nnx(
    build: Callable[[nnx.Rngs], nnx.Module],
    *,
    name: str,
    config: Mapping[str, Any],
    hidden: int,
    max_length: int,
    packed: bool = True,
    language_model: bool = False,
    encoder_decoder: bool = False,
    reads: Reads = "text",
) -> Model:
    """Returns an NNX module as a model.

    Args:
      build: ``build(rngs)`` returns the module, and ``module(batch)`` its features ``[batch, hidden]``. A module with
        dropout takes ``module(batch, rngs=...)`` and passes ``rngs`` to its ``nnx.Dropout`` layers, which hold no keys.
      name: the architecture.
      config: everything that determines the features, as values that JSON can hold.
      hidden: number of features.
      max_length: length of the longest text, in tokens.
      packed: whether a row may hold several texts; images are never packed.
      language_model: whether the module has ``token_losses(batch)`` ``[rows, length]``, see ``Model.token_losses``.
      encoder_decoder: whether they are those of an answer only, see ``Model.encoder_decoder``.
      reads: the kind of batch that the module takes, see ``wsr.types.Batch``.

    Raises:
      WsrError: the module holds state besides its parameters.

    Example:
      >>> import jax, wsr
      >>> from flax import nnx
      >>> class BagOfTokens(nnx.Module):
      ...     def __init__(self, rngs):
      ...         self.table = nnx.Embed(108, 8, rngs=rngs)
      ...     def __call__(self, batch):
      ...         return self.table(batch["token_ids"]).mean(axis=1)
      >>> model = wsr.models.from_nnx(BagOfTokens, name="bag", config={}, hidden=8, max_length=64, packed=False)
      >>> params = model.init(jax.random.key(0))
      >>> params["table"]["embedding"].shape
      (108, 8)
      >>> model.encode(params, {"token_ids": jax.numpy.array([[2, 36, 3], [2, 42, 3]])}).shape
      (2, 8)
    """
    # Shapes only, no arrays: `init` alone initialises parameters.
    graph, abstract, rest = nnx.split(nnx.eval_shape(lambda: build(_rngs(0))), nnx.Param, ...)
    refused = {_path(path): type(value).__name__ for path, value in nnx.to_flat_state(rest)}
    _refuse_state(name, refused)
    takes_rngs = _takes(type(nnx.merge(graph, abstract)).__call__, "rngs")

    def init(key: Array) -> Params:
        params = nnx.state(build(_rngs(key)), nnx.Param)
        return _nest({path: value.get_value() for path, value in nnx.to_flat_state(params)})

    def filled(params: Params) -> Any:
        flat = [(path, old.replace(_leaf(params, path))) for path, old in nnx.to_flat_state(abstract)]
        return nnx.merge(graph, nnx.from_flat_state(flat))

    def features(module: Any, batch: Batch, dropout_key: Array | None) -> Float[Array, "batch hidden"]:
        if dropout_key is None or not takes_rngs:
            module.eval()
            return module(_as_jax(batch))
        module.train()
        return module(_as_jax(batch), rngs=nnx.Rngs(dropout=dropout_key))

    def encode(params: Params, batch: Batch, dropout_key: Array | None = None) -> Float[Array, "batch hidden"]:
        return features(filled(params), batch, dropout_key)

    def encode_rematerialised(
        params: Params, batch: Batch, dropout_key: Array | None = None
    ) -> Float[Array, "batch hidden"]:
        module = filled(params)
        _rematerialise(module)
        return features(module, batch, dropout_key)

    def token_losses(params: Params, batch: Batch) -> Float[Array, "rows length"]:
        module = filled(params)
        module.eval()
        return module.token_losses(_as_jax(batch))

    def kernel_inputs(params: Params, batch: Batch) -> dict[str, list[Array]]:
        module = filled(params)
        found: dict[str, list[Array]] = {}
        for path, part in nnx.iter_modules(module):
            if isinstance(part, nnx.Linear):
                part.dot_general = _recording(found.setdefault(_path((*path, "kernel")), []), part.dot_general)
        module.eval()
        module(_as_jax(batch))
        return found

    return Model(
        name,
        config,
        hidden,
        max_length,
        init,
        encode,
        packed and reads == "text",
        token_losses=token_losses if language_model else None,
        kernel_inputs=kernel_inputs,
        encoder_decoder=encoder_decoder,
        reads=reads,
        encode_rematerialised=encode_rematerialised,
    )


def from_linen(
    module: linen.Module,
    *,
    name: str,
    config: Mapping[str, Any],
    hidden: int,
    max_length: int,
    example: Batch,
    packed: bool = True,
    reads: Reads = "text",
) -> Model:
    """Returns a Linen module as a model.

    Args:
      module: ``module(batch)`` returns features ``[batch, hidden]``. A module with dropout takes
        ``module(batch, deterministic=...)``.
      name: the architecture.
      config: everything that determines the features, as values that JSON can hold.
      hidden: number of features.
      max_length: length of the longest text, in tokens.
      example: any batch; only its shapes are used.
      packed: whether a row may hold several texts; images are never packed.
      reads: the kind of batch that the module takes, see ``wsr.types.Batch``.

    Raises:
      WsrError: the module has a collection besides "params".

    Example:
      >>> import jax, wsr
      >>> from flax import linen
      >>> class BagOfTokens(linen.Module):
      ...     @linen.compact
      ...     def __call__(self, batch):
      ...         return linen.Embed(108, 8, name="table")(batch["token_ids"]).mean(axis=1)
      >>> batch = {"token_ids": jax.numpy.array([[2, 36, 3], [2, 42, 3]])}
      >>> model = wsr.models.from_linen(
      ...     BagOfTokens(), name="bag", config={}, hidden=8, max_length=64, example=batch, packed=False
      ... )
      >>> model.encode(model.init(jax.random.key(0)), batch).shape
      (2, 8)
    """
    collections = jax.eval_shape(module.init, jax.random.key(0), example)
    _refuse_state(name, {key: "Linen collection" for key in collections if key != "params"})
    takes_deterministic = _takes(type(module).__call__, "deterministic")

    def init(key: Array) -> Params:
        return linen.unbox(module.init(key, example)["params"])

    def encode(params: Params, batch: Batch, dropout_key: Array | None = None) -> Float[Array, "batch hidden"]:
        if not takes_deterministic:
            return module.apply({"params": params}, _as_jax(batch))
        rngs = None if dropout_key is None else {"dropout": dropout_key}
        return module.apply({"params": params}, _as_jax(batch), deterministic=dropout_key is None, rngs=rngs)

    def kernel_inputs(params: Params, batch: Batch) -> dict[str, list[Array]]:
        found: dict[str, list[Array]] = {}

        def record(
            call: Callable[..., Any], args: tuple, kwargs: dict, context: linen.module.InterceptorContext
        ) -> Any:
            if isinstance(context.module, linen.Dense) and context.method_name == "__call__":
                found.setdefault(_path((*context.module.path, "kernel")), []).append(args[0])
            return call(*args, **kwargs)

        with linen.intercept_methods(record):
            encode(params, batch)
        return found

    packed = packed and reads == "text"
    return Model(name, config, hidden, max_length, init, encode, packed, kernel_inputs=kernel_inputs, reads=reads)


def _rematerialise(module: nnx.Module) -> None:
    """Replaces each block of a module by one that the backward pass computes again."""
    for _, blocks in list(nnx.iter_graph(module)):
        if isinstance(blocks, nnx.List):
            for number, block in enumerate(blocks):
                if not isinstance(block, nnx.List):
                    blocks[number] = _Rematerialised(block)


class _Rematerialised(nnx.Module):
    def __init__(self, block: nnx.Module):
        self.block = block

    def __call__(self, *positional: Any, **named: Any) -> Any:
        inputs = {str(number): value for number, value in enumerate(positional)} | named
        # Flax has to know the arrays and the state; what else a block is given may be of any type.
        known = {name: value for name, value in inputs.items() if isinstance(value, jax.Array | nnx.Rngs)}

        def apply(block: Any, known: dict[str, Any]) -> Any:
            given = list((inputs | known).values())
            return block(*given[: len(positional)], **dict(zip(named, given[len(positional) :], strict=True)))

        return nnx.remat(apply)(self.block, known)


def _recording(inputs: list[Array], dot_general: Callable[..., Array]) -> Callable[..., Array]:
    """Returns a dense layer's product that also appends its left operand to ``inputs``."""

    def product(left: Array, *rest: Any, **options: Any) -> Array:
        inputs.append(left)
        return dot_general(left, *rest, **options)

    return product


class _Stream(nnx.RngStream):
    """A stream of the same keys that counts outside the program.

    With nnx's counter the time to trace a module's initialisation grows with the square of the number of layers.
    """

    drawn = 0

    def __call__(self) -> Array:
        key = jax.random.fold_in(self.key.get_value(), self.drawn)
        self.drawn += 1
        return key


def _rngs(seed: int | Array) -> nnx.Rngs:
    rngs = nnx.Rngs()
    rngs.default = _Stream(seed, tag="default")
    return rngs


def _refuse_state(name: str, state: Mapping[str, str]) -> None:
    if state:
        found = ", ".join(f"{path} ({kind})" for path, kind in sorted(state.items()))
        raise WsrError(
            f"{name}: the module holds state besides its parameters, which has no meaningful average: {found}; use a "
            "normalisation without statistics (LayerNorm, GroupNorm) and pass random keys in the call"
        )


def _as_jax(batch: Batch) -> dict[str, Array]:
    return {name: jnp.asarray(array) for name, array in batch.items()}


def _takes(function: Callable[..., Any], argument: str) -> bool:
    return argument in inspect.signature(function).parameters


def _nest(flat: Mapping[tuple[Any, ...], Array]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, last = map(str, path)
        inner = nested
        for part in parents:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return nested


def _leaf(params: Params, path: tuple[Any, ...]) -> Array:
    inner: Any = params
    for part in path:
        if str(part) not in inner:
            raise WsrError(f"the parameters lack {_path(path)}; they belong to another architecture or config")
        inner = inner[str(part)]
    return inner


def _path(path: tuple[Any, ...]) -> str:
    return "/".join(map(str, path))
