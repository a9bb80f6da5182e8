"""Reads the tokenizer of a Hugging Face folder: from ``tokenizer.json``, a vocabulary or a SentencePiece model.

``transformers`` chooses the class and makes a fast tokenizer of what it finds; for SigLIP, which has a slow one only,
that is done here.
"""

from pathlib import Path
from typing import Any

from wsr.errors import WsrError
from wsr.models.huggingface.siglip_tokenizer import fast_siglip
from wsr.runtime.model_folder import TOKENIZER_FILES, sentencepiece_file


def read_tokenizer(folder: Path, vocab_size: int | None = None) -> Any:
    """Returns the tokenizer of a model folder as a fast one.

    Args:
      folder: the Hugging Face folder.
      vocab_size: rows of the model's token embedding, which the tokenizer may not exceed; None: not compared.

    Raises:
      WsrError: the folder has no readable tokenizer, or the tokenizer has more entries than ``vocab_size``.
    """
    from transformers import AutoTokenizer

    # Without these files transformers silently creates an empty vocabulary.
    if not any((folder / name).exists() for name in TOKENIZER_FILES):
        raise WsrError(f"{folder}: no tokenizer; expected one of {', '.join(TOKENIZER_FILES)}")
    source = sentencepiece_file(folder)
    pieces = 0 if source is None else _pieces(source)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # Each tokenizer class raises its own kinds.
        raise WsrError(f"{folder}: the tokenizer cannot be read: {' '.join(str(error).split())}") from error
    kind = type(tokenizer).__name__
    if len(tokenizer) < pieces:
        raise WsrError(
            f"{source}: has {pieces} pieces, of which {kind} of transformers reads {len(tokenizer)}; expected the "
            "SentencePiece file of that tokenizer, or tokenizer.json"
        )
    if kind == "SiglipTokenizer":
        tokenizer = fast_siglip(tokenizer)
    if not tokenizer.is_fast:
        raise WsrError(f"{folder}: expected a fast tokenizer (tokenizer.json), found {kind}")
    if vocab_size is not None and len(tokenizer) > vocab_size:
        raise WsrError(
            f"{folder}: the tokenizer has {len(tokenizer)} entries and the model only {vocab_size}: "
            "they do not belong together"
        )
    return tokenizer


def _pieces(path: Path) -> int:
    """Returns the number of pieces of a SentencePiece model; transformers would read any other file as tiktoken's."""
    try:
        from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2  # noqa: F401 (transformers needs it)
    except Exception as error:  # missing, or made for another version of protobuf
        raise WsrError(
            f"{path}: the package sentencepiece cannot be loaded ({' '.join(str(error).split())}); "
            "pip install --upgrade sentencepiece protobuf"
        ) from error
    try:
        return len(SentencePieceProcessor(model_file=str(path)))
    except (OSError, RuntimeError) as error:
        raise WsrError(
            f"{path}: no SentencePiece model ({' '.join(str(error).split())}); expected one, or tokenizer.json"
        ) from error
