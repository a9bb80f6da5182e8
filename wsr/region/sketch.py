"""Sketches of task vectors: a few thousand numbers per model that give unbiased estimates of inner products.

Each entry is added with a random sign to one of ``size`` sums. This is a count-sketch (Charikar, Chen, Farach-Colton
2002), also known as signed hashing (Weinberger et al. 2009, arXiv 0902.2206) and as a sparse Johnson-Lindenstrauss
transform (Kane, Nelson 2014). For sketches of any vectors x and y, ``E <Sx, Sy> = <x, y>`` with a variance of at most
about ``(|x|^2 |y|^2 + <x, y>^2) / size``.

The sum and the sign depend only on the seed and on the entry's place in the flattened encoder (leaves sorted by path),
so models of one base can be sketched at different times and compared. Entries are read in blocks of 2^18. Each block
gets independent random signs and is rotated by a random number of places; one random permutation, the same for all
blocks, is applied; the block is then folded onto itself. Two entries of one block meet in a sum with a probability of
at most ``1 / size``; two entries of different blocks with exactly that, because each block has its own rotation.
Structure in the weights (columns of a matrix that move together) cannot line up with the sums.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64, UInt8

from wsr.errors import WsrError
from wsr.geometry.similarity import OpenLeaf, in_memory
from wsr.region.region import Member, Region
from wsr.runtime.cores import usable_cores
from wsr.runtime.progress import progress
from wsr.runtime.seeds import generator
from wsr.store.sketch_file import SketchFile
from wsr.types import Params

BLOCK = 2**18
"""Entries read and folded at a time; a block fits into a core's cache."""


def sketch(sizes: Mapping[str, int], member: OpenLeaf, size: int, *, seed: int = 0) -> Float32[np.ndarray, " size"]:
    """Returns the sketch of one task vector; memory holds one block of it at a time.

    Args:
      sizes: number of entries of each leaf, by path.
      member: opens the task vector; each leaf is read once, from start to end.
      size: length of the sketch, a power of two up to 2^18.
      seed: only sketches with the same seed and size are comparable.

    Raises:
      WsrError: if ``size`` is not a power of two up to 2^18.
    """
    _refuse_size(size)
    total = np.zeros(size, np.float64)
    order = _permutation(seed)
    turned, moved = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for number, block in enumerate(_blocks(sizes, member)):
        bits, turn = _signs_and_turn(seed, number)
        signs = np.unpackbits(bits)
        block.view(np.uint32)[:] ^= signs.astype(np.uint32) << np.uint32(31)
        turned[turn:], turned[:turn] = block[: BLOCK - turn], block[BLOCK - turn :]
        np.take(turned, order, out=moved, mode="clip")
        total += moved.reshape(-1, size).sum(axis=0)
    return total.astype(np.float32)


def sketches(region: Region, file: SketchFile) -> Float32[np.ndarray, "members size"]:
    """Returns one sketch per member of a region; computes those missing from ``file`` and adds them to it.

    Args:
      region: the population.
      file: holds known sketches by content hash, their size and their seed.

    Raises:
      WsrError: if the file's size is not a power of two up to 2^18.
    """
    _refuse_size(file.size)
    sizes = region.leaf_sizes
    known = file.read()
    new = [member for member in region.members if member.content_sha256 not in known]

    def row(member: Member) -> Float32[np.ndarray, " size"]:
        return sketch(sizes, opened_task_vector(member, region.base), file.size, seed=file.seed)

    with progress("sketches", len(new), "members") as counter, ThreadPoolExecutor(usable_cores()) as threads:
        # Saved in batches: an interrupted run loses at most one batch.
        for first in range(0, len(new), _TOGETHER):
            part = new[first : first + _TOGETHER]
            found = dict(zip([member.content_sha256 for member in part], threads.map(row, part), strict=True))
            file.add(found)
            known |= found
            counter.advance(len(part))
    rows = [known[member.content_sha256] for member in region.members]
    return np.stack(rows) if rows else np.zeros((0, file.size), np.float32)


def opened_task_vector(member: Member, base: Params) -> OpenLeaf:
    """Returns what opens the leaves of a member's task vector, on disk where the member lies there.

    Args:
      member: the member.
      base: the base of its region.
    """
    return member.open_task_vector() if member.open_task_vector else in_memory(member.load(), base)


def products(rows: Float32[np.ndarray, "members size"]) -> Float64[np.ndarray, "members members"]:
    """Returns the estimated Gram matrix of the task vectors."""
    return (rows @ rows.T).astype(np.float64)


def nearest(
    rows: Float32[np.ndarray, "members size"], row: Float32[np.ndarray, " size"], count: int
) -> tuple[Int64[np.ndarray, " count"], Float32[np.ndarray, " count"]]:
    """Returns the members most similar to a given sketch by cosine.

    Args:
      rows: sketches of the members.
      row: the given sketch.
      count: number of members to return.

    Returns:
      The members' indices, the most similar first, and their cosines.
    """
    # einsum: a norm along an axis would make a copy of all rows.
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows)) * np.linalg.norm(row)
    cosines = (rows @ row) / np.where(norms > 0, norms, 1.0)
    first = np.argpartition(-cosines, min(count, len(rows)) - 1)[:count]
    order = first[np.argsort(-cosines[first], kind="stable")]
    return order, cosines[order]


_TOGETHER = 64


def _blocks(sizes: Mapping[str, int], member: OpenLeaf) -> Iterator[Float32[np.ndarray, " block"]]:
    """Yields the task vector in writable blocks: leaf after leaf, the last block padded with zeros."""
    block, filled = np.empty(BLOCK, np.float32), 0
    for path in sorted(sizes):
        read, start = member(path), 0
        while start < sizes[path]:
            piece = min(sizes[path] - start, BLOCK - filled)
            read(start, block[filled : filled + piece])
            start, filled = start + piece, filled + piece
            if filled == BLOCK:
                yield block
                filled = 0
    if filled:
        block[filled:] = 0.0
        yield block


@lru_cache(maxsize=4)
def _permutation(seed: int) -> Int32[np.ndarray, " block"]:
    return generator(seed, "sketch", "permutation").permutation(BLOCK).astype(np.int32)


@lru_cache(maxsize=512)
def _signs_and_turn(seed: int, number: int) -> tuple[UInt8[np.ndarray, " bytes"], int]:
    """Returns the random bits of a block, one per entry, and the number of places it is rotated by."""
    random = generator(seed, "sketch", number)
    turn = int(random.integers(BLOCK))
    return np.frombuffer(random.bytes(BLOCK // 8), np.uint8), turn


def _refuse_size(size: int) -> None:
    if size < 1 or BLOCK % size:
        raise WsrError(f"sketch size {size}: expected a power of two from 1 to {BLOCK}, for example 4096")
