"""The Gram matrix of task vectors on disk: each byte is read once, and no model is ever whole in memory.

A few threads fill and multiply blocks of one leaf, with one row per member. While one thread multiplies a block, the
others read, hash and subtract the next two, so no thread waits for the end of a block. Members on disk ask the system
for their next piece ahead, so that the disk works while the threads do.

Two low-rank task vectors are multiplied from their factors. Products of a low-rank task vector with a dense one use
blocks of dense entries.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
from jaxtyping import Bool, Float32, Float64

from wsr.geometry.low_rank import OpenLowRank, inner_products
from wsr.geometry.trees import flatten
from wsr.runtime.cores import usable_cores
from wsr.runtime.progress import Counter, progress
from wsr.types import Params

LONGEST_PIECE = 2**18
"""Entries of the longest piece. It stays in the core's cache while it is read, hashed and subtracted."""

Gram = Float64[np.ndarray, "members members"]

ReadPiece = Callable[[int, np.ndarray], None]
"""``read(start, out)`` fills the flat array ``out`` with the entries of one leaf of a task vector from ``start`` on.

The calls for one leaf are made in order, without gaps.
"""

OpenLeaf = Callable[[str], ReadPiece]
"""A member's task vector: a function from the path of a leaf to its ``ReadPiece``."""


def gram_matrix(
    sizes: Mapping[str, int],
    members: Sequence[OpenLeaf],
    known: Gram | None = None,
    *,
    memory_bytes: int = 256 * 2**20,
    counter: Counter | None = None,
) -> Gram:
    """Returns the inner products of the task vectors over the flattened encoder, ``G[i, j] = <t_i, t_j>``.

    Products that are already known are not computed again. Products are float32 within a block and summed in float64,
    always in the same order.

    Args:
      sizes: number of entries of each leaf, by path.
      members: the task vectors. Every leaf of every member is read exactly once, unless all products are known;
        low-rank factors are read twice if some members are dense.
      known: products computed earlier, NaN where unknown.
      memory_bytes: memory of all blocks together; there is one block more than there are threads.
      counter: counts the megabytes read, if this is a part of longer work; None shows its own progress.

    Example:
      >>> import numpy as np
      >>> from wsr.geometry import similarity
      >>> base = {"bias": np.zeros(2, np.float32)}
      >>> members = [{"bias": np.array(bias, np.float32)} for bias in ([2.0, 0.0], [1.0, 1.0])]
      >>> vectors = [similarity.in_memory(member, base) for member in members]
      >>> similarity.gram_matrix({"bias": 2}, vectors).tolist()
      [[4.0, 2.0], [2.0, 2.0]]
    """
    found = np.full((len(members), len(members)), np.nan) if known is None else known.copy()
    old = _known_to_one_another(~np.isnan(found))
    new = [member for member in range(len(members)) if member not in set(old)]
    if not new:
        return found
    order = [*new, *old]
    factored = {number: member for number, member in enumerate(members) if isinstance(member, OpenLowRank)}
    if len(factored) < len(members):
        rows = _rows(sizes, [members[member] for member in order], len(new), memory_bytes, counter)
        found[np.ix_(new, order)] = rows
        found[np.ix_(order, new)] = rows.T
    new, order = ([member for member in those if member in factored] for those in (new, order))
    if new:
        rows = _rows_of_factors(sizes, [factored[member] for member in order], len(new))
        found[np.ix_(new, order)] = rows
        found[np.ix_(order, new)] = rows.T
    return found


def in_memory(params: Params, base: Params) -> OpenLeaf:
    """Returns the task vector of a model in memory, for ``gram_matrix``.

    Args:
      params: parameters of the model.
      base: parameters of its base.
    """
    leaves, origin = flatten(params), flatten(base)

    def open_leaf(path: str) -> ReadPiece:
        own, start_of = np.asarray(leaves[path]).reshape(-1), np.asarray(origin[path]).reshape(-1)

        def read(start: int, out: np.ndarray) -> None:
            piece = slice(start, start + out.size)
            np.subtract(own[piece], start_of[piece], out=out)

        return read

    return open_leaf


def megabytes(entries: int, members: Sequence[OpenLeaf]) -> int:
    """Returns the megabytes to read for ``entries`` float32 entries of each member."""
    return int(4e-6 * entries * len(members))


def _known_to_one_another(known: Bool[np.ndarray, "members members"]) -> list[int]:
    chosen: list[int] = []
    for member in range(len(known)):
        if known[member, [*chosen, member]].all():
            chosen.append(member)
    return chosen


def _rows(
    sizes: Mapping[str, int], members: Sequence[OpenLeaf], new: int, memory_bytes: int, outer: Counter | None
) -> Float64[np.ndarray, "new members"]:
    """Inner products of the first ``new`` members with all."""
    from threadpoolctl import threadpool_limits

    workers = usable_cores()
    width = memory_bytes // (4 * len(members) * (workers + 1))
    width = max(1, min(width, LONGEST_PIECE, max(sizes.values(), default=1)))
    parts = min(4 * workers, len(members))
    total = np.zeros((new, len(members)))
    free = [np.empty(len(members) * width, np.float32) for _ in range(workers + 1)]
    pending: deque[tuple[Future[np.ndarray], np.ndarray, int]] = deque()
    entries = 0

    def multiply(filled: Sequence[Future[None]], block: np.ndarray, buffer: np.ndarray) -> None:
        pending.append((threads.submit(_products_once_filled, filled, block, new), buffer, block.shape[1]))

    def collect() -> None:
        nonlocal entries
        products, buffer, columns = pending.popleft()
        np.add(total, products.result(), out=total)
        free.append(buffer)
        entries += columns
        counter.advance(before + megabytes(entries, members) - counter.done)

    with (
        nullcontext(outer)
        if outer
        else progress("similarity", megabytes(sum(sizes.values()), members), "MB") as counter,
        # One thread per product: more would compete with the threads that read.
        threadpool_limits(1, user_api="blas"),
        ThreadPoolExecutor(workers) as threads,
    ):
        before = counter.done
        last: tuple[Sequence[Future[None]], np.ndarray, np.ndarray] | None = None
        for path, size in sizes.items():
            leaves = [open_leaf(path) for open_leaf in members]
            filled: Sequence[Future[None] | None] = [None] * parts
            for start in range(0, size, width):
                if not free:
                    collect()
                buffer = free.pop()
                shape = (len(members), min(width, size - start))
                block = buffer[: shape[0] * shape[1]].reshape(shape)
                filling = [
                    threads.submit(_fill, filled[part], block[part::parts], leaves[part::parts], start)
                    for part in range(parts)
                ]
                # Threads take tasks in the order given. The products of a block come after the next block is filled,
                # so they do not wait for the last parts of their own.
                if last:
                    multiply(*last)
                filled, last = filling, (filling, block, buffer)
        if last:
            multiply(*last)
        while pending:
            collect()
    return total


def _rows_of_factors(
    paths: Iterable[str], members: Sequence[OpenLowRank], new: int
) -> Float64[np.ndarray, "new members"]:
    """Inner products of the first ``new`` members with all, from the factors of one leaf at a time."""
    total = np.zeros((new, len(members)))
    for path in paths:
        found = ((number, member.factors(path)) for number, member in enumerate(members))
        factors = {number: own for number, own in found if own is not None}
        fresh = [number for number in factors if number < new]
        if fresh:
            products = inner_products([factors[number] for number in fresh], [*factors.values()])
            total[np.ix_(fresh, [*factors])] += products
    # Without this the last bit would depend on the order of the members.
    total[:, :new] = (total[:, :new] + total[:, :new].T) / 2
    return total


def _fill(before: Future[None] | None, rows: np.ndarray, leaves: Sequence[ReadPiece], start: int) -> None:
    if before:
        before.result()  # the pieces of a leaf are read in order
    for row, read in zip(rows, leaves, strict=True):
        read(start, row)


def _products_once_filled(filled: Sequence[Future[None]], block: np.ndarray, new: int) -> np.ndarray:
    for part in filled:
        part.result()
    return _products(block, new)


def _products(block: Float32[np.ndarray, "members width"], new: int) -> Float32[np.ndarray, "new members"]:
    fresh = block[:new]
    # NumPy multiplies a matrix with its own transpose at half the cost.
    among = fresh @ fresh.T
    return among if new == len(block) else np.concatenate([among, fresh @ block[new:].T], axis=1)
