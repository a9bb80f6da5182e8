"""``roberta-base`` by its real file names, config and form of tokenizer, at a tiny size."""

import json
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from hub_repositories import Repository, text
from published_bases import ROBERTA
from safetensors.numpy import save
from tokenizers import ByteLevelBPETokenizer, Tokenizer
from tokenizers.processors import RobertaProcessing

HIDDEN, LAYERS, WIDE, POSITIONS, WORDS = 16, 2, 32, 66, 400
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


@cache
def roberta(name: str = "FacebookAI/roberta-base", seed: int = 0) -> Repository:
    """Returns the repository of a checkpoint, whose weights the seed draws."""
    tokenizer = _tokenizer()
    size = tokenizer.get_vocab_size()
    config = ROBERTA | {
        "hidden_size": HIDDEN,
        "intermediate_size": WIDE,
        "max_position_embeddings": POSITIONS,
        "num_attention_heads": 2,
        "num_hidden_layers": LAYERS,
        "vocab_size": size,
    }
    about = json.loads(tokenizer.to_str())
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in about["model"]["merges"]]
    files = {
        "README.md": b"---\nlicense: mit\n---\n",
        "config.json": json.dumps(config, indent=2).encode(),
        "model.safetensors": save(dict(_weights(size, seed)), {"format": "pt"}),
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps({"model_max_length": POSITIONS - 2}).encode(),
        "vocab.json": json.dumps(about["model"]["vocab"]).encode(),
        "merges.txt": "\n".join(["#version: 0.2", *merges]).encode(),
        # Weights in other forms, which nobody may download.
        **dict.fromkeys(("pytorch_model.bin", "flax_model.msgpack", "rust_model.ot", "tf_model.h5", "dict.txt"), b"no"),
    }
    return Repository(name, files)


def _tokenizer() -> Tokenizer:
    trained = ByteLevelBPETokenizer()
    texts = (text(row, row % 26, "label") for row in range(600))
    trained.train_from_iterator(texts, WORDS, min_frequency=1, show_progress=False, special_tokens=list(SPECIAL))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "tokenizer.json"
        trained.save(str(place))
        tokenizer = Tokenizer.from_file(str(place))
    tokenizer.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False)
    return tokenizer


def _weights(words: int, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the tensors by the names of the real file."""
    draw = np.random.default_rng(seed)

    def linear(name: str, inputs: int, outputs: int) -> Iterator[tuple[str, np.ndarray]]:
        # So wide that the first token sees the others; 0.02 is for models that are 50 times as wide.
        yield f"{name}.weight", draw.normal(0, inputs**-0.5, (outputs, inputs)).astype(np.float32)
        yield f"{name}.bias", np.zeros(outputs, np.float32)

    def norm(name: str) -> Iterator[tuple[str, np.ndarray]]:
        yield f"{name}.weight", np.ones(HIDDEN, np.float32)
        yield f"{name}.bias", np.zeros(HIDDEN, np.float32)

    for name, rows in (("word", words), ("position", POSITIONS), ("token_type", 1)):
        table = draw.normal(0, 0.02, (rows, HIDDEN)).astype(np.float32)
        yield f"roberta.embeddings.{name}_embeddings.weight", table
    yield from norm("roberta.embeddings.LayerNorm")
    for number in range(LAYERS):
        layer = f"roberta.encoder.layer.{number}"
        for part in ("query", "key", "value"):
            yield from linear(f"{layer}.attention.self.{part}", HIDDEN, HIDDEN)
        yield from linear(f"{layer}.attention.output.dense", HIDDEN, HIDDEN)
        yield from norm(f"{layer}.attention.output.LayerNorm")
        yield from linear(f"{layer}.intermediate.dense", HIDDEN, WIDE)
        yield from linear(f"{layer}.output.dense", WIDE, HIDDEN)
        yield from norm(f"{layer}.output.LayerNorm")
    yield from linear("lm_head.dense", HIDDEN, HIDDEN)
    yield from norm("lm_head.layer_norm")
    yield "lm_head.bias", np.zeros(words, np.float32)
