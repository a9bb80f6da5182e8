"""SigLIP's tokenizer as a fast one: ``SiglipTokenizer`` of ``transformers`` runs in Python, on a SentencePiece model.

It lower-cases a text, removes ASCII punctuation, joins white space (the prompts of big_vision, ``canonicalize_text``),
splits the rest into the pieces of a unigram model and adds the end token. It puts the mark of a word's beginning in
front of the text before it removes anything, so a text that began with punctuation and a space begins with two marks.
"""

from typing import Any

from wsr.data.fingerprint import fingerprint, other_fingerprint
from wsr.errors import WsrError

_MARK = "▁"
"""Begins a word in SentencePiece."""
_UNIGRAM = 1
"""The number of this kind of model in SentencePiece's files."""


def fast_siglip(slow: Any) -> Any:
    """Returns a fast tokenizer that splits texts as ``slow`` does.

    Texts that spell out a special token, such as ``</s>``, may be split otherwise around it.

    Args:
      slow: a ``SiglipTokenizer`` of ``transformers``.

    Raises:
      WsrError: its SentencePiece model is no unigram model, or the two split some fixed texts otherwise.
    """
    from sentencepiece import sentencepiece_model_pb2
    from transformers import PreTrainedTokenizerFast

    model = sentencepiece_model_pb2.ModelProto.FromString(slow.sp_model.serialized_model_proto())
    if model.trainer_spec.model_type != _UNIGRAM:
        raise WsrError(f"{slow.vocab_file}: expected a unigram model for SiglipTokenizer, found another kind")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=_backend(slow, model),
        **{name: getattr(slow, name) for name in ("unk_token", "eos_token", "pad_token")},
        **{name: getattr(slow, name) for name in ("model_max_length", "padding_side", "truncation_side")},
        model_input_names=list(slow.model_input_names),
    )
    other = other_fingerprint(fingerprint(fast), fingerprint(slow))
    if other:
        raise WsrError(
            f"{slow.vocab_file}: as a fast tokenizer it would have another {' and '.join(other)} than SiglipTokenizer; "
            "expected a model like those of SigLIP"
        )
    return fast


def _backend(slow: Any, model: Any) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers
    from tokenizers.processors import TemplateProcessing

    pieces, spec = [(piece.piece, piece.score) for piece in model.pieces], model.trainer_spec
    backend = Tokenizer(models.Unigram(pieces, unk_id=spec.unk_id, byte_fallback=spec.byte_fallback))
    added = sorted(slow.added_tokens_decoder.items())
    backend.add_special_tokens([token for _, token in added if token.special])
    backend.add_tokens([token for _, token in added if not token.special])
    backend.normalizer = normalizers.Sequence(_normalizers(slow, model.normalizer_spec))
    end = str(slow.eos_token)
    backend.post_processor = TemplateProcessing(
        single=f"$A {end}", pair=f"$A {end} $B:1 {end}:1", special_tokens=[(end, slow.eos_token_id)]
    )
    backend.decoder = decoders.Metaspace(replacement=_MARK, prepend_scheme="always")
    return backend


def _normalizers(slow: Any, spec: Any) -> list[Any]:
    """Returns what happens to a text before it is split: first as in SiglipTokenizer, then as in SentencePiece."""
    from tokenizers import Regex, normalizers

    steps = [normalizers.Replace(_MARK, " "), normalizers.Prepend(_MARK)]
    if slow.do_lower_case:
        # Python writes a sigma at the end of a word in its own way, the library does not.
        steps += [normalizers.Replace(Regex(r"(?<=\p{L})Σ(?!\p{L})"), "ς"), normalizers.Lowercase()]
    steps.append(normalizers.Replace(Regex(r"[!-/:-@\[-`{-~]"), ""))
    steps.append(normalizers.Replace(Regex(r"[\s\x1c-\x1f]+"), " "))
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    steps.append(normalizers.Replace(Regex(f"[ {_MARK}]+\\z"), ""))
    return [*steps, normalizers.Replace(" ", _MARK)]
