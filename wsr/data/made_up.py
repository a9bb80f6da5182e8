"""Made-up texts for first tries, examples and tests: they need no download and train in seconds.

The two classes of a family prefer different words. The datasets of a family share these words and differ in all
others, so they have something in common to learn. They stand for nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from wsr.data.records import Records
from wsr.runtime.seeds import generator

_LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")


@dataclass(frozen=True)
class MadeUp:
    """Random texts of eight words; on average the share ``signal`` of them are words of the text's class."""

    family: str
    dataset: str
    texts: int = 400
    signal: float = 0.5

    def read(self) -> Mapping[str, Records]:
        """Returns the texts; they are the same in every process."""
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
