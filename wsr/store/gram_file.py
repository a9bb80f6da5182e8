"""Caches inner products of task vectors in the store's folder."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from wsr.errors import WsrError
from wsr.store import checkpoint
from wsr.store.seal import sealed, unsealed

FORMAT = 1


class GramFile:
    """Inner products of task vectors, by the content hashes of the members.

    Because hashes identify members, a changed or removed member never gets the products of another. A damaged file,
    or one of another base, is ignored, since all products can be computed again; ``check`` reports a damaged file.

    Args:
      path: the file.
      base_sha256: hash of the base of the members.
      staging: the folder of unfinished writes.
    """

    def __init__(self, path: Path, base_sha256: str, staging: Path):
        self.path, self.base_sha256, self._staging = path, base_sha256, staging

    def read(self, members: Sequence[str]) -> Float64[np.ndarray, "members members"]:
        """Returns the inner products of the members with these content hashes, NaN where unknown."""
        names, gram = self._content()
        found = np.full((len(members), len(members)), np.nan)
        place = {name: number for number, name in enumerate(names)}
        here = [number for number, name in enumerate(members) if name in place]
        there = [place[members[number]] for number in here]
        found[np.ix_(here, here)] = gram[np.ix_(there, there)]
        return found

    def add(self, members: Sequence[str], gram: Float64[np.ndarray, "members members"]) -> None:
        """Adds inner products to the file; does nothing if the folder is read-only."""
        names = list(dict.fromkeys([*self._content()[0], *members]))
        whole = self.read(names)
        places = [names.index(name) for name in members]
        whole[np.ix_(places, places)] = gram
        content = {"format": FORMAT, "base_sha256": self.base_sha256, "members": names, "gram": whole.tolist()}
        with contextlib.suppress(WsrError):
            checkpoint.write_json(self.path, sealed(content), self._staging)

    def check(self) -> None:
        """Raises WsrError if the file exists and is damaged."""
        if self.path.exists():
            self._sealed()

    def _content(self) -> tuple[list[str], np.ndarray]:
        try:
            content = self._sealed()
            if (content["format"], content["base_sha256"]) == (FORMAT, self.base_sha256):
                names = content["members"]
                return names, np.asarray(content["gram"], np.float64).reshape(len(names), len(names))
        except (WsrError, ValueError, KeyError, TypeError):
            pass
        return [], np.zeros((0, 0))

    def _sealed(self) -> dict[str, Any]:
        return unsealed(self.path, "it can be computed again")
