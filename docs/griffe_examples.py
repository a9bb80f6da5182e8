"""Reads "Example:" in a docstring as "Examples:", the only spelling under which Griffe knows doctests."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Runs on every object that the reference shows."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
