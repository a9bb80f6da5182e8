"""The text model of Gemma 3: Gemma 2 with normalised queries and keys, two rotary bases and no capped scores.

Source: Gemma Team 2025, arXiv 2503.19786, section 2. EmbeddingGemma (arXiv 2509.20354) is one that reads in both
directions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from wsr.models.gemma import Switches, decoder, modules
from wsr.models.gemma2 import ALTERNATING_EXAMPLE, GLOBAL, LOCAL, AlternatingConfig
from wsr.models.gemma2 import COUNTERPART as GEMMA2_COUNTERPART
from wsr.models.llama import taken
from wsr.models.model import Model

EXAMPLE: Mapping[str, Any] = {
    **ALTERNATING_EXAMPLE,
    "rope_parameters": {
        GLOBAL: {"rope_type": "default", "rope_theta": 1000000.0},
        LOCAL: {"rope_type": "default", "rope_theta": 10000.0},
    },
    "use_bidirectional_attention": False,
}
"""A config small enough for a test."""


def gemma3_text(config: Mapping[str, Any]) -> Model:
    """Returns the text model of Gemma 3 that ``config`` describes (see ``Gemma3TextConfig``)."""
    return decoder("gemma3_text", Gemma3TextConfig.from_mapping("gemma3_text", config))


@dataclass(frozen=True)
class Gemma3TextConfig(AlternatingConfig):
    """``AlternatingConfig`` with rotary parameters for each kind of layers, plus the direction of attention."""

    use_bidirectional_attention: bool | None

    def rotary(self, kind: str) -> Mapping[str, Any]:
        """Returns the rotary parameters of the layers of one kind."""
        parameters = self.rope_parameters.get(kind)
        return parameters if isinstance(parameters, Mapping) else {}

    @property
    def switches(self) -> Switches:
        """Normalised queries and keys."""
        own = self.alternating(query_key_norm=True, both_directions=bool(self.use_bidirectional_attention))
        if not own.both_directions:
            return own
        # ``sliding_window`` then counts both directions, as in transformers.
        return replace(own, windows=tuple(window and window // 2 + 1 for window in own.windows))


COUNTERPART = replace(
    GEMMA2_COUNTERPART,
    model_type="gemma3_text",
    model_class="Gemma3TextModel",
    language_model_class="Gemma3ForCausalLM",
    taken=taken(Gemma3TextConfig),
    modules=lambda config: modules(Gemma3TextConfig.from_mapping("gemma3_text", config)),
    # Import refuses attn_logit_softcapping, which the code of transformers reads and does not apply.
)
"""The text model of Gemma 3 in ``transformers``."""
