"""XLM-RoBERTa: RoBERTa's architecture with a vocabulary of a hundred languages."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from wsr.models.model import Model
from wsr.models.roberta import COUNTERPART as ROBERTA_COUNTERPART
from wsr.models.roberta import EXAMPLE as ROBERTA_EXAMPLE
from wsr.models.roberta import roberta

EXAMPLE: Mapping[str, Any] = ROBERTA_EXAMPLE
"""A config small enough for a test."""


def xlm_roberta(config: Mapping[str, Any]) -> Model:
    """Returns the XLM-RoBERTa encoder that ``config`` describes (see ``BertConfig``)."""
    return replace(roberta(config), name="xlm_roberta")


COUNTERPART = replace(ROBERTA_COUNTERPART, model_type="xlm-roberta", model_class="XLMRobertaModel")
"""XLM-RoBERTa in ``transformers``, with RoBERTa's prefix."""
