"""Sketches of task vectors: a few thousand numbers a model in place of millions, whose inner products are unbiased.

An entry goes to one of ``size`` sums with a random sign, a count-sketch (Charikar, Chen, Farach-Colton 2002) or signed
hashing (Weinberger et al. 2009, arXiv 0902.2206; as a sparse Johnson-Lindenstrauss transform: Kane, Nelson 2014). For
sketches of x and y ``E <Sx, Sy> = <x, y>``, with a variance of at most about ``(|x|^2 |y|^2 + <x, y>^2) / size``,
whatever x and y are.

Which sum and which sign depend on the entry's place in the flattened encoder (leaves sorted by path) and on the seed:
all models of a base are sketched alike, each when it comes. A block of 2^18 entries is read, its signs are independent
random bits, it is turned round by a random number of places, permuted, and folded onto itself. The permutation is
random and the same for all blocks, so two entries of a block meet in a sum no more often than one time in ``size``; of
two blocks exactly as often, for each is turned by its own number. No structure of the weights (columns of a matrix that
move together) can line up with the sums.
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

BLOCK = 2**18
"""Entries that are read and folded at a time: they stay in the core's cache."""


def sketch(sizes: Mapping[str, int], member: OpenLeaf, size: int, *, seed: int = 0) -> Float32[np.ndarray, " size"]:
    """Returns the sketch of one task vector, read in blocks: memory is that of a block.

    Args:
      sizes: how many entries each leaf has, by path.
      member: the task vector; each leaf is read once, in order.
      size: numbers of the sketch, a power of two of at most 2^18.
      seed: sketches of one seed and size go together.

    Raises:
      WsrError: for another size.
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
    """Returns a row for each member of a region; those that ``file`` does not know yet are made and added to it.

    Raises:
      WsrError: for a size that is no power of two.
    """
    _refuse_size(file.size)
    sizes = region.leaf_sizes
    known = file.read()
    new = [member for member in region.members if member.content_sha256 not in known]

    def row(member: Member) -> Float32[np.ndarray, " size"]:
        opened = member.open_task_vector() if member.open_task_vector else in_memory(member.load(), region.base)
        return sketch(sizes, opened, file.size, seed=file.seed)

    with progress("sketches", len(new), "members") as counter, ThreadPoolExecutor(usable_cores()) as threads:
        # Kept as they come, some together: a run that is stopped loses no more than those.
        for first in range(0, len(new), _TOGETHER):
            part = new[first : first + _TOGETHER]
            found = dict(zip([member.content_sha256 for member in part], threads.map(row, part), strict=True))
            file.add(found)
            known |= found
            counter.advance(len(part))
    rows = [known[member.content_sha256] for member in region.members]
    return np.stack(rows) if rows else np.zeros((0, file.size), np.float32)


def products(rows: Float32[np.ndarray, "members size"]) -> Float64[np.ndarray, "members members"]:
    """Returns the estimated Gram matrix: one matrix product."""
    return (rows @ rows.T).astype(np.float64)


def nearest(
    rows: Float32[np.ndarray, "members size"], row: Float32[np.ndarray, " size"], count: int
) -> tuple[Int64[np.ndarray, " count"], Float32[np.ndarray, " count"]]:
    """Returns the numbers of the ``count`` members whose sketches lie nearest by cosine, and the cosines."""
    # einsum: a norm along an axis would make a copy of all rows.
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows)) * np.linalg.norm(row)
    cosines = (rows @ row) / np.where(norms > 0, norms, 1.0)
    first = np.argpartition(-cosines, min(count, len(rows)) - 1)[:count]
    order = first[np.argsort(-cosines[first], kind="stable")]
    return order, cosines[order]


_TOGETHER = 64


def _blocks(sizes: Mapping[str, int], member: OpenLeaf) -> Iterator[Float32[np.ndarray, " block"]]:
    """The task vector in blocks that may be written to; leaves follow one another, the last block ends with zeros."""
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
    """Random bits, one an entry of this block, and by how many places it is turned."""
    random = generator(seed, "sketch", number)
    turn = int(random.integers(BLOCK))
    return np.frombuffer(random.bytes(BLOCK // 8), np.uint8), turn


def _refuse_size(size: int) -> None:
    if size < 1 or BLOCK % size:
        raise WsrError(f"a sketch of {size} numbers: expected a power of two from 1 to {BLOCK}, say 4096")
