"""The members' own datasets and heads, for methods that use both; imported when such a method runs."""

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
    """Returns the dataset a member was fine-tuned on.

    Args:
      member: the member.
      given: the members' own datasets.

    Raises:
      WsrError: if the dataset was not given.
    """
    if member.dataset not in given.own:
        known = ", ".join(given.own) or "none"
        raise WsrError(f"merge: member {member.name} needs its own dataset, {member.dataset}; given: {known}")
    return given.own[member.dataset]


def own_head(region: Region, member: Member, params: Params, given: Given) -> Head:
    """Returns a member's head; for a member without one, a linear probe on its dataset's probe split.

    Args:
      region: the population.
      member: the member.
      params: the member's parameters.
      given: the members' own datasets and heads.

    Raises:
      WsrError: if the head does not have the shape of its dataset's classes.
    """
    dataset = own_dataset(member, given)
    head = given.heads.get(member.name)
    if not head:
        split = dataset.splits["probe"]
        features = all_features(region.model, params, split)
        fitted = fit_probe(features[None], split.labels, classes=dataset.classes).heads
        head = {name: leaf[0] for name, leaf in fitted.items()}
    expected = (region.model.hidden, dataset.classes)
    known = set(head) - {"dense_kernel", "dense_bias"} == {"kernel", "bias"}
    if not known or head["kernel"].shape != expected:
        raise WsrError(
            f"merge: the head of {member.name} is not a linear head [hidden, classes] {expected} of {dataset.name}"
        )
    return {name: jnp.asarray(leaf, jnp.float32) for name, leaf in head.items()}


def first_texts(split: AnySplit, texts: int) -> AnySplit:
    """Returns a number of texts spread evenly over a split.

    Args:
      split: the texts.
      texts: number of texts to take; 0: all.
    """
    if not texts or texts >= len(split):
        return split
    return split.take(np.linspace(0, len(split) - 1, texts).round().astype(int))


def batches_of(model: Model, split: AnySplit, *, rows: int = 16, row_length: int = 64, packed: bool = True) -> Batches:
    """Returns texts in packed rows; rows are lengthened if a text is longer than ``row_length``.

    Args:
      model: the architecture.
      split: the texts.
      rows: rows per batch.
      row_length: tokens per row.
      packed: whether a row may hold several texts.
    """
    length = row_length_for(row_length, split)
    return evaluation_batches(split, rows=rows, row_length=length, packed=packed and model.packed)
