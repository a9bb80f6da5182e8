"""Names of datasets: what a file, folder or hub name is called, and distinct names for several of one name."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from wsr.data.load import safe_name, spec_of
from wsr.data.table import registered
from wsr.errors import WsrError


def spoken_names(given: Sequence[str]) -> list[str]:
    """Returns a distinct name for each dataset: its usual one, with folders in front (or the ending behind) where names
    would collide.

    Args:
      given: names, files, folders or hub names.

    Raises:
      WsrError: if one of them is given twice.

    Example:
      >>> from wsr.data.names import spoken_names
      >>> spoken_names(["somebody/reviews", "another/reviews", "made_up_a1"])
      ['somebody-reviews', 'another-reviews', 'made_up_a1']
    """
    places = [one if one in registered() else str(Path(one).resolve()) if Path(one).exists() else one for one in given]
    twice = [one for one, count in Counter(places).items() if count > 1]
    if twice:
        raise WsrError(f"dataset {given[places.index(twice[0])]} is given twice; give each dataset once")
    names = [spec_of(one).name for one in given]
    beside = Counter((name, Path(one).resolve().parent) for one, name in zip(given, names, strict=True))
    for at, (one, name) in enumerate(zip(given, names, strict=True)):
        if Path(one).is_file() and beside[name, Path(one).resolve().parent] > 1:
            names[at] = f"{name}-{Path(one).suffix[1:]}"
    while repeated := {name for name, count in Counter(names).items() if count > 1}:
        for at, name in enumerate(names):
            if name in repeated and given[at] not in registered():
                longer = longer_name(given[at], name)
                if longer is None:
                    raise WsrError(f"two of the datasets are called {name!r}; rename one of the files or folders")
                names[at] = longer
    return names


def longer_name(given: str, name: str) -> str | None:
    """Returns the name of a dataset with one more folder in front; None if there is none left.

    Args:
      given: a name, file, folder or hub name.
      name: what the dataset is called so far.
    """
    if given in registered():
        return None
    path = Path(given)
    parts = list(path.resolve().parts[1:] if path.exists() else Path(given.replace(":", "_")).parts)
    usual = spec_of(given).name
    if path.is_file() and path.stem.lower() == "train":
        parts = parts[:-1]
    names = [usual]
    for part in reversed(parts[:-1]):
        if safe_name(part):
            names.append(f"{safe_name(part)}-{names[-1]}")
    return names[names.index(name) + 1] if name in names[:-1] else None
