"""Parses untrusted JSON: any defect raises ValueError."""

import json
from typing import Any


def parse(text: str) -> Any:
    """Returns the value of a JSON text.

    Raises:
      ValueError: if the text is not valid JSON or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
