"""Weight space: task vectors, points between them, and what their inner products answer.

trees.py         nested dicts as flat paths and back
points.py        where coefficients meet weights (`combine`)
linear_head.py   logits and losses of linear heads, at full float32 precision
low_rank.py      task vectors kept as two thin factors
similarity.py    the Gram matrix of a population, out of core
gram.py          cosines, norms, distances and hulls, from the Gram matrix alone
sampling.py      ways to draw points: lines, hulls, extrapolations, planes, random directions
"""
