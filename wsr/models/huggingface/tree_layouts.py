"""The layouts in which other JAX programs name and shape the parameters of our architectures.

Layouts known: our own names; MaxText's, for Llama and Qwen3 (``maxtext.py``); that of Google DeepMind's library
``gemma``, for Gemma (``deepmind_gemma.py``); levanter's, for GPT-2 and Llama (``levanter.py``); big_vision's, for ViT
(``big_vision.py``).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from wsr.errors import WsrError
from wsr.geometry.trees import flatten
from wsr.models.huggingface.big_vision import big_vision, head_of, renamed
from wsr.models.huggingface.config import read_config
from wsr.models.huggingface.deepmind_gemma import GEMMAS, deepmind_gemma, nested
from wsr.models.huggingface.levanter import LEVANTER_MODELS, levanter
from wsr.models.huggingface.maxtext import maxtext
from wsr.models.huggingface.tree_parts import Layout, Leaves, Part, full_name
from wsr.models.huggingface.weights import their_tensors
from wsr.models.model import Model
from wsr.models.registry import architectures, build


def in_pytorch(leaves: Leaves, folder: Path, what: str) -> dict[str, np.ndarray]:
    """Returns the tensors of a tree by their names in PyTorch.

    Args:
      leaves: the parameters by path, such as ``layers/0/query/kernel``.
      folder: the Hugging Face folder whose config.json says of which architecture and size the model is.
      what: the file or folder of the tree, for errors.

    Raises:
      WsrError: the tree fits no layout; the message lists the names and shapes that do not fit the nearest one.
    """
    name, config = read_config(folder)
    found: list[tuple[int, str, list[str]]] = []
    for called, layout in _layouts(name, config):
        own, head = _under_its_names(leaves, called)
        wrong = _misfits(own, layout)
        if not wrong:
            return _converted(own, layout) | head
        found.append((len(wrong), called, wrong))
    number, called, wrong = min(found, key=lambda one: one[0])
    more = f" and {number - 12} more" if number > 12 else ""
    others = ", ".join(dict.fromkeys(own for _, own, _ in found))
    raise WsrError(
        f"{what}: a tree of another layout than those known of {name} ({others}); for the nearest, {called}: "
        f"{'; '.join(wrong[:12])}{more}"
    )


OURS, MAXTEXT, LEVANTER = "our own names", "MaxText", "levanter"
BIG_VISION, GEMMA = "big_vision", "Google DeepMind's gemma"


def _under_its_names(leaves: Leaves, called: str) -> tuple[Leaves, dict[str, np.ndarray]]:
    """Returns the leaves of the encoder under the names of a layout, and the tensors of a head by name in PyTorch."""
    if called == BIG_VISION:
        return head_of(renamed(leaves))
    return (nested(leaves) if called == GEMMA else leaves), {}


def _layouts(name: str, config: Mapping[str, Any]) -> Iterator[tuple[str, Layout]]:
    counterpart = architectures()[name].counterpart
    assert counterpart is not None
    flags = (*counterpart.present, *counterpart.untied)
    for with_head in (True, False) if flags else (False,):
        present = {**config, **dict.fromkeys(flags, with_head), "pooling": counterpart.pooling}
        if with_head and "tie_word_embeddings" in config:
            present["tie_word_embeddings"] = False
        model = build(name, present)
        yield OURS, _ours(model)
        if name in ("llama", "qwen3") and not any(ours.endswith("/bias") for _, ours, _ in their_tensors(model)):
            yield f"{MAXTEXT}, unscanned", maxtext(model, scanned=False)
            yield f"{MAXTEXT}, scanned", maxtext(model, scanned=True)
        if name in LEVANTER_MODELS and not any(model.config.get(bias) for bias in ("attention_bias", "mlp_bias")):
            yield f"{LEVANTER}, stacked", levanter(model, stacked=True)
            yield f"{LEVANTER}, layer by layer", levanter(model, stacked=False)
        if name in GEMMAS and not model.config["attention_bias"] and not with_head:
            for swapped in (True, False):
                yield GEMMA, deepmind_gemma(model, swapped=swapped)
        if name == "vit":
            for rows in (0, 1):
                yield BIG_VISION, big_vision(model.config, class_positions=rows)


def _misfits(leaves: Leaves, layout: Layout) -> list[str]:
    wrong = [f"missing {path}" for path in layout if path not in leaves]
    wrong += [f"unexpected {path}" for path in leaves if path not in layout]
    return wrong + [
        f"shape of {path} is {leaves[path].shape}, expected {part.whole_shape}"
        for path, part in layout.items()
        if path in leaves and leaves[path].shape != part.whole_shape
    ]


def _converted(leaves: Leaves, layout: Layout) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for path, part in layout.items():
        pieces = leaves[path][None] if part.stacked is None else np.moveaxis(leaves[path], part.stacked, 0)
        found |= {name: part.into(piece) for name, piece in zip(part.tensors, pieces, strict=True)}
    return found


def _ours(model: Model) -> Layout:
    shapes = flatten(jax.eval_shape(model.init, jax.random.key(0)))
    return {
        ours: Part(shapes[ours].shape, (full_name(model, theirs),), layout.back)
        for theirs, ours, layout in their_tensors(model)
    }
