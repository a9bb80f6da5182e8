"""The engine: coefficients in, one result a point out.

settings.py               how the engine works: points at a time, memory, devices, precision, where results are kept
region_features.py        features of texts under points of a region, chunk of points by chunk
scoring.py                which points are missing and whose they are; encode; score and keep
probe.py, logistic.py     linear probes for many points at once
evaluate.py               exact scores: the generalised loss of each point
lattice.py, surrogate.py  a whole convex hull from a few forward passes, with the error measured
early.py                  which of two groups is better, read only until the answer is sure
language_model.py         the loss of a decoder itself
suggest.py                the best start for somebody's data
learned_coefficients.py, probe_gradient.py   the best point of a region, by gradients
"""
