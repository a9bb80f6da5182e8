"""``Model`` and ``Checkpoint``: an architecture as pure functions over plain dicts of parameters."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jaxtyping import Array, Float

from wsr.errors import WsrError
from wsr.runtime.model_folder import companions, module_weights
from wsr.types import Batch, Params, Reads


@dataclass(frozen=True, eq=False)
class Model:
    """An encoder as two pure functions, ``init`` and ``encode``, with the config that they follow from.

    ``wsr.models.build(model.name, model.config)`` returns the same model again.

    Example:
      >>> import jax, wsr
      >>> base = wsr.load("tiny")
      >>> tokens = jax.numpy.array([[2, 36, 42, 3]])
      >>> batch = {"token_ids": tokens, "token_types": 0 * tokens, "positions": jax.numpy.arange(4)[None]}
      >>> batch |= {"text_ids": 0 * tokens, "starts": jax.numpy.array([0])}
      >>> base.model.encode(base.params, batch).shape
      (1, 16)
      >>> sorted(base.model.init(jax.random.key(0)))
      ['embeddings', 'layers']
    """

    name: str
    """Name of the architecture."""
    config: Mapping[str, Any]
    """Everything that determines ``encode``, as values that JSON can hold."""
    hidden: int
    """Number of features."""
    max_length: int
    """Length of the longest text, in tokens; for images, the number of patches plus the class token."""
    init: Callable[[Array], Params]
    """``init(key)`` returns random parameters."""
    encode: Callable[..., Float[Array, "batch hidden"]]
    """``encode(params, batch, dropout_key=None)`` returns the features ``[batch, hidden]``; dropout is applied only if
    there is a ``dropout_key``."""
    packed: bool = True
    """Whether a row may hold several texts."""
    token_losses: Callable[[Params, Batch], Float[Array, "rows length"]] | None = None
    """For a language model: ``token_losses(params, batch)`` returns at each token the cross-entropy, in nats, of the
    next token of its text, and 0 at a text's last token. None: not a language model."""
    kernel_inputs: Callable[[Params, Batch], Mapping[str, list[Array]]] | None = None
    """``kernel_inputs(params, batch)`` returns the inputs of each dense layer, by the path of its kernel, one array for
    each call of the layer. None: the inputs cannot be recorded."""
    encoder_decoder: bool = False
    """Whether ``token_losses`` predicts only the answer in a text, marked by token types as in
    ``wsr.data.choices.Choices``, and reads the rest of the text with an encoder."""
    reads: Reads = "text"
    """The kind of batch that ``encode`` takes, see ``wsr.types.Batch``."""
    encode_rematerialised: Callable[..., Float[Array, "batch hidden"]] | None = None
    """The same as ``encode``, but its backward pass keeps only the inputs of each block and computes the rest again
    (Chen et al. 2016, arXiv 1604.06174). None: the blocks are not known."""

    @cached_property
    def rematerialised(self) -> "Model":
        """The model whose ``encode`` is ``encode_rematerialised``."""
        assert self.encode_rematerialised is not None
        return replace(self, encode=self.encode_rematerialised)


@dataclass(frozen=True, eq=False, repr=False)
class Checkpoint:
    """A model with its parameters and the tokenizer or image processor that prepares its inputs.

    Example:
      >>> import wsr
      >>> wsr.load("tiny")
      Checkpoint tiny: architecture tiny, 0.00726 million parameters
        hidden 16, at most 64 tokens, with its tokenizer
    """

    model: Model
    params: Params
    """The encoder's parameters: a plain nested dict of float32 arrays."""
    processor: Any
    """The Hugging Face fast tokenizer; for a model of images, a ``wsr.data.image_processor.ImageProcessor``."""
    name: str = ""
    """The name or path given to ``load``."""
    folder: Path | None = None
    """The Hugging Face folder it was read from, whose files beside the weights an export copies."""

    @contextmanager
    def companions(self) -> Iterator[dict[str, Path]]:
        """Gives its files beside the weights (config, tokenizer, chat templates) by relative path.

        A checkpoint without a folder has the files of its tokenizer or image processor, written for the occasion.
        """
        if self.folder is not None and self.folder.is_dir():
            yield companions(self.folder) | module_weights(self.folder)
        elif self.processor is None:
            yield {}
        else:
            with TemporaryDirectory() as place:
                try:
                    self.processor.save_pretrained(place)
                except Exception as error:  # tokenizers raises plain ones, on a full disk for example
                    raise WsrError(f"the tokenizer could not be written to {place}: {error}") from error
                yield companions(Path(place))

    def __repr__(self) -> str:
        size = sum(leaf.size for leaf in _leaves(self.params)) / 1e6
        unit, processor = ("tokens", "tokenizer") if self.model.reads == "text" else ("patches", "image processor")
        return (
            f"Checkpoint {self.name or 'without a name'}: architecture {self.model.name}, "
            f"{size:.3g} million parameters\n"
            f"  hidden {self.model.hidden}, at most {self.model.max_length} {unit}, with its {processor}"
        )

    def with_params(self, params: Params) -> "Checkpoint":
        """Returns a checkpoint of the same architecture and tokenizer with ``params``, for example merged ones."""
        return replace(self, params=params, name="")


def _leaves(params: Params) -> Iterator[Any]:
    for value in params.values():
        yield from _leaves(value) if isinstance(value, Mapping) else (value,)
