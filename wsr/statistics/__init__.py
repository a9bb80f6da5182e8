"""Statistics of losses and similarities; no models.

compare.py           P_B, differences of means, barriers, each with its interval
bootstrap.py         intervals of a mean over models and texts of several datasets
clustering.py        spectral and average-linkage clusters, and how well they agree with labels
cluster_count.py     number of clusters of a population
similarity_file.py   published similarity matrices and their labels
"""
