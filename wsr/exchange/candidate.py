"""A model that may join a population: read, and held to the members without any of them whole in memory."""

from pathlib import Path

import numpy as np
from jaxtyping import Float64

from wsr.errors import WsrError
from wsr.exchange.member import Incoming, read_member, require_base
from wsr.geometry.similarity import gram_matrix, in_memory
from wsr.geometry.trees import flatten
from wsr.models import Checkpoint
from wsr.models.load import find_folder
from wsr.region.region import Region
from wsr.types import Params


def read_candidate(name_or_path: str, base: Checkpoint) -> Incoming:
    """Reads a Hugging Face folder, a LoRA adapter or a hub name as a model fine-tuned from ``base``.

    Raises:
      WsrError: it cannot be compared with the population: other form, other base, weights that are not finite.
    """
    folder = find_folder(name_or_path)
    incoming = read_member(Path(folder), base)
    broken = [path for path, leaf in flatten(incoming.params).items() if not np.isfinite(np.asarray(leaf)).all()]
    if broken:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        raise WsrError(
            f"{name_or_path}: a broken run: NaN or infinity in {', '.join(broken[:3])}{more} of its weights; it has no "
            "place in any region"
        )
    require_base(incoming)
    return incoming


def products_with(region: Region, candidate: Params) -> Float64[np.ndarray, " members_and_one"]:
    """Returns the inner products of a model's task vector with those of the members, and with itself, at the end."""
    count = len(region)
    known = np.full((count + 1, count + 1), np.nan)
    known[:count, :count] = region.gram
    members = [*region.open_task_vectors(), in_memory(candidate, region.base)]
    return gram_matrix(region.leaf_sizes, members, known)[count]
