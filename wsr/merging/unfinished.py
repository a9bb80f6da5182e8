"""The folder in which a merge of files is written, and the record by which a merge that was killed resumes."""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import IO

from wsr.errors import WsrError

SYNC_ENTRIES = 2**27
"""Entries that are written before they are recorded: about as many are written again after a kill."""
_RECORD = ".finished"


class Unfinished:
    """A hidden folder beside the one that is written; it becomes that folder when it is complete.

    A tensor is recorded as finished only after its bytes are on the disk.

    Args:
      folder: the folder that is written.
      identity: what is merged and how; a folder that was left by another merge is emptied.

    Raises:
      WsrError: if another process writes the same folder.
    """

    def __init__(self, folder: Path, identity: str):
        self.path, self._folder = folder.with_name(f".{folder.name}.merging"), folder
        self.path.mkdir(parents=True, exist_ok=True)
        self._record = open(self.path / _RECORD, "a+", encoding="utf-8")  # noqa: SIM115
        if not _locked(self._record):
            self._record.close()
            raise WsrError(f"{folder}: another process writes this folder; wait for it or choose another")
        self.done = self._read(identity)
        self._pending: list[str] = []
        self._entries, self._lock = 0, Lock()

    def finished(self, tensor: str, size: int) -> list[str]:
        """Takes note of a tensor that is written; called from any thread.

        Args:
          tensor: its name.
          size: number of its entries.

        Returns:
          Tensors to record when they are on the disk; empty until there are enough entries.
        """
        with self._lock:
            self._pending.append(tensor)
            self._entries += size
            if self._entries < SYNC_ENTRIES:
                return []
            due, self._pending, self._entries = self._pending, [], 0
            return due

    def record(self, tensors: Sequence[str]) -> None:
        """Records that tensors are on the disk.

        Args:
          tensors: their names.
        """
        self._record.write("".join(json.dumps(tensor) + "\n" for tensor in tensors))
        self._record.flush()
        os.fsync(self._record.fileno())

    def complete(self) -> None:
        """Gives the folder its name."""
        self._record.close()
        (self.path / _RECORD).unlink()
        os.rename(self.path, self._folder)

    def discard(self) -> None:
        """Removes the folder."""
        self._record.close()
        shutil.rmtree(self.path, ignore_errors=True)

    def close(self) -> None:
        """Leaves the folder as it is, for a merge that resumes it."""
        self._record.close()

    def _read(self, identity: str) -> frozenset[str]:
        """Returns the finished tensors of an interrupted merge with the same identity; else begins anew."""
        self._record.seek(0)
        lines = [json.loads(line) for line in self._record.read().splitlines(keepends=True) if line.endswith("\n")]
        if lines[:1] != [identity]:
            lines = [identity]
            for entry in self.path.iterdir():
                if entry.name != _RECORD:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        self._record.truncate(0)  # without a last line that was cut off
        self.record(lines)
        return frozenset(lines[1:])


def _locked(file: IO[str]) -> bool:
    """Locks a file for this process. Processes of a merge that was just killed may hold it for a moment."""
    for _ in range(20):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.05)
        except OSError:
            return True  # a file system without locks
    return False


@contextmanager
def unfinished(folder: Path, identity: str) -> Iterator[Unfinished]:
    """Gives the folder to write; an error removes it, an interrupt leaves it for a merge that resumes.

    Args:
      folder: the folder that is written.
      identity: what is merged and how.

    Raises:
      WsrError: if the folder cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Unfinished(folder, identity)
        try:
            yield scratch
        except KeyboardInterrupt:
            scratch.close()
            print(f"interrupted; {scratch.path} holds what is finished. Rerun to resume, or remove it.", flush=True)
            raise
        except BaseException:
            scratch.discard()
            raise
    except OSError as error:
        raise WsrError(f"{folder} could not be written: {error.strerror or error}") from error
