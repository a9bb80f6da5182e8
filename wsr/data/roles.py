"""Which split of a source is for training, validation and testing, by the names that people give them."""

import re
from collections.abc import Iterable, Sequence

from wsr.data.records import ROLES
from wsr.errors import WsrError

NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "development", "validation_matched", "dev_matched"),
    "test": ("test", "testing"),
}
"""Names of each role, the usual one first; capitals do not count."""
_SHARD = re.compile(r"(.+?)[-_.]\d+(?:-of-\d+)?")


def roles_of(
    names: Iterable[str], where: str, *, of_files: bool = False
) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """Returns the names of each role, and the names that have none.

    A role has one name, or several shards of one name (``train-00000-of-00002``, ``train-00001-of-00002``).

    Args:
      names: names of splits, of folders, or of files without their ending.
      where: what they are in, for error messages.
      of_files: whether a name may hold the role as one of several words, as ``reviews_train`` does.

    Raises:
      WsrError: if a role has several names.

    Example:
      >>> from wsr.data.roles import roles_of
      >>> roles_of(["Train", "dev", "notes"], "folder")
      ({'train': ('Train',), 'validation': ('dev',)}, ('notes',))
    """
    left, found = list(names), {}
    for role in ROLES:
        chosen = _chosen(role, left, of_files)
        if len(chosen) > 1 and not all(_SHARD.fullmatch(name) for name in chosen):
            raise WsrError(f"{where}: found several for {role}: {', '.join(chosen)}; keep one, or name it {role}")
        if chosen:
            found[role] = tuple(chosen)
            left = [name for name in left if name not in chosen]
    return found, tuple(left)


def _chosen(role: str, names: Sequence[str], of_files: bool) -> list[str]:
    stems = {name: shard[1] if (shard := _SHARD.fullmatch(name)) else name for name in names}
    for wanted in ({role}, set(NAMES[role])):
        exact = [name for name in names if stems[name].lower() in wanted]
        if exact:
            return exact
    if not of_files:
        return []
    return [name for name in names if set(re.split(r"[^a-z]+", stems[name].lower())) & set(NAMES[role])]
