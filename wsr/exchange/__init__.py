"""Models from outside, on their way into a store.

member.py         a Hugging Face folder or an adapter as a member of a base's population, or refused with all reasons
kinship.py        was a model fine-tuned from this checkpoint?
likely_bases.py   from which of those at hand, then?
admission.py      its name, its dataset, its record
candidate.py      one that may join: held to the members, none of them whole in memory
"""
