"""Pretrains a small encoder by masked language modelling, for studies that need more than one checkpoint.

The encoder predicts 15 % of the tokens of each batch. Of these, 80 % are replaced by the mask and 10 % by a random
token; 10 % stay as they are. The head is BERT's: a dense layer, an activation, a layer norm and the tied token
embedding (Devlin et al. 2019). It is discarded afterwards.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int32

from wsr.data.dataset import Split
from wsr.data.packing import row_length_for, training_batches
from wsr.models import Checkpoint, build
from wsr.models.layers.activations import exact_gelu
from wsr.models.precision import Precision, computing_in
from wsr.runtime import seeds
from wsr.runtime.atomic import write_atomically
from wsr.runtime.progress import progress
from wsr.types import Params

MASKED_SHARE = 0.15
_SHOWN_EVERY = 10
_KEPT_EVERY = 200  # steps


@dataclass(frozen=True)
class Pretraining:
    """The sizes of a BERT encoder, and how it is pretrained."""

    layers: int
    """Number of layers."""
    hidden: int
    """Width of the hidden states."""
    heads: int
    """Number of attention heads."""
    max_length: int
    """Number of tokens at which a text is cut."""
    steps: int
    """Number of optimiser steps."""
    batch_size: int
    """Number of texts per step."""
    learning_rate: float
    """Highest learning rate."""
    warmup: float = 0.1
    """Fraction of the steps during which the learning rate rises."""
    weight_decay: float = 0.01
    """Weight decay of AdamW."""
    precision: Precision = "float32"
    """Precision of the encoder's matrix products. Parameters, optimiser and the head stay in float32."""


@dataclass(frozen=True, eq=False)
class Masked:
    """One batch with masked tokens, and the tokens to predict."""

    token_ids: Int32[np.ndarray, "rows length"]
    """The batch's tokens, some replaced by the mask or a random token."""
    places: Int32[np.ndarray, " slots"]
    """Index of each token to predict in the flattened rows; 0 in unused slots."""
    targets: Int32[np.ndarray, " slots"]
    """The original tokens at ``places``."""
    valid: Bool[np.ndarray, " slots"]
    """False in unused slots."""


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A pretrained encoder, and how well it predicts masked tokens."""

    checkpoint: Checkpoint
    """The encoder, without the head."""
    losses: Float[np.ndarray, " steps"]
    """Loss of the masked tokens at each step, in nats."""
    held_out: float
    """Mean loss of masked tokens of held-out texts, in nats (exponential: the perplexity); NaN without such texts."""


def pretrain(
    texts: Split,
    tokenizer: Any,
    plan: Pretraining,
    *,
    seed: int,
    pooling: str = "mean",
    keep: Path | None = None,
    held_out: Split | None = None,
) -> Pretrained:
    """Pretrains an encoder from random parameters by masked language modelling.

    Args:
      texts: the corpus.
      tokenizer: the tokenizer that made ``texts``; it needs a mask token.
      plan: the encoder's sizes, and how it is pretrained.
      seed: determines the parameters, the order of texts and the masks.
      pooling: pooling of the checkpoint, "mean", "cls" or "last".
      keep: file to which the state is written every 200 steps. If it exists, the call resumes from it. None: no file.
      held_out: texts on which the result is scored; at least one batch.
    """
    config = _config(tokenizer, plan)
    # With "cls" pooling the features are the hidden states at ``starts``: here, the tokens to predict.
    model = build("bert", config | {"pooling": "cls"})
    weights = {
        "encoder": jax.jit(model.init)(seeds.stream(seed, "pretrain", "encoder")),
        "head": initial_head(config, seeds.generator(seed, "pretrain", "head")),
    }
    row_length = row_length_for(64, texts)
    batches = training_batches(
        texts,
        batch_size=plan.batch_size,
        steps=plan.steps,
        generator=seeds.generator(seed, "pretrain", "order"),
        row_length=row_length,
    )
    slots = int(np.ceil(MASKED_SHARE * batches.inputs["token_ids"][0].size))
    rate = optax.warmup_cosine_decay_schedule(0.0, plan.learning_rate, round(plan.warmup * plan.steps), plan.steps)
    optimiser = optax.adamw(
        rate, weight_decay=plan.weight_decay, mask=partial(jax.tree.map, lambda leaf: leaf.ndim > 1)
    )
    state = jax.jit(optimiser.init)(weights)

    encode = computing_in(model, plan.precision, jax.default_backend()).encode
    loss_of = partial(masked_loss, encode, config["layer_norm_eps"])

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(weights: dict, state: Any, batch: Mapping[str, Array], masked: Mapping[str, Array]) -> tuple:
        loss, gradient = jax.value_and_grad(loss_of)(weights, batch, masked)
        updates, state = optimiser.update(gradient, state, weights)
        return optax.apply_updates(weights, updates), state, loss

    special = np.array(sorted(set(tokenizer.all_special_ids)), np.int32)

    def masked_batch(inputs: Mapping[str, np.ndarray], draw: np.random.Generator) -> tuple[dict, dict]:
        masked = mask_tokens(
            inputs["token_ids"], inputs["text_ids"], special, tokenizer.mask_token_id, len(tokenizer), slots, draw
        )
        batch = {**inputs, "token_ids": masked.token_ids, "starts": masked.places}
        return batch, {"targets": masked.targets, "valid": masked.valid}

    losses: list[Any] = []
    if keep is not None and keep.is_file():
        (weights, state), losses = _kept(keep, (weights, state))
    with progress(f"pretraining, seed {seed}", plan.steps, "steps") as counter:
        counter.advance(len(losses))
        for number in range(len(losses), plan.steps):
            # One random stream for each step, so that a resumed run draws the same masks.
            draw = seeds.generator(seed, "pretrain", "masks", number)
            inputs = {name: array[number] for name, array in batches.inputs.items()}
            weights, state, loss = step(weights, state, *masked_batch(inputs, draw))
            losses.append(loss)
            if (number + 1) % _SHOWN_EVERY == 0 or number + 1 == plan.steps:
                jax.block_until_ready(loss)
                counter.advance(number + 1 - counter.done, note=f"loss {float(loss):.2f}")
            if keep is not None and (number + 1) % _KEPT_EVERY == 0:
                _keep(keep, (weights, state), losses)
    scored = float("nan")
    if held_out is not None:
        draw = seeds.generator(seed, "pretrain", "held out")
        unseen = training_batches(
            held_out,
            batch_size=plan.batch_size,
            steps=max(1, len(held_out) // plan.batch_size),
            generator=draw,
            row_length=row_length,
        )
        score = jax.jit(loss_of)
        pairs = [
            masked_batch({name: own[k] for name, own in unseen.inputs.items()}, draw)
            for k in range(len(unseen.inputs["token_ids"]))
        ]
        counts = [masked["valid"].sum() for _, masked in pairs]
        scored = float(np.average([float(score(weights, *pair)) for pair in pairs], weights=counts))
    params = jax.tree.map(np.asarray, weights["encoder"])
    checkpoint = Checkpoint(build("bert", config | {"pooling": pooling}), params, tokenizer)
    return Pretrained(checkpoint, np.array(losses, np.float32), scored)


def masked_loss(
    encode: Any, epsilon: float, weights: Mapping[str, Params], batch: Mapping[str, Array], masked: Mapping[str, Array]
) -> Float[Array, ""]:
    """Returns the mean cross-entropy, in nats, of the tokens to predict, which are at ``batch["starts"]``."""
    head, table = weights["head"], weights["encoder"]["embeddings"]["token"]["embedding"]
    hidden = encode(weights["encoder"], batch)
    hidden = exact_gelu(hidden @ head["kernel"] + head["bias"])
    centred = hidden - hidden.mean(axis=-1, keepdims=True)
    normed = centred / jnp.sqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + epsilon)
    logits = (normed * head["scale"] + head["norm_bias"]) @ table.T + head["output_bias"]
    each = optax.softmax_cross_entropy_with_integer_labels(logits, masked["targets"])
    return jnp.where(masked["valid"], each, 0.0).sum() / jnp.maximum(masked["valid"].sum(), 1)


def initial_head(config: Mapping[str, Any], generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Returns the initial head: weights with standard deviation ``initializer_range``, scales 1, biases 0."""
    hidden = config["hidden_size"]
    return {
        "kernel": generator.normal(0.0, config["initializer_range"], (hidden, hidden)).astype(np.float32),
        "bias": np.zeros(hidden, np.float32),
        "scale": np.ones(hidden, np.float32),
        "norm_bias": np.zeros(hidden, np.float32),
        "output_bias": np.zeros(config["vocab_size"], np.float32),
    }


def mask_tokens(
    token_ids: Int32[np.ndarray, "rows length"],
    text_ids: Int32[np.ndarray, "rows length"],
    special: Int32[np.ndarray, " special"],
    mask_id: int,
    vocabulary: int,
    slots: int,
    generator: np.random.Generator,
) -> Masked:
    """Chooses the tokens to predict among those that are not special, and masks them.

    Args:
      token_ids: the batch's tokens.
      text_ids: the text of each token; -1 if there is none.
      special: ids of special tokens, which are never chosen.
      mask_id: id of the mask.
      vocabulary: number of tokens to draw random ones from.
      slots: largest number of tokens to predict.
      generator: the random stream.
    """
    flat = token_ids.reshape(-1).copy()
    eligible = np.flatnonzero((text_ids.reshape(-1) >= 0) & ~np.isin(flat, special))
    count = min(slots, max(1, round(MASKED_SHARE * len(eligible))))
    chosen = np.sort(generator.choice(eligible, count, replace=False))
    places, targets = np.zeros(slots, np.int32), np.zeros(slots, np.int32)
    places[:count], targets[:count] = chosen, flat[chosen]
    fate = generator.random(count)
    random_tokens = generator.integers(0, vocabulary, count)
    flat[chosen] = np.where(fate < 0.8, mask_id, np.where(fate < 0.9, random_tokens, flat[chosen]))
    return Masked(flat.reshape(token_ids.shape), places, targets, np.arange(slots) < count)


def _keep(file: Path, tree: Any, losses: list[Any]) -> None:
    content = io.BytesIO()
    leaves = {str(place): np.asarray(leaf) for place, leaf in enumerate(jax.tree.leaves(tree))}
    np.savez(content, allow_pickle=False, losses=np.array(losses, np.float32), **leaves)
    write_atomically(file, content.getvalue())


def _kept(file: Path, tree: Any) -> tuple[Any, list[Any]]:
    with np.load(file, allow_pickle=False) as archive:
        leaves = [archive[str(place)] for place in range(len(jax.tree.leaves(tree)))]
        return jax.tree.unflatten(jax.tree.structure(tree), map(jnp.asarray, leaves)), list(archive["losses"])


def _config(tokenizer: Any, plan: Pretraining) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": plan.hidden,
        "num_hidden_layers": plan.layers,
        "num_attention_heads": plan.heads,
        "intermediate_size": 4 * plan.hidden,
        "max_position_embeddings": plan.max_length,
        "type_vocab_size": 2,
        "pad_token_id": tokenizer.pad_token_id,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        # No dropout: few passes over little text do not overfit.
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
    }
