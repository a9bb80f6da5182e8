"""Reads YAML files from untrusted sources."""

from pathlib import Path
from typing import Any

from wsr.errors import WsrError

MOST_NODES = 100_000
"""Most values that a file may unpack to."""


def read_yaml(path: Path) -> Any:
    """Returns the contents of a YAML file.

    Args:
      path: the file.

    Raises:
      WsrError: if the file is not YAML, or unpacks to more than ``MOST_NODES`` values.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise WsrError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from error
    _refuse_endless(path, content)
    return content


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
