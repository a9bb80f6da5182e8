"""Features of texts under points of a region, one chunk of points at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from wsr.data.dataset import AnySplit, joined
from wsr.data.packing import Batches, evaluation_batches, row_length_for, rows_a_step
from wsr.engine.settings import Settings
from wsr.geometry.points import add_low_rank, combine_in_blocks
from wsr.geometry.trees import flatten
from wsr.models import cuts
from wsr.models.features import encoding_bytes, point_features, refuse_unfit
from wsr.models.precision import rounded
from wsr.region.region import Member, Region
from wsr.runtime.devices import (
    DeviceLayout,
    chunk_for_device,
    lay_out,
    mesh_for,
    overlaps,
    own_devices,
    rows_for_device,
    with_smallest_model,
)
from wsr.runtime.one_behind import one_behind
from wsr.runtime.placement import gathered, placed
from wsr.types import Params

Passes = list[list[int]]
"""Indices of the points that are mixed together, one list per pass."""


def region_features(
    region: Region,
    coefficients: Float[np.ndarray, "points members"],
    splits: Mapping[str, AnySplit],
    *,
    settings: Settings = Settings(),
) -> Iterator[tuple[list[int], dict[str, Float[Array, "chunk texts hidden"]]]]:
    """Yields the features of every text under points of a region, one chunk of points at a time.

    Each point comes once. The features of the last chunk may end with copies of its last point. Points are mixed and
    features are pooled in float32, whatever the precision of the encoder.

    On an accelerator the features may still be being computed when they are yielded. Asking for the next ones first
    waits until this chunk is mixed, or encoded if memory is tight, so at most two chunks of points are in memory.

    Args:
      region: the population.
      coefficients: one row per point, one column per member.
      splits: the texts, by name.
      settings: chunk size, memory, devices and precision.

    Yields:
      The indices of the chunk's points, and the features of each split under them.

    Raises:
      WsrError: if even one point exceeds the memory budget.
    """
    if not len(coefficients):
        return
    layout, packed = _planned(region, coefficients, splits, settings)
    # Texts of all splits share rows and batches.
    ends = np.cumsum([len(split) for split in splits.values()])
    passes = _passes(len(coefficients), layout.together * layout.rounds)
    base = gathered(region.base, cuts.shardings(region.base, layout.mesh))
    load = _loader(region, coefficients, passes, layout)
    platform = layout.mesh.local_devices[0].platform
    for number, part in enumerate(passes):
        # The last pass is padded with its last point, so that one compiled program serves all passes.
        filled = part + [part[-1]] * (layout.together * layout.rounds - len(part))
        rows = coefficients[filled]
        if layout.rounds > 1:
            rows = rows.reshape(layout.rounds, layout.together, -1)
        sharding = layout.sharding(*([None] if layout.rounds > 1 else []), "points")
        used = _used(coefficients, part)
        factored = [member for member in used if region.members[member].load_factors()]
        whole = sorted(set(used) - set(factored))
        weights = (load(number, member) for member in whole)
        mixed = combine_in_blocks(
            base, weights, rows[..., whole], block=layout.block, ahead=layout.ahead, sharding=sharding
        )
        factors = (load(number, member) for member in factored)
        mixed = add_low_rank(mixed, factors, rows[..., factored], ahead=layout.ahead, sharding=sharding)
        for first in range(0, len(part), layout.together):
            points = _round(mixed, first // layout.together) if layout.rounds > 1 else mixed
            points = points if settings.precision == "float32" else _rounded(points, settings.precision, platform)
            features = point_features(region.model, points, packed, int(ends[-1]), layout.mesh)
            yield (
                part[first : first + layout.together],
                {
                    name: features[:, end - len(split) : end]
                    for (name, split), end in zip(splits.items(), ends.tolist(), strict=True)
                },
            )
            jax.block_until_ready(points if layout.ahead else features)
            del features  # the caller has them
        del mixed, points  # frees their memory before the next ones are mixed


def for_each_chunk(
    region: Region,
    coefficients: Float[np.ndarray, "points members"],
    splits: Mapping[str, AnySplit],
    job: Callable[[list[int], dict[str, Float[Array, "chunk texts hidden"]]], None],
    *,
    settings: Settings = Settings(),
) -> None:
    """Calls ``job`` with the points and features of each chunk, in the order of ``region_features``.

    An accelerator mixes and encodes the next chunk while a thread runs the job of this one.

    Args:
      region: the population.
      coefficients: one row per point, one column per member.
      splits: the texts, by name.
      job: what is done with the indices of a chunk's points and their features.
      settings: chunk size, memory, devices and precision.

    Raises:
      WsrError: if even one point exceeds the memory budget.
    """
    devices = settings.mesh.local_devices if settings.mesh else own_devices()
    with one_behind(threaded=overlaps(devices[0])) as later:
        for numbers, features in region_features(region, coefficients, splits, settings=settings):
            later(partial(job, numbers, features))


def plan_features(
    region: Region,
    coefficients: Float[np.ndarray, "points members"],
    splits: Mapping[str, AnySplit],
    *,
    settings: Settings = Settings(),
) -> DeviceLayout:
    """Returns the layout that ``region_features`` would use for some points, and compiles its program.

    Args:
      region: the population.
      coefficients: one row per point, one column per member.
      splits: the texts, by name.
      settings: chunk size, memory, devices and precision.

    Raises:
      WsrError: if even one point exceeds the memory budget.
    """
    return _planned(region, coefficients, splits, settings)[0]


class MemberBytes(NamedTuple):
    """Memory of a member on a device."""

    held: int
    added: int
    """While it is added to a point: its parts before they are gathered, or the product of its largest leaf and room for
    the sum."""


def whole_member_bytes(base: Params, mesh: Mesh) -> MemberBytes:
    """Returns the memory of a member that is stored whole, not as factors.

    Args:
      base: parameters of the same shapes.
      mesh: the devices.
    """
    parts = mesh.shape["model"]
    held = cuts.bytes_on_each(base, parts)
    return MemberBytes(held, held * parts // mesh.size if mesh.size > parts else 0)


_rounded = jax.jit(rounded, static_argnames=("precision", "platform"))


def _planned(
    region: Region,
    coefficients: Float[np.ndarray, "points members"],
    splits: Mapping[str, AnySplit],
    settings: Settings,
) -> tuple[DeviceLayout, Batches]:
    refuse_unfit(region.model, *splits.values())
    mesh = settings.mesh or mesh_for(len(coefficients))
    on = partial(_planned_on, region=region, coefficients=coefficients, splits=splits, settings=settings)
    return with_smallest_model(len(coefficients), mesh, on)


def _planned_on(
    mesh: Mesh,
    *,
    region: Region,
    coefficients: Float[np.ndarray, "points members"],
    splits: Mapping[str, AnySplit],
    settings: Settings,
) -> tuple[DeviceLayout, Batches]:
    device, axis, parts = mesh.local_devices[0], mesh.shape["points"], mesh.shape["model"]
    texts: AnySplit = joined(list(splits.values()))
    length = row_length_for(settings.row_length, texts)
    tokens = settings.rows * settings.row_length
    most = settings.chunk or chunk_for_device(-(-len(coefficients) // axis), tokens=tokens, device=device)
    fitting = rows_for_device(settings.rows, most, length, device=device)
    together = rows_a_step(texts, fitting, row_length=length, packed=region.model.packed)
    packed = evaluation_batches(texts, rows=together, row_length=length, packed=region.model.packed)
    used = _used(coefficients, range(len(coefficients)))
    sizes = {member: _bytes_of(region, member, mesh) for member in used}
    layout = lay_out(
        len(coefficients),
        params_bytes=cuts.bytes_on_each(region.base, parts),
        member_bytes=partial(_member_bytes, coefficients, sizes),
        point_bytes=_point_bytes(region.model.hidden, splits, ahead=overlaps(device)),
        encoding_bytes=partial(encoding_bytes, region.model, region.base, packed, mesh, precision=settings.precision),
        mesh=mesh,
        tokens=tokens,
        chunk=settings.chunk,
        memory_budget_gib=settings.memory_budget_gib,
    )
    return layout, packed


def _loader(
    region: Region, coefficients: Float[np.ndarray, "points members"], passes: Passes, layout: DeviceLayout
) -> Callable[[int, int], Any]:
    """Returns ``load(pass, member)``, which gives the member's factors or, if it has none, its parameters; it stays on
    the device until its last pass if the layout says so, else it is not kept."""
    last = {member: number for number, part in enumerate(passes) for member in _used(coefficients, part)}
    kept: dict[int, Any] = {}

    def load(number: int, member: int) -> Any:
        loaded = kept.pop(member, None) or _placed_member(region.members[member], layout)
        if layout.resident and last[member] > number:
            kept[member] = loaded
        return loaded

    return load


def _placed_member(member: Member, layout: DeviceLayout) -> Any:
    """Returns a member's factors, which are small, whole on each device, or its parameters cut as those of points."""
    if factors := member.load_factors():
        return placed(factors, layout.sharding())
    params = member.load()
    return gathered(params, cuts.shardings(params, layout.mesh))


def _member_bytes(
    coefficients: Float[np.ndarray, "points members"],
    sizes: Mapping[int, "MemberBytes"],
    together: int,
    resident: bool,
    loose: int,
) -> int:
    """Returns the most memory that members take at once: each stays from its first pass to its last, or they are loaded
    one after another, at most ``loose`` at a time."""
    uses: dict[int, list[int]] = {}
    parts = [_used(coefficients, part) for part in _passes(len(coefficients), together)]
    for number, part in enumerate(parts):
        for member in part:
            uses.setdefault(member, []).append(number)
    staying, others = [0], [1]  # room for one more is kept
    for number, part in enumerate(parts):
        stay = {member for member, own in uses.items() if resident and own[0] <= number <= own[-1] > own[0]}
        staying.append(sum(sizes[member].held for member in stay))
        others.append(len(set(part) - stay))
    passing = min(loose, max(others))
    return max(staying) + max((passing * own.held + loose * own.added for own in sizes.values()), default=0)


def _bytes_of(region: Region, member: int, mesh: Mesh) -> "MemberBytes":
    factors = region.members[member].load_factors()
    if not factors:
        return whole_member_bytes(region.base, mesh)
    leaves = flatten(region.base)
    products = (cuts.bytes_on_each({path: leaves[path]}, mesh.shape["model"]) for path in factors)
    return MemberBytes(sum(4 * (own.a.size + own.b.size) for own in factors.values()), 2 * max(products))


def _passes(points: int, together: int) -> Passes:
    return [list(range(first, min(first + together, points))) for first in range(0, points, together)]


def _used(coefficients: Float[np.ndarray, "points members"], points: Sequence[int]) -> list[int]:
    """Returns the members with a nonzero coefficient in any of the points."""
    return np.flatnonzero(np.any(coefficients[list(points)] != 0, axis=0)).tolist()


def _point_bytes(hidden: int, splits: Mapping[str, AnySplit], *, ahead: bool) -> int:
    """Bytes per point: its features in batch order and in text order, those of the previous point, and the probe on
    them. If features are queued while others are scored, theirs by split exist too."""
    sizes = [len(split) for split in splits.values()]
    probe = 3 * max(sizes) * hidden + 4 * hidden**2
    return 4 * ((3 + ahead) * sum(sizes) * hidden + probe)


@jax.jit
def _round(mixed: Params, number: int | Int[Array, ""]) -> Params:
    return jax.tree.map(lambda leaf: leaf[number], mixed)
