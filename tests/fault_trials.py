"""How often the tests of faults try a fault, and what they count."""

import json
from pathlib import Path


class Trials:
    """How often a fault is tried, and what came of it."""

    def __init__(self, file: Path | None):
        self.file = file

    def __call__(self, often: int, *, torture: int) -> int:
        """Returns ``torture`` for ``make torture``, else ``often``."""
        return torture if self.file else often

    def note(self, fault: str, **counted: float | str) -> None:
        """Keeps what was counted under the name of the fault; the file has a line for each."""
        if self.file:
            with self.file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({"fault": fault, **counted}) + "\n")
