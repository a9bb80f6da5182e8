"""Qwen3: Llama with normalised queries and keys."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from wsr.models.llama import COMMON_EXAMPLE, DecoderConfig, Switches, decoder, modules, taken
from wsr.models.model import Model
from wsr.models.qwen2 import COUNTERPART as QWEN2_COUNTERPART

EXAMPLE: Mapping[str, Any] = {**COMMON_EXAMPLE, "head_dim": 8, "attention_bias": False}
"""A config small enough for a test."""


def qwen3(config: Mapping[str, Any]) -> Model:
    """Returns the Qwen3 decoder that ``config`` describes (see ``Qwen3Config``)."""
    return decoder("qwen3", Qwen3Config.from_mapping("qwen3", config))


@dataclass(frozen=True)
class Qwen3Config(DecoderConfig):
    """``DecoderConfig``, plus the width of a head and the switch for attention biases."""

    head_dim: int
    attention_bias: bool

    @property
    def switches(self) -> Switches:
        """Normalised queries and keys; biases on attention as ``attention_bias`` says."""
        return Switches(self.head_dim, self.attention_bias, self.attention_bias, query_key_norm=True)


COUNTERPART = replace(
    QWEN2_COUNTERPART,
    model_type="qwen3",
    model_class="Qwen3Model",
    language_model_class="Qwen3ForCausalLM",
    taken=taken(Qwen3Config),
    modules=lambda config: modules(Qwen3Config.from_mapping("qwen3", config)),
)
"""Qwen3 in ``transformers``."""
