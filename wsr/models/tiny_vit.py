"""``tiny_vit``, a vision transformer of two layers for trying things out and for tests; it reads grey 8 by 8 images."""

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
    # Wider than ViT's 0.02, for the same reason as in the tiny BERT.
    "initializer_range": 0.2,
    "pooling": "mean",
}


def tiny_vit(config: Mapping[str, Any]) -> Model:
    """Returns the vision transformer that ``config`` describes, under the name "tiny_vit"."""
    return replace(vit(config), name="tiny_vit")


def checkpoint() -> Checkpoint:
    """Returns the checkpoint "tiny_vit": random parameters, the same on every machine, and an image processor."""
    model = tiny_vit(EXAMPLE)
    processor = ImageProcessor(size=EXAMPLE["image_size"], mean=(0.5,), std=(0.5,))
    return Checkpoint(model, drawn(model, EXAMPLE["initializer_range"]), processor)
