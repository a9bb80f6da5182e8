"""Comparison of a model with the members of a population without importing it; no member is whole in memory."""

from pathlib import Path

import numpy as np
from jaxtyping import Float64

from wsr.errors import WsrError
from wsr.exchange.member import Incoming, read_member, require_base
from wsr.geometry.similarity import gram_matrix, in_memory
from wsr.geometry.trees import flatten
from wsr.models import Checkpoint
from wsr.models.load import find_folder
from wsr.region.check import Checked, check_candidate
from wsr.region.region import Region
from wsr.region.standing import Population
from wsr.types import Params


def check(region: Region, candidate: str, *, base: Checkpoint | None = None) -> Checked:
    """Checks whether a model belongs to a population.

    Args:
      region: the population; pass all members that count, see ``Region.from_store``.
      candidate: name of a member, a Hugging Face folder, a LoRA adapter or a hub name.
      base: the base of the region; None: the base of its store.

    Returns:
      The model's flags, the regions it lies in, and its nearest members.

    Raises:
      WsrError: if the candidate cannot be compared with the population.

    Example:
      >>> import wsr
      >>> result = wsr.check(wsr.made_up_region(3), "m0")
      >>> result.name, sorted(result.nearest)
      ('m0', ['m1', 'm2'])
    """
    population, at, _ = place(region, candidate, base=base)
    return check_candidate(population, at)


def place(region: Region, candidate: str, *, base: Checkpoint | None = None) -> tuple[Population, int, tuple[str, ...]]:
    """Returns the population with the candidate in it.

    Args:
      region: the population.
      candidate: name of a member, a Hugging Face folder, a LoRA adapter or a hub name.
      base: the base of the region; None: the base of its store.

    Returns:
      The population, the candidate's index in it, and notes on how the candidate was read.

    Raises:
      WsrError: if the candidate cannot be compared with the population.
    """
    if candidate in region.names:
        return Population.of(region), region.names.index(candidate), ()
    if base is None:
        if region.store is None:
            raise WsrError(f"check: {candidate!r} is not a member of the region; to check a folder, pass the base")
        base = region.store.checkpoint()
    incoming = read_candidate(candidate, base)
    notes = (
        f"It shares the base: {incoming.kinship}.",
        *(f"{note[0].upper()}{note[1:]}." for note in incoming.notes),
    )
    # The candidate is named after its folder, unless a member has that name.
    name = candidate if Path(candidate).name in region.names else Path(candidate).name or candidate
    return Population.of(region).joined(name, products_with(region, incoming.params)), len(region), notes


def read_candidate(name_or_path: str, base: Checkpoint) -> Incoming:
    """Reads a model as one that was fine-tuned from ``base``.

    Args:
      name_or_path: a Hugging Face folder, a LoRA adapter or a hub name.
      base: the base.

    Raises:
      WsrError: if the model has another architecture or another base, or its weights are not finite.
    """
    folder = find_folder(name_or_path)
    incoming = read_member(Path(folder), base)
    broken = [path for path, leaf in flatten(incoming.params).items() if not np.isfinite(np.asarray(leaf)).all()]
    if broken:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        raise WsrError(
            f"{name_or_path}: a broken run: NaN or infinity in {', '.join(broken[:3])}{more} of its weights; it "
            "belongs to no region"
        )
    require_base(incoming)
    return incoming


def products_with(region: Region, candidate: Params) -> Float64[np.ndarray, " members_and_one"]:
    """Returns the inner products of a model's task vector with those of the members and, last, with itself.

    Args:
      region: the members.
      candidate: the model's parameters.
    """
    count = len(region)
    known = np.full((count + 1, count + 1), np.nan)
    known[:count, :count] = region.gram
    members = [*region.open_task_vectors(), in_memory(candidate, region.base)]
    return gram_matrix(region.leaf_sizes, members, known)[count]
