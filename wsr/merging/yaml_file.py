"""Reads YAML files from untrusted sources."""

from pathlib import Path
from typing import Any

from wsr.errors import WsrError

MOST_NODES = 100_000
"""Most values that a file may unpack to."""


def read_yaml(path: Path) -> Any:
    """Returns the contents of a YAML file of one document.

    Args:
      path: the file.

    Raises:
      WsrError: if the file is not YAML, or unpacks to more than ``MOST_NODES`` values.
    """
    found = read_documents(path)
    if len(found) > 1:
        raise WsrError(f"{path}: expected one YAML document, found {len(found)}")
    return found[0] if found else None


def read_documents(path: Path) -> list[Any]:
    """Returns the documents of a YAML file, which ``---`` separates, without empty ones.

    Args:
      path: the file.

    Raises:
      WsrError: if the file is not YAML, or unpacks to more than ``MOST_NODES`` values.
    """
    import yaml

    try:
        content = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise WsrError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from error
    _refuse_endless(path, content)
    return [own for own in content if own is not None]


def _refuse_endless(path: Path, content: Any) -> None:
    # An alias is free until it is expanded; nested aliases multiply: ten in ten in ten are a thousand values.
    nodes, rest = 0, [content]
    while rest:
        node = rest.pop()
        nodes += 1
        if nodes > MOST_NODES:
            raise WsrError(f"{path}: cannot be read as YAML: it unpacks to more than {MOST_NODES} values")
        if isinstance(node, dict):
            rest += [*node, *node.values()]
        elif isinstance(node, list | tuple | set):
            rest += node
