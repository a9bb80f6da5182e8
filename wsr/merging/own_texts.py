"""Members' own datasets and heads, as methods that draw on them need both. Imported by such methods when they run."""

import jax.numpy as jnp
import numpy as np

from wsr.data.dataset import AnySplit, Dataset
from wsr.data.packing import Batches, evaluation_batches, row_length_for
from wsr.engine.probe import fit_probe
from wsr.errors import WsrError
from wsr.merging.method import Given
from wsr.models.features import all_features
from wsr.models.model import Model
from wsr.region.region import Member, Region
from wsr.types import Head, Params


def own_dataset(member: Member, given: Given) -> Dataset:
    """Returns what the member was fine-tuned on.

    Raises:
      WsrError: where it was not given.
    """
    if member.dataset not in given.own:
        known = ", ".join(given.own) or "none"
        raise WsrError(f"merge: member {member.name} needs its own dataset, {member.dataset}; given: {known}")
    return given.own[member.dataset]


def own_head(region: Region, member: Member, params: Params, given: Given) -> Head:
    """Returns the member's head: its own, or where it has none a linear probe on its dataset's probe split.

    Raises:
      WsrError: where the head is not one of the dataset's.
    """
    dataset = own_dataset(member, given)
    head = given.heads.get(member.name)
    if not head:
        split = dataset.splits["probe"]
        features = all_features(region.model, params, split)
        fitted = fit_probe(features[None], split.labels, classes=dataset.classes)
        head = {name: leaf[0] for name, leaf in fitted.items()}
    expected = (region.model.hidden, dataset.classes)
    if set(head) != {"kernel", "bias"} or head["kernel"].shape != expected:
        raise WsrError(
            f"merge: the head of {member.name} is no linear head [hidden, classes] {expected} of {dataset.name}"
        )
    return {name: jnp.asarray(leaf, jnp.float32) for name, leaf in head.items()}


def first_texts(split: AnySplit, texts: int) -> AnySplit:
    """Returns so many texts, spread evenly over the split; 0: all."""
    if not texts or texts >= len(split):
        return split
    return split.take(np.linspace(0, len(split) - 1, texts).round().astype(int))


def batches_of(model: Model, split: AnySplit, *, rows: int = 16, row_length: int = 64, packed: bool = True) -> Batches:
    """Returns the texts in rows, as long as the longest needs."""
    length = row_length_for(row_length, split)
    return evaluation_batches(split, rows=rows, row_length=length, packed=packed and model.packed)
