"""Bounds the memory that a file may take once it is read: a small file can unpack to fill the machine."""

from pathlib import Path

from wsr.errors import WsrError

ALWAYS_BYTES = 256 * 2**20
TIMES = 100
"""Limit of memory over file size: text columns compress to a tenth at best, repeated ones to a hundredth."""


class Allowance:
    """Counts the memory that a file takes while it is read.

    Args:
      path: a file, or a folder of files.
    """

    def __init__(self, path: Path):
        self.path, self._taken = path, 0
        files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
        self._size = sum(file.stat().st_size for file in files)
        self.most = max(ALWAYS_BYTES, TIMES * self._size)

    def take(self, size: int) -> None:
        """Counts ``size`` more bytes.

        Raises:
          WsrError: if the total exceeds both ``ALWAYS_BYTES`` and ``TIMES`` the size of the file.
        """
        self._taken += size
        if self._taken > self.most:
            raise WsrError(
                f"{self.path}: refused: its {self._size} bytes would unpack to more than "
                f"{self.most / 2**20:.0f} MiB; split the file, or write it as CSV"
            )
