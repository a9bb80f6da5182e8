"""Qwen2: Llama with biases on queries, keys and values."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from wsr.models.llama import COMMON_EXAMPLE, DecoderConfig, Switches, decoder, modules, taken
from wsr.models.llama import COUNTERPART as LLAMA_COUNTERPART
from wsr.models.model import Model

EXAMPLE: Mapping[str, Any] = COMMON_EXAMPLE
"""A config small enough for a test."""


def qwen2(config: Mapping[str, Any]) -> Model:
    """Returns the Qwen2 decoder that ``config`` describes (see ``DecoderConfig``)."""
    return decoder("qwen2", Qwen2Config.from_mapping("qwen2", config))


@dataclass(frozen=True)
class Qwen2Config(DecoderConfig):
    """The common fields of Llama-like decoders."""

    @property
    def switches(self) -> Switches:
        """Biases on queries, keys and values."""
        return Switches(self.hidden_size // self.num_attention_heads, query_key_value_bias=True)


COUNTERPART = replace(
    LLAMA_COUNTERPART,
    model_type="qwen2",
    model_class="Qwen2Model",
    language_model_class="Qwen2ForCausalLM",
    taken=taken(Qwen2Config),
    modules=lambda config: modules(Qwen2Config.from_mapping("qwen2", config)),
    # Import refuses sliding windows, since sliding_window and layer_types are not in ``taken``.
)
"""Qwen2 in ``transformers``."""
