"""Caches sketches of task vectors in the store's folder."""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from wsr.errors import WsrError
from wsr.runtime.atomic import write_atomically
from wsr.store.leaves import json_sha256

FORMAT = 1


class SketchFile:
    """Sketches by the content hashes of their members, in files that are never changed: a line of JSON, then the rows.

    Each ``add`` writes a new file, so writers need no lock. A damaged file, or one of another base, size or seed, is
    ignored, since all sketches can be computed again.

    Args:
      folder: the folder of all sketches of the store.
      base_sha256: hash of the base of the members.
      size: numbers per sketch.
      seed: seed of the sketches.
    """

    def __init__(self, folder: Path, base_sha256: str, size: int, seed: int = 0):
        self.folder = folder / f"{size}-{seed}"
        self.size, self.seed = size, seed
        self._about = {"format": FORMAT, "base_sha256": base_sha256, "size": size, "seed": seed}

    def read(self) -> dict[str, Float32[np.ndarray, " size"]]:
        """Returns all stored sketches, by the content hash of their member."""
        found: dict[str, np.ndarray] = {}
        for path in sorted(self.folder.glob("*.rows")):
            found |= self._content(path)
        return found

    def add(self, rows: Mapping[str, Float32[np.ndarray, " size"]]) -> None:
        """Stores sketches by the content hash of their member; does nothing if the folder is read-only."""
        if not rows:
            return
        values = np.stack(list(rows.values())).astype("<f4").tobytes()
        header = {**self._about, "members": list(rows), "rows_sha256": hashlib.sha256(values).hexdigest()}
        name = json_sha256(header)
        line = json.dumps({**header, "sha256": name}).encode() + b"\n"
        with contextlib.suppress(WsrError):
            write_atomically(self.folder / f"{name[:32]}.rows", line + values)

    def _content(self, path: Path) -> dict[str, np.ndarray]:
        try:
            line, _, values = path.read_bytes().partition(b"\n")
            header = json.loads(line)
            digest, members = header.pop("sha256"), header["members"]
            ours = all(header[name] == value for name, value in self._about.items())
            whole = digest == json_sha256(header) and hashlib.sha256(values).hexdigest() == header["rows_sha256"]
            if ours and whole:
                rows = np.frombuffer(values, "<f4").astype(np.float32).reshape(len(members), self.size)
                return dict(zip(members, rows, strict=True))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
        return {}
