"""Populations of fine-tuned models and their base: who belongs to a population, where its centre is, how wide it is.

region.py     Region and Member: a population and its base
learned.py    the members that learned their dataset
sketch.py     estimates of inner products from a few thousand numbers per task vector
exposure.py   the members that were fine-tuned on texts of a dataset
standing.py   whether a model lies inside a region, on its rim or outside
outliers.py   members to leave out of an average, and why
check.py      the result of checking one model: flags, regions, nearest members
listing.py    the members of a store as rows
population_map.py, plots.py   clusters, a map of the population, and quick plots for notebooks
made_up.py    a region for examples and tests
"""
