"""Random CLIPs of transformers and their folders, for the tests of both towers and of zero-shot heads."""

import copy
import functools
from pathlib import Path
from typing import Any

from wsr.data.image_processor import CroppingProcessor

LAYERS = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
# Wide, so that activations leave the range where quick and exact GELU agree.
LAYERS |= {"initializer_factor": 3.0, "initializer_range": 0.1}
VISION = {**LAYERS, "image_size": 12, "patch_size": 4, "num_channels": 3}
TEXT = {**LAYERS, "hidden_size": 16, "vocab_size": 112, "max_position_embeddings": 20, "eos_token_id": 3}
PROCESSOR = CroppingProcessor(size=12, mean=(0.5, 0.4, 0.3), std=(0.5, 0.6, 0.7), resample=3)


@functools.cache
def whole(act: str = "quick_gelu", eos: int = 3) -> Any:
    """A random CLIP of transformers."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    towers = (VISION, {**TEXT, "eos_token_id": eos})
    vision, text = ({**sizes, "hidden_act": act, "projection_dim": 10} for sizes in towers)
    model = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=10)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # Fresh models have zero biases and unit scales: hide nothing.
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def write_whole(tiny: Any, folder: Path, model: Any = None) -> Path:
    """Writes a CLIP with its image processor and the tokenizer of the tiny checkpoint."""
    (model or whole()).save_pretrained(folder)
    PROCESSOR.save_pretrained(folder)
    tiny.processor.save_pretrained(folder)
    return folder


def moved(model: Any, names: tuple[str, ...], seed: int) -> Any:
    """A CLIP whose tensors with these prefixes differ from those of ``model``."""
    import torch

    torch.manual_seed(seed)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if name.startswith(names):
                parameter.add_(0.01 * torch.randn_like(parameter))
    return other
