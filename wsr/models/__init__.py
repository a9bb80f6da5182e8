"""Architectures and checkpoints: load, build and register them; adapt Flax modules; export to Hugging Face folders."""

from wsr.models import albert as _albert
from wsr.models import bert as _bert
from wsr.models import clip_text as _clip_text
from wsr.models import clip_vision as _clip_vision
from wsr.models import deberta_v2 as _deberta_v2
from wsr.models import distilbert as _distilbert
from wsr.models import electra as _electra
from wsr.models import gemma as _gemma
from wsr.models import gemma2 as _gemma2
from wsr.models import gemma3_text as _gemma3_text
from wsr.models import gpt2 as _gpt2
from wsr.models import llama as _llama
from wsr.models import load as _load
from wsr.models import modernbert as _modernbert
from wsr.models import mpnet as _mpnet
from wsr.models import qwen2 as _qwen2
from wsr.models import qwen3 as _qwen3
from wsr.models import roberta as _roberta
from wsr.models import siglip_text as _siglip_text
from wsr.models import siglip_vision as _siglip_vision
from wsr.models import t5 as _t5
from wsr.models import t5_seq2seq as _t5_seq2seq
from wsr.models import tiny as _tiny
from wsr.models import tiny_vit as _tiny_vit
from wsr.models import vit as _vit
from wsr.models import xlm_roberta as _xlm_roberta
from wsr.models.adapters import from_linen, from_nnx
from wsr.models.huggingface import export
from wsr.models.model import Checkpoint, Model
from wsr.models.registry import architectures, build, register, register_checkpoint

register("bert", _bert.bert, example=_bert.EXAMPLE, counterpart=_bert.COUNTERPART)
register("roberta", _roberta.roberta, example=_roberta.EXAMPLE, counterpart=_roberta.COUNTERPART)
register("xlm_roberta", _xlm_roberta.xlm_roberta, example=_xlm_roberta.EXAMPLE, counterpart=_xlm_roberta.COUNTERPART)
register("distilbert", _distilbert.distilbert, example=_distilbert.EXAMPLE, counterpart=_distilbert.COUNTERPART)
register("electra", _electra.electra, example=_electra.EXAMPLE, counterpart=_electra.COUNTERPART)
register("albert", _albert.albert, example=_albert.EXAMPLE, counterpart=_albert.COUNTERPART)
register("mpnet", _mpnet.mpnet, example=_mpnet.EXAMPLE, counterpart=_mpnet.COUNTERPART)
register("deberta_v2", _deberta_v2.deberta_v2, example=_deberta_v2.EXAMPLE, counterpart=_deberta_v2.COUNTERPART)
register("tiny", _tiny.tiny, example=_tiny.EXAMPLE, counterpart=_bert.COUNTERPART, checkpoint=_tiny.checkpoint)
register("modernbert", _modernbert.modernbert, example=_modernbert.EXAMPLE, counterpart=_modernbert.COUNTERPART)
register("t5", _t5.t5, example=_t5.EXAMPLE, counterpart=_t5.COUNTERPART)
register("t5_seq2seq", _t5_seq2seq.t5_seq2seq, example=_t5_seq2seq.EXAMPLE, counterpart=_t5_seq2seq.COUNTERPART)
register("gpt2", _gpt2.gpt2, example=_gpt2.EXAMPLE, counterpart=_gpt2.COUNTERPART)
register("llama", _llama.llama, example=_llama.EXAMPLE, counterpart=_llama.COUNTERPART)
register("qwen2", _qwen2.qwen2, example=_qwen2.EXAMPLE, counterpart=_qwen2.COUNTERPART)
register("qwen3", _qwen3.qwen3, example=_qwen3.EXAMPLE, counterpart=_qwen3.COUNTERPART)
register("gemma", _gemma.gemma, example=_gemma.EXAMPLE, counterpart=_gemma.COUNTERPART)
register("gemma2", _gemma2.gemma2, example=_gemma2.EXAMPLE, counterpart=_gemma2.COUNTERPART)
register("gemma3_text", _gemma3_text.gemma3_text, example=_gemma3_text.EXAMPLE, counterpart=_gemma3_text.COUNTERPART)
register("vit", _vit.vit, example=_vit.EXAMPLE, counterpart=_vit.COUNTERPART)
register("clip_vision", _clip_vision.clip_vision, example=_clip_vision.EXAMPLE, counterpart=_clip_vision.COUNTERPART)
register("clip_text", _clip_text.clip_text, example=_clip_text.EXAMPLE, counterpart=_clip_text.COUNTERPART)
register(
    "siglip_vision",
    _siglip_vision.siglip_vision,
    example=_siglip_vision.EXAMPLE,
    counterpart=_siglip_vision.COUNTERPART,
)
register("siglip_text", _siglip_text.siglip_text, example=_siglip_text.EXAMPLE, counterpart=_siglip_text.COUNTERPART)
register(
    "tiny_vit",
    _tiny_vit.tiny_vit,
    example=_tiny_vit.EXAMPLE,
    counterpart=_vit.COUNTERPART,
    checkpoint=_tiny_vit.checkpoint,
)
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
