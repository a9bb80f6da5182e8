"""Makes untrusted text safe to print."""


def printable(text: str) -> str:
    """Returns a text with its control characters escaped, so that a terminal shows them instead of obeying them.

    Args:
      text: any text, such as a name from a file.
    """
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
