"""A population and its base: who is a member, where the centre is, who belongs.

region.py     what a user holds
learned.py    which members learned their dataset
sketch.py     task vectors as a few thousand numbers
standing.py   inside, on the rim, or outside
outliers.py   members that should not enter an average, and why
check.py      everything that is found about one model
listing.py    the members of a store as rows
population_map.py, plots.py   clusters and a place in the plane for each member; quick looks in a notebook
made_up.py    a region for examples and tests
"""
