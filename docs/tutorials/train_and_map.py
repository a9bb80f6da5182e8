# %% [markdown]
# # Train a population and map it
#
# You fine-tune nine small models from one checkpoint, look at where they lie in weight space, and score them and their
# average on data that none of them saw. Everything here is made up and tiny, so that each step takes seconds: the
# encoder has two random layers, and the texts are random words. With `wsr.load("minilm")` and your own files, the same
# lines work on real models.

# %%
import itertools

import matplotlib.pyplot as plt
import numpy as np

import wsr

base = wsr.load("tiny")
base

# %% [markdown]
# ## Data
#
# `made_up_a1` and `made_up_a2` are two datasets of one *family*: their texts use the same telling words, so one task
# solves both. `made_up_b1` belongs to another family. wsr cuts every dataset into four disjoint splits. Members are
# trained on `finetune` only.

# %%
names = ["made_up_a1", "made_up_a2", "made_up_b1"]
datasets = {name: wsr.load_dataset(name, base.processor, max_length=48) for name in names}
datasets["made_up_a1"]

# %% [markdown]
# ## Train
#
# A `Job` is one member to train: a dataset, a seed and a recipe. `wsr.train` trains them in one compiled program and
# writes each member to a *store*, a folder. Run it again and it trains only what is missing.

# %%
recipe = wsr.Recipe(learning_rate=0.01, batch_size=32, epochs=6.0)
jobs = [wsr.Job(data, seed, recipe) for data in datasets.values() for seed in range(3)]
store = wsr.Store.create_for("population", base)
records = wsr.train(base.model, store, jobs)
for record in records:
    print(f"{record.name:22} accuracy {record.metrics['test_score']:.2f}, chance {record.metrics['chance']:.2f}")

# %% [markdown]
# ## Map
#
# `wsr.open` opens the store as a *region*: the base and the members that did better than chance. A member's *task
# vector* is what training added to the base. The region compares task vectors by their cosine.

# %%
region = wsr.open("population")
region

# %%
axes = region.plot_similarity()

# %% [markdown]
# Two blocks lie on the diagonal. The six members of the two datasets of one family point in similar directions; the
# members of `made_up_b1` form a block of their own. In figures:

# %%
kinds = {"same dataset": [], "same family": [], "nothing in common": []}
cosines = region.similarity()
for first, second in itertools.combinations(range(len(region)), 2):
    if region.datasets[first] == region.datasets[second]:
        kinds["same dataset"].append(cosines[first, second])
    elif region.families[first] == region.families[second]:
        kinds["same family"].append(cosines[first, second])
    else:
        kinds["nothing in common"].append(cosines[first, second])
for kind, values in kinds.items():
    print(f"{kind:18} mean cosine {np.mean(values):.3f}")

# %% [markdown]
# The same cosines as a map in the plane. Neighbours mean something; axes and large distances do not.

# %%
axes = region.plot_map()

# %% [markdown]
# `wsr.map` adds clusters and flags members that look broken.

# %%
wsr.map(region, clusters=2).to_frame()

# %% [markdown]
# ## Score points
#
# A *point* is a row of coefficients over the members. A member is a row with a single 1, and the centroid is a row of
# 1/n. The score is the *generalised loss*: wsr fits a fresh linear classifier on the frozen encoder and takes its loss
# on unseen texts.
#
# Score on `made_up_a2`, without the members that were trained on it:

# %%
others = region.without_dataset("made_up_a2")
points = np.vstack([wsr.sampling.corners(len(others)), others.centroid()])
scores = wsr.evaluate(others, points, datasets["made_up_a2"])
scores.to_frame().round(3)

# %% [markdown]
# The last row is the centroid. The base scores worse than every member of the same family:

# %%
untrained = wsr.evaluate(others, np.zeros(len(others)), datasets["made_up_a2"])
figure, axes = plt.subplots(figsize=(6, 3))
labels = [*others.names, "centroid", "base"]
axes.barh(labels, [*scores.generalised_loss, *untrained.generalised_loss])
axes.set_xlabel("generalised loss on made_up_a2 (lower is better)")
axes.invert_yaxis()
figure.tight_layout()

# %% [markdown]
# ## The same in the shell
#
# ```sh
# wsr train --store=population --base=tiny --datasets=made_up_a1,made_up_a2,made_up_b1 --epochs=6 \
#   --learning_rate=0.01 --max_length=48
# wsr map --store=population --out=map
# wsr evaluate --store=population --on=made_up_a2 --max_length=48
# ```
#
# Next: [Use your own checkpoints](own_checkpoints.md), or [explore the inside of a region](inside_a_region.md).
