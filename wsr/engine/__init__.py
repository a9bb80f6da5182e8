"""The engine evaluates points of a region: coefficients in, one result per point out.

settings.py               points at a time, memory, devices, precision, cache of results
region_features.py        features of texts under points of a region, one chunk of points at a time
scoring.py                finds the points without a result, encodes and scores them, saves the results
probe.py, logistic.py     linear probes for many points at once
newton.py                 the method that finds the optimum of each
cross_validation.py       the penalty of each probe, chosen by cross-validation
point_rows.py             tables and rows of results, the same for everything that points are scored on
evaluate.py               exact scores: the generalised loss of each point
surrogate.py              a whole convex hull from a few forward passes, with a bound on the error of each point
hull_answers.py           its method: nodes, degree, held-out points, and which points are exact after all
lattice.py                nodes in a simplex, polynomials through them, and how far these miss higher degrees
sparse_polynomial.py      polynomials of many members through few nodes, and which nodes say most
held_out.py               bounds of errors at points from errors at held-out points
fewer_probes.py           polynomials in place of probes
objective.py              what polynomials follow on a dataset, on texts and on questions, and the losses that result
hull_polynomial.py        a whole hull as polynomials of the logits, for pages and searches that run no model
descent.py                gradient descent on such polynomials, many searches at once
front.py                  the best compromises of a hull between datasets, found on such polynomials
hull_search.py            the best point of a hull, found on such polynomials and evaluated exactly
early.py                  which of two groups is better, stopped as soon as the answer is certain enough
language_model.py         the language-model loss of a decoder
choices.py                a decoder's answers to questions, and its preferences, by log-likelihoods
zero_shot.py              vision towers of CLIP and SigLIP without a probe, by the names of the classes
suggest.py                the best starting point for new data
recipe_check.py           whether a recipe trains long enough to learn new data
learned_coefficients.py, probe_gradient.py   the best point of a region, found by gradients through the encoder
"""
