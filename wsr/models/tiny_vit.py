"""A vision transformer of two layers for trying things out and for tests: grey images of 8 by 8 pixels."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from wsr.data.image_processor import ImageProcessor
from wsr.models.model import Checkpoint, Model
from wsr.models.tiny import drawn
from wsr.models.vit import EXAMPLE as VIT_EXAMPLE
from wsr.models.vit import vit

EXAMPLE: Mapping[str, Any] = {
    **VIT_EXAMPLE,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    # Wider than ViT's 0.02, as that of the tiny BERT.
    "initializer_range": 0.2,
    "pooling": "mean",
}


def tiny_vit(config: Mapping[str, Any]) -> Model:
    """Returns the model; a ViT under a name of its own."""
    return replace(vit(config), name="tiny_vit")


def checkpoint() -> Checkpoint:
    """Returns ``tiny_vit`` with the same random parameters everywhere, and how its images are prepared."""
    model = tiny_vit(EXAMPLE)
    processor = ImageProcessor(size=EXAMPLE["image_size"], mean=(0.5,), std=(0.5,))
    return Checkpoint(model, drawn(model, EXAMPLE["initializer_range"]), processor)
