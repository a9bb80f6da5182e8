"""Statistics of losses and similarities; no models.

sources.py           the independent draws behind the models of a group: datasets, or members of one dataset
better.py            P_B, the probability that one model is better than another, with its interval
chord.py             points of a hull against their chords, with the interval of the difference
difference.py        differences of means and their p-values, alone and adjusted for many tests
barrier.py           the loss barrier on a line, with its interval
interval.py          a value with its interval, and the interval of a mean
resampling.py        what the bootstraps share: checks, draws, percentiles
power.py             power of a t-test, and the number of units that it takes
bootstrap.py         intervals of a mean over models and texts of several datasets
clustering.py        spectral and average-linkage clusters, and how well they agree with labels
cluster_count.py     number of clusters of a population
fixed_points.py      the number of fixed points of random permutations, and its p-value
white_noise.py       whether a matrix may be white noise, by its largest singular value
log_evidence.py      how well features explain labels, without a classifier (LogME)
neighbourhoods.py    neighbours, clusters and positions of thousands of directions
similarity_file.py   published similarity matrices and their labels
ranks.py             ranks of methods, and means over populations with their intervals
forecast.py          whether something will help, from what is known beforehand; or that one cannot say
reliability.py       how often what was given a probability happened
"""
