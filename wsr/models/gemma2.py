"""Gemma 2: layers with local and global attention in turn, norms on both sides of each part, capped scores and logits.

Source: Gemma Team 2024, arXiv 2408.00118, section 2.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from wsr.errors import WsrError
from wsr.models import config as configs
from wsr.models.gemma import COMMON_EXAMPLE, CommonConfig, Switches, decoder, modules
from wsr.models.gemma import COUNTERPART as GEMMA_COUNTERPART
from wsr.models.layers.activations import ACTIVATIONS
from wsr.models.layers.rotary import frequencies
from wsr.models.llama import taken
from wsr.models.model import Model

GLOBAL, LOCAL = "full_attention", "sliding_attention"

ALTERNATING_EXAMPLE: Mapping[str, Any] = {
    **COMMON_EXAMPLE,
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 32,
    "layer_types": [LOCAL, GLOBAL],
    "sliding_window": 4,
    "final_logit_softcapping": 3.0,
}
"""The values that the small test configs of versions 2 and 3 share."""

EXAMPLE: Mapping[str, Any] = {**ALTERNATING_EXAMPLE, "attn_logit_softcapping": 2.0}
"""A config small enough for a test."""


def gemma2(config: Mapping[str, Any]) -> Model:
    """Returns the Gemma 2 decoder that ``config`` describes (see ``Gemma2Config``)."""
    return decoder("gemma2", Gemma2Config.from_mapping("gemma2", config))


@dataclass(frozen=True)
class AlternatingConfig(CommonConfig):
    """``CommonConfig``, plus what versions 2 and 3 share."""

    hidden_activation: str
    query_pre_attn_scalar: int
    """The scores are divided by its square root."""
    layer_types: tuple[str, ...]
    """``GLOBAL`` or ``LOCAL`` for each layer."""
    sliding_window: int | None
    """How many tokens a token sees in a local layer, itself included."""
    final_logit_softcapping: float | None

    def check(self, what: str) -> None:
        """Raises ``WsrError`` for unknown kinds of layers, a missing window or unknown rotary positions."""
        configs.require(what, self, query_pre_attn_scalar=1, hidden_activation=ACTIVATIONS)
        strange = set(map(str, self.layer_types)) - {GLOBAL, LOCAL}
        if strange or len(self.layer_types) != self.num_hidden_layers:
            raise WsrError(
                f"{what} config: layer_types = {list(self.layer_types)}; expected {GLOBAL} or {LOCAL} for each of "
                f"{self.num_hidden_layers} layers"
            )
        if LOCAL in self.layer_types and (self.sliding_window is None or self.sliding_window < 1):
            raise WsrError(
                f"{what} config: sliding_window = {self.sliding_window}; expected at least 1, since layer_types has "
                f"{LOCAL}"
            )
        for kind in set(self.layer_types):
            frequencies(what, self.rotary(kind), self.head_dim)

    def rotary(self, kind: str) -> Mapping[str, Any]:
        """Returns the rotary parameters of the layers of one kind."""
        return self.rope_parameters

    def alternating(self, **own: Any) -> Switches:
        """Returns the switches that versions 2 and 3 share, and those given."""
        kinds = self.layer_types
        return Switches(
            self.hidden_activation,
            self.query_pre_attn_scalar**-0.5,
            tuple(self.sliding_window if kind == LOCAL else None for kind in kinds),
            tuple(frequencies("gemma", self.rotary(kind), self.head_dim) for kind in kinds),
            output_norms=True,
            logit_cap=self.final_logit_softcapping,
            **own,
        )


@dataclass(frozen=True)
class Gemma2Config(AlternatingConfig):
    """``AlternatingConfig``, plus the cap of the scores."""

    attn_logit_softcapping: float | None

    @property
    def switches(self) -> Switches:
        """Capped scores."""
        return self.alternating(score_cap=self.attn_logit_softcapping)


COUNTERPART = replace(
    GEMMA_COUNTERPART,
    model_type="gemma2",
    model_class="Gemma2Model",
    language_model_class="Gemma2ForCausalLM",
    taken=taken(Gemma2Config),
    modules=lambda config: modules(Gemma2Config.from_mapping("gemma2", config)),
)
"""Gemma 2 in ``transformers``."""
