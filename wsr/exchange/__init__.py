"""Import of models into a store, and export of points out of it.

door.py           opens a folder or a file that a person brings, or refuses it
agreement.py      whether models that lie in files may be merged entry by entry
tokens.py         the tokens of a folder by number
splitting.py      whether two tokenizers of the same tokens split texts alike
vocabulary.py     models of different vocabularies under one, matched by the strings of tokens
member.py         reads a Hugging Face folder or a LoRA adapter as a member, or refuses it with all reasons
head.py           the head of an imported model: its tensors, its labels, notes about them
untied.py         a base whose language-modelling head is apart from its token embedding
atlas.py          sketches of any number of models of one base, and where a model lies among them
kin.py            what one model is to another, in a few words
kinship.py        whether a model was fine-tuned from a checkpoint
likely_bases.py   which of the available checkpoints a model was fine-tuned from
importing.py      the import: read, compare with the base, admit
admission.py      name, dataset and record of an imported model
candidate.py      compares a model with the members of a population without importing it
adapter.py        LoRA adapters of points and merges, exact or by a truncated SVD
extracting.py     a LoRA adapter of a model that was fine-tuned in full
modules.py        weights of a SentenceTransformer's modules at a point
named_model.py    any model that a person names: a file, a folder, a hub name, a point of a store
difference.py     what differs between two models: weights, config, vocabulary
matching.py       weight matching: the order of units that brings a model closest to another
aligning.py       a model with its units in the order of another, as a folder
lineage.py        whether models have a common origin, and which descends from which
family_tree.py    parents, children and siblings among related models, by their distances
named_point.py    points by name, and their weights one leaf at a time
scores.py         measured scores of a store's points, quoted on export
model_card.py     the README of an exported model: members, coefficients, scores, command
licences.py       licences of the parents, and the licence that follows for the model
file_card.py      the README of a merge of files: parents, hashes, licences, command
card_parts.py     the pieces of a card: metadata, tables, escaped text
"""
