"""Reads and writes files past the page cache, where the file system can.

Pages of files that do not fit into memory are of no use a second time. To copy them and to find room for the next took
a third of the time of two cores (docs/performance.md).
"""

import errno
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from wsr.errors import WsrError

ALIGNED = 4096
"""What is read and written past the page cache begins and ends at multiples of this many bytes, in memory as well."""
_PART = 2**22
"""Bytes that are written at a time."""
_UNDER_WAY = 2
"""Parts that may be under way to the disk while the next is filled."""


def aligned(size: int) -> np.ndarray:
    """Returns an empty array of bytes at a place in memory to which the disk can write.

    Args:
      size: its number of bytes.
    """
    whole = np.empty(size + ALIGNED, np.uint8)
    return whole[-whole.ctypes.data % ALIGNED :][:size]


def read_past_cache(file: Path, start: int, stop: int, buffer: np.ndarray) -> None:
    """Reads the bytes ``[start, stop)`` of a file into a buffer, and up to the next multiple of ``ALIGNED``.

    Args:
      file: the file.
      start: a multiple of ``ALIGNED``.
      stop: end of the bytes.
      buffer: bytes at an aligned place, at least up to that multiple.

    Raises:
      WsrError: if the file is too short.
    """
    end, at = -(-stop // ALIGNED) * ALIGNED, start
    for past_cache in (os.O_DIRECT, 0):
        opened = None
        try:
            opened = os.open(file, os.O_RDONLY | past_cache)
            while at < stop and (count := os.preadv(opened, [buffer[at - start : end - start].data], at)):
                at += count
            break
        except OSError as error:
            if error.errno != errno.EINVAL or not past_cache:  # not every file system reads past the cache
                raise
        finally:
            if opened is not None:
                os.close(opened)
    if at < stop:
        raise WsrError(f"{file}: the file became shorter while it was read")


def write_all(opened: int, start: int, content: np.ndarray) -> None:
    """Writes bytes to their place in an open file, however many the system takes at a time.

    Args:
      opened: the descriptor of the file.
      start: the place.
      content: the bytes, as uint8.
    """
    rest, at = content.data, start
    while rest:
        count = os.pwrite(opened, rest, at)
        rest, at = rest[count:], at + count


class WriteBehind:
    """Writes bytes to their places in a file: past the page cache, by a thread, while the next ones are computed.

    Args:
      file: a file that exists.

    Example:
      >>> import tempfile
      >>> from pathlib import Path
      >>> import numpy as np
      >>> from wsr.runtime.past_cache import WriteBehind
      >>> file = Path(tempfile.mkstemp()[1])
      >>> with WriteBehind(file) as behind:
      ...     behind.put(0, np.frombuffer(b"first", np.uint8))
      >>> file.read_bytes()
      b'first'
    """

    def __init__(self, file: Path):
        self._file, self._thread = file, ThreadPoolExecutor(1)
        self._under_way = deque[tuple[Future[None], np.ndarray]]()
        self._first = self._at = 0
        """The bytes in the buffer are ``[first, at)`` of the file; the buffer begins where ``first``'s part does."""
        self._buffer = aligned(_PART)

    def put(self, start: int, content: np.ndarray) -> None:
        """Takes bytes, which need not stay in memory.

        Args:
          start: their place in the file.
          content: the bytes, as uint8; quickest where they follow those before.
        """
        if start != self._at:
            self._send()
            self._first = self._at = start
        while content.size:
            inside = self._at % _PART
            taken = content[: _PART - inside]
            self._buffer[inside : inside + taken.size] = taken
            self._at, content = self._at + taken.size, content[taken.size :]
            if self._at % _PART == 0:
                self._send()

    def __enter__(self) -> "WriteBehind":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self._send()
        while self._under_way:
            self._wait()
        self._thread.shutdown()

    def _send(self) -> None:
        if self._at == self._first:
            return
        own = self._buffer[self._first % _PART :][: self._at - self._first]
        self._under_way.append((self._thread.submit(_write, self._file, self._first, own), self._buffer))
        self._buffer = self._wait() if len(self._under_way) > _UNDER_WAY else aligned(_PART)
        self._first = self._at

    def _wait(self) -> np.ndarray:
        written, buffer = self._under_way.popleft()
        written.result()
        return buffer


def _write(file: Path, start: int, content: np.ndarray) -> None:
    """Writes whole blocks past the cache; what is left at both ends shares its blocks with others."""
    head = min(-start % ALIGNED, content.size)
    tail = head + (content.size - head) // ALIGNED * ALIGNED
    _pwrite(file, start, content[:head], 0)
    try:
        _pwrite(file, start + head, content[head:tail], os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:  # not every file system writes past the cache
            raise
        _pwrite(file, start + head, content[head:tail], 0)
    _pwrite(file, start + tail, content[tail:], 0)


def _pwrite(file: Path, start: int, content: np.ndarray, flags: int) -> None:
    if not content.size:
        return
    opened = os.open(file, os.O_WRONLY | flags)
    try:
        write_all(opened, start, content)
    finally:
        os.close(opened)
