"""What the rest of the package sees of an architecture: pure functions and plain dicts."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
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


@dataclass(frozen=True, eq=False, repr=False)
class Checkpoint:
    """A model with its parameters and what prepares its inputs.

    Example:
      >>> import wsr
      >>> wsr.load("tiny")
      Checkpoint tiny: architecture tiny, 0.00983 million parameters
        hidden 32, at most 64 tokens, PreTrainedTokenizerFast
    """

    model: Model
    params: Params
    """Float32, a plain nested dict."""
    processor: Any
    """The Hugging Face fast tokenizer; for a model of images the ``wsr.data.image_processor.ImageProcessor``."""
    name: str = ""
    """What ``load`` was asked for: a registered name, a folder or a hub name."""

    def __repr__(self) -> str:
        size = sum(leaf.size for leaf in _leaves(self.params)) / 1e6
        inputs = f"{self.model.max_length} {'tokens' if self.model.reads == 'text' else 'patches'}"
        return (
            f"Checkpoint {self.name or 'without a name'}: architecture {self.model.name}, "
            f"{size:.3g} million parameters\n"
            f"  hidden {self.model.hidden}, at most {inputs}, {type(self.processor).__name__}"
        )

    def with_params(self, params: Params) -> "Checkpoint":
        """Returns a checkpoint of the same architecture and tokenizer with other parameters, for example a merge."""
        return replace(self, params=params, name="")


def _leaves(params: Params) -> Iterator[Any]:
    for value in params.values():
        yield from _leaves(value) if isinstance(value, Mapping) else (value,)
