"""Reads whole tensors into memory while others are worked on, past the page cache if it cannot hold the files."""

import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np

from wsr.runtime.cores import usable_cores
from wsr.runtime.past_cache import ALIGNED, aligned, read_past_cache
from wsr.runtime.tensor_files import HeldTensor, Tensor, numpy_type

HELD_BYTES = 2**30
"""Most bytes that all threads and processes together hold of tensors that were read ahead."""
_READERS = 4
"""Threads that read, for each core."""
_PART = 2**22
"""Bytes that a thread asks for at a time."""


class ReadAhead:
    """Brings tensors into memory before their turn; each thread or process has its own.

    Args:
      files_bytes: bytes of all files that will be read. If half the memory of this machine cannot hold them, they are
        read past the page cache.

    Example:
      >>> from wsr.runtime.read_ahead import ReadAhead
      >>> ahead = ReadAhead(files_bytes=0)
      >>> ahead.past_cache
      False
    """

    def __init__(self, files_bytes: int):
        self.past_cache = hasattr(os, "O_DIRECT") and files_bytes > _memory_bytes() // 2
        self._own = threading.local()

    def begin(self, tensors: Sequence[Tensor]) -> None:
        """Begins to read tensors that are worked on next, and forgets all but those that were begun last.

        Args:
          tensors: the tensors.
        """
        if not self.past_cache:
            for tensor in tensors:
                tensor.will_read(0, tensor.size)
            return
        if not hasattr(self._own, "reading"):
            self._own.reading = _Reading()
        self._own.reading.begin(tensors)

    def of(self, tensor: Tensor) -> Tensor:
        """Returns the tensor in memory, or itself if its reading was not begun or it is too large.

        Args:
          tensor: a tensor.

        Raises:
          WsrError: if the file became shorter.
        """
        reading: _Reading | None = getattr(self._own, "reading", None)
        return tensor if reading is None else reading.of(tensor)


@dataclass
class _Held:
    """A tensor that is being read into a buffer."""

    tensor: Tensor
    buffer: np.ndarray
    parts: list[Future[None]]

    def wait(self) -> HeldTensor:
        for part in self.parts:
            part.result()
        own, first = self.tensor, self.tensor.start % ALIGNED
        values = self.buffer[first : first + own.bytes].view(numpy_type(own.dtype)).reshape(own.shape)
        return HeldTensor(own.file, own.dtype, own.shape, own.start, values)

    def abandon(self) -> np.ndarray:
        for part in self.parts:
            part.cancel()
        wait(self.parts)
        return self.buffer


class _Reading:
    """The tensors of one thread: those that were begun last, and those before."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_READERS)
        self._before, self._last = list[_Held](), list[_Held]()

    def begin(self, tensors: Sequence[Tensor]) -> None:
        # New memory would have to be cleared by the system, so the next tensors take the place of finished ones.
        free = sorted((held.abandon() for held in self._before), key=len)
        self._before, self._last = self._last, []
        on_disk = [tensor for tensor in tensors if type(tensor) is Tensor]
        if sum(tensor.bytes for tensor in on_disk) > HELD_BYTES // (2 * usable_cores()):
            return
        for tensor in on_disk:
            origin, stop = tensor.start // ALIGNED * ALIGNED, tensor.start + tensor.bytes
            size = tensor.bytes + 2 * ALIGNED  # wherever it begins
            fits = next((place for place, buffer in enumerate(free) if len(buffer) >= size), None)
            buffer = aligned(size) if fits is None else free.pop(fits)
            parts = [
                self._threads.submit(
                    read_past_cache, tensor.file, start, min(start + _PART, stop), buffer[start - origin :]
                )
                for start in range(origin, stop, _PART)
            ]
            self._last.append(_Held(tensor, buffer, parts))

    def of(self, tensor: Tensor) -> Tensor:
        own = next((held for held in self._before + self._last if held.tensor == tensor), None)
        return tensor if own is None else own.wait()


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
