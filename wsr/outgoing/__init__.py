"""Points of a store, on their way out: Hugging Face folders with a model card.

named_point.py   points by what a person calls them, leaf by leaf
scores.py        scores that were measured, so that whoever exports a point can tell them
model_card.py    of whom a model is made, with which coefficients, how good it is, by which command
"""
