"""Architectures: the registry, adapters for Flax modules, Hugging Face import and export."""

from wsr.models import bert as _bert
from wsr.models import load as _load
from wsr.models import roberta as _roberta
from wsr.models import tiny as _tiny
from wsr.models.adapters import from_linen, from_nnx
from wsr.models.huggingface import export
from wsr.models.model import Checkpoint, Model
from wsr.models.registry import architectures, build, register, register_checkpoint

register("bert", _bert.bert, example=_bert.EXAMPLE, counterpart=_bert.COUNTERPART)
register("roberta", _roberta.roberta, example=_roberta.EXAMPLE, counterpart=_roberta.COUNTERPART)
register("tiny", _tiny.tiny, example=_tiny.EXAMPLE, counterpart=_bert.COUNTERPART, checkpoint=_tiny.checkpoint)
register_checkpoint("minilm", _load.minilm)

load = _load.load

__all__ = [
    "Checkpoint",
    "Model",
    "architectures",
    "build",
    "export",
    "from_linen",
    "from_nnx",
    "load",
    "register",
    "register_checkpoint",
]
