"""Inner products of task vectors that were worked out before, kept in the store's folder."""

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
    """Products by the content hashes of the members: whatever happens to a member, its number is not another's.

    A file that is damaged, or of another base, counts as none: everything in it can be worked out again. ``check``
    tells the one from the other.
    """

    def __init__(self, path: Path, base_sha256: str, staging: Path):
        self.path, self.base_sha256, self._staging = path, base_sha256, staging

    def read(self, members: Sequence[str]) -> Float64[np.ndarray, "members members"]:
        """Returns the products of the members with these hashes, NaN where they are not known."""
        names, gram = self._content()
        found = np.full((len(members), len(members)), np.nan)
        place = {name: number for number, name in enumerate(names)}
        here = [number for number, name in enumerate(members) if name in place]
        there = [place[members[number]] for number in here]
        found[np.ix_(here, here)] = gram[np.ix_(there, there)]
        return found

    def add(self, members: Sequence[str], gram: Float64[np.ndarray, "members members"]) -> None:
        """Keeps the products beside those that are there; does nothing where the folder may only be read."""
        names = list(dict.fromkeys([*self._content()[0], *members]))
        whole = self.read(names)
        places = [names.index(name) for name in members]
        whole[np.ix_(places, places)] = gram
        content = {"format": FORMAT, "base_sha256": self.base_sha256, "members": names, "gram": whole.tolist()}
        with contextlib.suppress(WsrError):
            checkpoint.write_json(self.path, sealed(content), self._staging)

    def check(self) -> None:
        """Raises where the file is there and damaged."""
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
        return unsealed(self.path, "it can be worked out again")
