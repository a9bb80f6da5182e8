"""The one exception of this package that is meant for users."""


class WsrError(Exception):
    """A failure that the user can act on.

    Its message is one line that says what is wrong and where, what was expected and found, and what to do. The command
    line prints that line and exits with status 1.
    """
