# %% [markdown]
# # Explore the inside of a region
#
# The models *between* fine-tuned models are often as good as these, or better. You walk along a line between two
# members, score 200 points of the hull with few forward passes, and fine-tune from the centroid instead of the base.

# %%
import matplotlib.pyplot as plt
import numpy as np

import wsr

base = wsr.load("tiny")
recipe = wsr.Recipe(learning_rate=0.01, batch_size=32, epochs=6.0)
seen = wsr.load_dataset("made_up_a1", base.processor, max_length=48)
unseen = wsr.load_dataset("made_up_a2", base.processor, max_length=48)  # of the same family; no member is trained on it
jobs = [wsr.Job(seen, seed, recipe) for seed in range(4)]
members = {f"seed {member.job.seed}": member.params for member in wsr.finetune(base.model, base.params, jobs)}
region = wsr.from_params(base.model, base.params, members, dataset="made_up_a1", family="made_up_a")
region

# %% [markdown]
# ## Along a line
#
# `wsr.sampling.line` gives the coefficients of points on the line through the first two members. Alpha 0 and 1 are the
# members themselves; beyond them the line leaves the hull.

# %%
alphas = np.linspace(-1, 2, 13)
line = np.pad(wsr.sampling.line(alphas), ((0, 0), (0, len(region) - 2)))  # the other members take no part
along = wsr.evaluate(region, line, unseen)
figure, axes = plt.subplots(figsize=(6, 3))
axes.axvspan(0, 1, alpha=0.15)
axes.plot(alphas, along.generalised_loss, marker="o")
axes.set_xlabel("alpha (shaded: between the members)")
axes.set_ylabel("generalised loss")
figure.tight_layout()

# %% [markdown]
# ## The whole hull
#
# Scoring a point exactly takes forward passes over all texts. Inside the hull, features vary smoothly with the
# coefficients, so wsr can run the encoder at a few *nodes*, fit polynomials to the features, and predict all other
# points. It evaluates six points exactly to measure the error, and falls back to exact evaluation if the error exceeds
# the tolerance.

# %%
hull = wsr.sampling.convex_hull(np.random.default_rng(0), 200, len(region))
scored = wsr.evaluate_hull(region, hull, unseen, tolerance=0.005)
scored

# %% [markdown]
# The column `how` says how wsr obtained each row. Check the surrogate against exact evaluation at the best and the
# worst point:

# %%
extremes = [scored.generalised_loss.argmin(), scored.generalised_loss.argmax()]
exact = wsr.evaluate(region, hull[extremes], unseen)
print("surrogate:", scored.generalised_loss[extremes].round(4))
print("exact:    ", exact.generalised_loss.round(4))

# %% [markdown]
# Where do the points of the hull lie, compared with the members and the centroid?

# %%
corners = wsr.evaluate(region, wsr.sampling.corners(len(region)), unseen)
centre = wsr.evaluate(region, region.centroid(), unseen)
untrained = wsr.evaluate(region, np.zeros(len(region)), unseen)
print("the base has", untrained.generalised_loss.round(3))
figure, axes = plt.subplots(figsize=(6, 3))
axes.hist(scored.generalised_loss, bins=20, alpha=0.6, label="200 points of the hull")
for evaluation, name, style in ((corners, "members", ":"), (centre, "centroid", "-")):
    for number, loss in enumerate(evaluation.generalised_loss):
        axes.axvline(loss, linestyle=style, color="black", label=name if number == 0 else None)
axes.set_xlabel("generalised loss")
axes.legend()
figure.tight_layout()

# %% [markdown]
# ## The centroid as a start
#
# If you have little data of a new task, start from the centroid of related members instead of the base. Train only the
# biases and the head (BitFit) on 32 texts of `made_up_a2`, from both starts, with five seeds:

# %%
bitfit = wsr.Recipe(mode="bitfit", learning_rate=0.01, batch_size=16, epochs=10.0)
few = [wsr.Job(unseen, seed, bitfit, size=32) for seed in range(5)]
centroid = base.with_params(region.params(region.centroid()))
accuracies = {}
for name, checkpoint in (("base", base), ("centroid", centroid)):
    store = wsr.Store.create_for(f"from_{name}", checkpoint)
    accuracies[name] = [record.metrics["test_score"] for record in wsr.train(base.model, store, few)]

# %%
for name, found in accuracies.items():
    print(f"from the {name:8} mean accuracy {np.mean(found):.2f}, each {np.round(found, 2)}")

# %% [markdown]
# This is one made-up task with five seeds. [Results](../results.md) reports what real models showed, with intervals.
#
# Read on: [Evaluate a whole hull quickly](../surrogate.md), [Find the best point by
# gradients](../learned_coefficients.md), and the functions of [`wsr.sampling`](../api/geometry.md).
