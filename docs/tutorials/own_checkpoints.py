# %% [markdown]
# # Use your own checkpoints
#
# You have several checkpoints that were fine-tuned from one base, as Hugging Face folders. You want to know which
# belong together, average those, and get a folder that `transformers` loads. This tutorial first makes four such
# folders, so that it runs anywhere; with your own folders, start at [Import](#import).

# %%
import jax

import wsr

base = wsr.load("tiny")  # with your own: the folder or hub name of the base
recipe = wsr.Recipe(learning_rate=0.01, batch_size=32, epochs=6.0)
trained_on = {
    "alpha": ("made_up_a1", 0),
    "beta": ("made_up_a1", 1),
    "gamma": ("made_up_a1", 2),
    "delta": ("made_up_b1", 0),
}
for name, (dataset, seed) in trained_on.items():
    data = wsr.load_dataset(dataset, base.processor, max_length=48)
    (member,) = wsr.finetune(base.model, base.params, [wsr.Job(data, seed, recipe)])
    wsr.export(base.with_params(member.params), f"theirs/{name}")

# %%
# !ls theirs theirs/alpha

# %% [markdown]
# ## Import
#
# A store keeps the base once and every model as a member. wsr reads safetensors only, never pickles, and refuses a
# model that was not fine-tuned from this base. Say what each model was trained on, if you know it.

# %%
store = wsr.Store.create_for("collected", base)
for name, (dataset, _) in trained_on.items():
    wsr.import_(f"theirs/{name}", store, dataset=dataset)
region = wsr.open("collected")
region

# %% [markdown]
# What happens to a model of another base? wsr compares the weights and says why it refuses:

# %%
stranger = base.with_params(base.model.init(jax.random.key(7)))
wsr.export(stranger, "theirs/stranger")
try:
    wsr.import_("theirs/stranger", store)
except wsr.WsrError as error:
    print(error)

# %% [markdown]
# ## Check
#
# The cosines show which models belong together: alpha, beta and gamma were trained on one dataset, delta on another.

# %%
axes = region.plot_similarity()

# %% [markdown]
# `wsr.check` compares one model with the others and says in which regions it lies. It looks at weights only.

# %%
for name in ("alpha", "delta"):
    found = wsr.check(region, name)
    print(name, "nearest:", {other: round(cosine, 2) for other, cosine in found.nearest.items()})

# %% [markdown]
# In the shell, `wsr check` without a model lists all members to leave out of an average:

# %%
# !wsr check --store=collected

# %% [markdown]
# ## Merge
#
# Merge the three that belong together. A method is an object, and its options are its fields.

# %%
together = region.where(lambda member: member.dataset == "made_up_a1")
average = together.params(together.centroid())
ties = wsr.merge(together, wsr.merging.Ties(density=0.3))

# %% [markdown]
# Is a merge better than the best member? Score both on a dataset of the same family that no member saw. To compare
# merged models with points, make a region of all of them:

# %%
models = {name: together.members[k].load() for k, name in enumerate(together.names)} | {
    "average": average,
    "ties": ties,
}
compared = wsr.from_params(base.model, base.params, models)
scores = wsr.evaluate(
    compared, wsr.sampling.corners(len(compared)), wsr.load_dataset("made_up_a2", base.processor, max_length=48)
)
frame = scores.to_frame()[["generalised_loss", "accuracy"]]
frame.index = compared.names
frame.round(3)

# %% [markdown]
# On this easy task they hardly differ. [Merge models](../merging.md#which-method-is-best) compares all methods on real
# ones.
#
# ## Export
#
# The result is a folder with configuration, tokenizer and safetensors.
# `transformers.AutoModel.from_pretrained("merged")` loads it, and so does `wsr.load`:

# %%
wsr.export(base.with_params(average), "merged")
wsr.load("merged")

# %% [markdown]
# The command line also writes a model card, which says which members the model consists of and how it was made:

# %%
# !wsr export alpha=0.5,beta=0.5 --store=collected --to=halfway
# !cat halfway/README.md

# %% [markdown]
# ## The same in the shell
#
# ```sh
# wsr import theirs/alpha theirs/beta theirs/gamma --store=collected --base=tiny --dataset=made_up_a1
# wsr import theirs/delta --store=collected --base=tiny --dataset=made_up_b1
# wsr check --store=collected
# wsr merge --store=collected --datasets=made_up_a1 --method=ties --density=0.3 --to=merged-ties
# ```
#
# Read on: [Import and export](../checkpoints.md), [Map, check, suggest](../check.md), [Merge models](../merging.md).
