"""How much memory a file may take once it is read: a small file that would fill the machine is no data."""

from pathlib import Path

from wsr.errors import WsrError

ALWAYS_BYTES = 256 * 2**20
TIMES = 100
"""So many times its size a file may take: columns of text shrink to a tenth at best, repeated ones to a hundredth."""


class Allowance:
    """Counts what a file takes as it is read.

    Args:
        path: of the file, or of a folder of files.
    """

    def __init__(self, path: Path):
        self.path, self._taken = path, 0
        files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
        self._size = sum(file.stat().st_size for file in files)
        self.most = max(ALWAYS_BYTES, TIMES * self._size)

    def take(self, size: int) -> None:
        """Counts ``size`` bytes more; raises WsrError where that is more than any data of the file's size takes."""
        self._taken += size
        if self._taken > self.most:
            raise WsrError(
                f"{self.path}: refused, as a file that unpacks without end: from {self._size} bytes it "
                f"would take more than {self.most / 2**20:.0f} MiB; split it, or write it as CSV"
            )
