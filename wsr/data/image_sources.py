"""Sources of images: folders, the digits of scikit-learn, and made-up images for tests."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from wsr.data.records import Records
from wsr.data.roles import roles_of
from wsr.errors import WsrError
from wsr.runtime.seeds import generator

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_SIDE = 8  # pixels of a made-up image


@dataclass(frozen=True)
class ImageFolder:
    """A folder with one subfolder of images per class.

    The images are ``folder/<class>/*.png``, or ``folder/train/<class>/*.png`` with ``validation`` and ``test`` beside
    ``train``.
    """

    folder: str | Path

    def read(self) -> Mapping[str, Records]:
        """Returns the paths of the images, sorted by name; the name of the folder is the label."""
        folder = Path(self.folder)
        inner = _inner(folder)
        if not inner:
            return {"train": _records(folder)}
        found, _ = roles_of([place.name for place in inner], str(folder))
        if "train" not in found:
            names = ", ".join(place.name for place in inner)
            raise WsrError(f"{folder}: found {names}, but no folder train with one subfolder per class")
        return {role: _records(folder / names[0]) for role, names in found.items()}


def holds_images(folder: Path) -> bool:
    """Returns whether ``ImageFolder`` can read ``folder``."""
    return bool(_classes(folder) or _inner(folder))


def _inner(folder: Path) -> list[Path]:
    """Returns the subfolders that hold one folder of images per class."""
    return sorted(place for place in folder.iterdir() if place.is_dir() and _classes(place))


def _classes(folder: Path) -> list[Path]:
    inner = [place for place in folder.iterdir() if place.is_dir()] if folder.is_dir() else []
    return sorted(place for place in inner if any(map(_is_image, place.iterdir())))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _records(folder: Path) -> Records:
    paths = [path for place in _classes(folder) for path in sorted(filter(_is_image, place.iterdir()))]
    others = sum(not _is_image(path) for place in _classes(folder) for path in place.iterdir())
    notes = (f"{folder}: left out {others} files that are not images",) if others else ()
    columns: dict[str, list] = {"image": paths, "label": [path.parent.name for path in paths]}
    return Records(str(folder), columns, range(1, len(paths) + 1), unit="image", notes=notes)


@dataclass(frozen=True)
class Digits:
    """The 1,797 handwritten digits (8 by 8 pixels) of scikit-learn (Alpaydin and Kaynak 1998)."""

    def read(self) -> Mapping[str, Records]:
        """Returns the digits, with their 17 levels of grey scaled to 0 to 255."""
        from sklearn.datasets import load_digits

        found = load_digits()
        pixels = np.rint(found.images * (255 / 16)).astype(np.uint8)
        columns = {"image": list(pixels), "label": found.target.tolist()}
        return {"train": Records("digits of scikit-learn", columns, range(1, len(pixels) + 1), unit="image")}


@dataclass(frozen=True)
class MadeUpImages:
    """Random grey images: the pattern of the image's class, plus one of ten patterns of the dataset, plus noise.

    Datasets of a family share the patterns of the two classes, as those of ``MadeUp`` share words.
    """

    family: str
    dataset: str
    images: int = 400
    signal: float = 1.0

    def read(self) -> Mapping[str, Records]:
        """Returns the images; they are the same in every process."""
        draw = generator(0, "made up images", self.family, self.dataset)
        of_classes = [_pattern(self.family, f"class {label}") for label in range(2)]
        others = [_pattern(self.family, self.dataset, number) for number in range(10)]
        pixels, labels = [], []
        for _ in range(self.images):
            label = int(draw.integers(2))
            mixed = self.signal * of_classes[label] + others[draw.integers(10)] + draw.normal(0, 0.5, (_SIDE, _SIDE))
            pixels.append(np.clip(128 + 48 * mixed, 0, 255).astype(np.uint8))
            labels.append(str(label))
        columns = {"image": pixels, "label": labels}
        return {"train": Records(f"made up {self.dataset}", columns, range(1, self.images + 1), unit="image")}


def _pattern(*names: str | int) -> Float[np.ndarray, "8 8"]:
    """Returns a random pattern of 2 by 2 blocks, coarse enough to be seen."""
    return np.kron(generator(0, "made up pattern", *names).standard_normal((_SIDE // 2, _SIDE // 2)), np.ones((2, 2)))
