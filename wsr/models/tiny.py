"""``tiny``, a BERT of two layers for trying things out and for tests; there is nothing to download."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from wsr.models.bert import bert
from wsr.models.model import Checkpoint, Model
from wsr.runtime.seeds import generator
from wsr.types import Params

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~"
VOCABULARY = (*SPECIAL_TOKENS, *_PUNCTUATION, *_LETTERS, *(f"##{letter}" for letter in _LETTERS))

EXAMPLE: Mapping[str, Any] = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
    "pad_token_id": 0,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    # Wider than BERT's 0.02, so that such a narrow network tells texts apart before any training.
    "initializer_range": 0.2,
    "pooling": "mean",
}


def tiny(config: Mapping[str, Any]) -> Model:
    """Returns the BERT encoder that ``config`` describes, under the name "tiny"."""
    return replace(bert(config), name="tiny")


def checkpoint() -> Checkpoint:
    """Returns the checkpoint "tiny": random parameters, the same on every machine, and a tokenizer of characters."""
    model = tiny(EXAMPLE)
    return Checkpoint(model, drawn(model, EXAMPLE["initializer_range"]), tokenizer())


def drawn(model: Model, spread: float) -> Params:
    """Returns parameters drawn by NumPy from a normal distribution with standard deviation ``spread``.

    They have the same bits on every device, and nothing is compiled. Biases are 0 and scales are 1.
    """
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    random = generator(0, model.name)

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        constant = {"bias": 0.0, "scale": 1.0}.get(path[-1].key)
        if constant is not None:
            return jnp.full(leaf.shape, constant, leaf.dtype)
        return jnp.asarray(spread * random.standard_normal(leaf.shape), leaf.dtype)

    return jax.tree.map_with_path(draw, shapes)


def tokenizer() -> Any:
    """Returns a lower-casing WordPiece tokenizer over letters, digits and punctuation."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {token: index for index, token in enumerate(VOCABULARY)}
    backend = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=EXAMPLE["max_position_embeddings"],
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
