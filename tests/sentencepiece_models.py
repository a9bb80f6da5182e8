"""Small SentencePiece models, trained here by sentencepiece's own trainer, in folders without tokenizer.json."""

import functools
import io
import json
import random
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

WORDS = (
    *("the", "a", "good", "bad", "film", "photo", "of", "cat", "dog", "hut", "elk", "play", "played", "playing"),
    *("player", "long", "longer", "story", "stories", "is", "was", "not", "very", "12", "345", "2024", "naïve"),
    *("café", "über", "don't", "one-way", "end.", "what?", "yes,", "UPPER", "Title"),
)
SIGLIP = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
"""Numbers of the special pieces of T5 and SigLIP."""
TEXTS = (
    "the good cat played, a long story.",
    "A photo of the Dog Hut!",
    "naïve café, über 2024",
    "an unheard zebra: 中文 ☃ q@x",
    "two  spaces, and ﬁne ½ ＷＩＤＥ",
    "one-way",
    "x",
)


@functools.cache
def corpus(seed: int, more: tuple[str, ...]) -> tuple[str, ...]:
    """Lines of random words."""
    drawn = random.Random(seed)
    return tuple(" ".join(drawn.choices((*WORDS, *more), k=8)) for _ in range(300))


def train(kind: str = "unigram", pieces: int = 90, seed: int = 0, more: tuple[str, ...] = (), **options: Any) -> bytes:
    """Returns the content of a SentencePiece model.

    Args:
      kind: "unigram" or "bpe".
      pieces: the size of its vocabulary, at most.
      seed: of the lines.
      more: words of the lines besides ``WORDS``.
      options: further ones of the trainer.
    """
    content = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(corpus(seed, more)),
        model_writer=content,
        model_type=kind,
        vocab_size=pieces,
        hard_vocab_limit=False,
        character_coverage=1.0,
        minloglevel=2,
        **options,
    )
    return content.getvalue()


def processor(content: bytes) -> SentencePieceProcessor:
    """Returns sentencepiece's own program for a model."""
    return SentencePieceProcessor(model_proto=content)


def put(folder: Path, file: str, content: bytes, **settings: Any) -> Path:
    """Makes a SentencePiece model the tokenizer of a folder, with the settings of its tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    (folder / file).write_bytes(content)
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
