"""The one exception of this package that is meant for users."""

import difflib
from collections.abc import Iterable


class WsrError(Exception):
    """A failure that the user can act on.

    Its message is one line that says what is wrong and where, what was expected and found, and what to do. The command
    line prints that line and exits with status 1.
    """


def nearest_names(name: object, known: Iterable[str], *, most: int = 3) -> str:
    """Returns the known names most similar to ``name``, for the end of an error message.

    Args:
      name: what the user wrote.
      known: the valid names.
      most: largest number of names.

    Returns:
      The names, joined by commas; the first ``most`` names if none is similar.

    Example:
      >>> from wsr.errors import nearest_names
      >>> nearest_names("vader_movy", ["reuters_r8", "vader_movie"])
      'vader_movie'
    """
    names = list(known)
    return ", ".join(difflib.get_close_matches(str(name), names, n=most) or names[:most])
