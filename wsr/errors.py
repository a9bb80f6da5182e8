"""The one exception that a user meets: a line that says what, where, expected, found and what to do."""


class WsrError(Exception):
    """A failure the user can act on. The command line prints its message as one line and exits with status 1."""
