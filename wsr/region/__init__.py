"""Who belongs to a region, told from the Gram matrix of the task vectors alone.

regions.py    inside, on the rim, or outside
outliers.py   members that should not enter an average, and why
"""
