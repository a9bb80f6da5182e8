"""Weight space: task vectors, the points they span, and the geometry of their inner products.

trees.py         nested dicts as flat paths and back
points.py        where coefficients meet weights (`combine`)
linear_head.py   logits and losses of linear heads, at full float32 precision
low_rank.py      task vectors stored as two low-rank factors
truncation.py    low-rank factors of a sum of factors, and of a matrix by a truncated SVD
spectrum.py      singular values of a matrix, and the ranks that follow from them
similarity.py    the Gram matrix of a population larger than memory
gram.py          cosines, norms, distances and hulls, from the Gram matrix alone
sampling.py      ways to draw points: lines, hulls, extrapolations, planes, random directions
"""
