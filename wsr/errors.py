"""The one exception that a user meets: a line that says what, where, expected, found and what to do."""

import difflib
from collections.abc import Iterable


class WsrError(Exception):
    """A failure the user can act on. The command line prints its message as one line and exits with status 1."""


def nearest_names(name: object, known: Iterable[str], *, most: int = 3) -> str:
    """Returns the known names that look most like ``name``, or else the first of them, for the end of an error.

    Example:
      >>> nearest_names("vader_movy", ["reuters_r8", "vader_movie"])
      'vader_movie'
    """
    names = list(known)
    return ", ".join(difflib.get_close_matches(str(name), names, n=most) or names[:most])
