"""Text from others on the console and in files."""


def printable(text: str) -> str:
    """Returns ``text`` with what a terminal would obey, and not show, written out: a name may hold anything."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
