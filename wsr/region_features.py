"""Features of texts under points of a region, chunk of points by chunk."""

from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from wsr.data.dataset import Split
from wsr.data.packing import evaluation_batches, row_length_for
from wsr.features import chunk_for_device, point_features
from wsr.region import Region


def region_features(
    region: Region,
    coefficients: Float[np.ndarray, "points members"],
    splits: Mapping[str, Split],
    *,
    rows: int = 16,
    row_length: int = 64,
    chunk: int | None = None,
) -> Iterator[tuple[list[int], dict[str, Float[Array, "chunk texts hidden"]]]]:
    """Yields numbers of points and the features of every text of each split under them.

    Points come in an order of their own, each once. Features of the last chunk may go on with copies of its last point.

    Args:
      region: the population.
      coefficients: the points, over the region's members.
      splits: the texts, by name.
      rows: packed rows a forward pass reads.
      row_length: tokens in a row; longer texts make longer rows.
      chunk: points on the device at the same time; None: chosen for the device.
    """
    chunk = chunk or chunk_for_device(len(coefficients))
    packed = {
        name: evaluation_batches(
            split, rows=rows, row_length=row_length_for(row_length, split), packed=region.model.packed
        )
        for name, split in splits.items()
    }
    base = jax.device_put(region.base)
    for used, numbers in _by_members_used(coefficients, chunk):
        chosen = Region(region.model, region.base, [region.members[k] for k in used], base_sha256="")
        members = jax.device_put(chosen.stacked())
        for first in range(0, len(numbers), chunk):
            part = numbers[first : first + chunk]
            # The last chunk is filled up with its last point, so that one program serves all chunks.
            points = coefficients[part + [part[-1]] * (chunk - len(part))][:, used]
            features = {
                name: point_features(region.model, base, members, points, batches, len(splits[name]))
                for name, batches in packed.items()
            }
            yield part, {name: jnp.asarray(values) for name, values in features.items()}


def _by_members_used(
    coefficients: Float[np.ndarray, "points members"], chunk: int
) -> Iterator[tuple[list[int], list[int]]]:
    """Yields members and the points to be mixed from them.

    Points one at a time are mixed from just those members that they use, which is what has to be read; points side by
    side are mixed from all that any of them uses.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    together = tuple(np.flatnonzero(np.any(coefficients != 0, axis=0)).tolist())
    for point, row in enumerate(coefficients):
        own = tuple(np.flatnonzero(row).tolist())
        groups.setdefault(own if chunk == 1 else together, []).append(point)
    for used, numbers in groups.items():
        yield list(used), numbers
