"""What the rest of the package sees of an architecture: pure functions and plain dicts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Array, Float

from wsr.types import Batch, Params, Reads


@dataclass(frozen=True, eq=False)
class Model:
    """An encoder as two pure functions.

    ``init(key) -> params`` and ``encode(params, batch, dropout_key=None) -> features [batch, hidden]``;
    without a ``dropout_key`` nothing is dropped. ``config`` is JSON-able and holds everything that shapes
    ``encode``: ``wsr.models.build(name, config)`` gives the same model again.
    """

    name: str
    config: Mapping[str, Any]
    hidden: int
    max_length: int
    """The longest text, in tokens; the patches of an image, and what goes with them."""
    init: Callable[[Array], Params]
    encode: Callable[..., Float[Array, "batch hidden"]]
    packed: bool = True
    """False where the architecture wants one text a row."""
    token_losses: Callable[[Params, Batch], Float[Array, "rows length"]] | None = None
    """Of a language model: ``token_losses(params, batch)`` is at each token the cross-entropy, in nats, of the token
    that follows it in its text, and 0 where none does."""
    kernel_inputs: Callable[[Params, Batch], Mapping[str, list[Array]]] | None = None
    """What each dense layer reads, by the path of its kernel, one array a call; None where nobody can tell."""
    reads: Reads = "text"
    """Which kind of batch ``encode`` takes, see ``wsr.types.Batch``."""


@dataclass(frozen=True)
class Checkpoint:
    """A model with its parameters (float32, plain nested dict) and its Hugging Face fast tokenizer."""

    model: Model
    params: Params
    tokenizer: Any
    """Of a model of images the ``wsr.data.image_processor.ImageProcessor``, which is to them what it is to texts."""
