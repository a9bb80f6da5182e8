"""Models from outside on their way into a store, and points on their way out.

member.py         a Hugging Face folder or an adapter as a member of a base's population, or refused with all reasons
kinship.py        was a model fine-tuned from this checkpoint?
likely_bases.py   if not, from which of those at hand?
importing.py      one way in: read, compared with the base, admitted
admission.py      the name, the dataset and the record of a model that comes in
candidate.py      one that may join: compared with the members, none of them whole in memory
named_point.py    points by what a person calls them, leaf by leaf
scores.py         measured scores, so that whoever exports a point can quote them
model_card.py     which models a point is made of, with which coefficients, how good it is, by which command
"""
