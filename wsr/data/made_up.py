"""Made-up texts for trying things out in seconds, without a download: the smoke preset and the tests use them.

Two classes of a family differ in the words they favour; the datasets of a family share those words and differ in the
others. So a family's datasets have something in common to learn, as real ones do, and nothing more is claimed of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from wsr.data.records import Records
from wsr.runtime.seeds import generator

_LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")


@dataclass(frozen=True)
class MadeUp:
    """Texts of eight words; ``signal`` of them, on average, are words of the text's class."""

    family: str
    dataset: str
    texts: int = 400
    signal: float = 0.5

    def read(self) -> Mapping[str, Records]:
        """Returns the texts, the same in every process."""
        draw = generator(0, "made up", self.family, self.dataset)
        class_words = [_words(self.family, f"class {label}", 6) for label in range(2)]
        other_words = _words(self.family, self.dataset, 40)
        texts, labels = [], []
        for _ in range(self.texts):
            label = int(draw.integers(2))
            telling = draw.random(8) < self.signal
            texts.append(" ".join(draw.choice(class_words[label] if tells else other_words) for tells in telling))
            labels.append(str(label))
        return {"train": Records(f"made up {self.dataset}", {"text": texts, "label": labels}, range(1, self.texts + 1))}


def _words(family: str, purpose: str, count: int) -> list[str]:
    draw = generator(0, "made up words", family, purpose)
    return ["".join(draw.choice(_LETTERS, size=int(draw.integers(3, 6)))) for _ in range(count)]
