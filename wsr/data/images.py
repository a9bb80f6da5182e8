"""Turns raw cells into splits of images and labels."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32, Int64, Integer, UInt8

from wsr.data.examples import Columns, read_labels, refuse_one_label
from wsr.data.identity import Hashes, joined_hashes
from wsr.data.image_processor import ImageProcessor
from wsr.data.records import Records
from wsr.errors import WsrError

Labels = Int32[np.ndarray, " images"] | Float32[np.ndarray, " images"]


@dataclass(frozen=True, eq=False)
class ImageSplit:
    """Normalised images of one size, and their labels."""

    pixel_values: Float32[np.ndarray, "images height width channels"]
    labels: Labels
    text_hashes: Hashes | None = None
    """Hash of each image before resizing, in the place of a text's."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> Int64[np.ndarray, " images"]:
        """One for each image: it takes one place in a batch, as a text of one token does."""
        return np.ones(len(self), np.int64)

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """All arrays that a model can see, and their shape."""
        return np.array(self.pixel_values.shape), self.pixel_values, self.labels

    def content(self, image: int) -> bytes:
        """Returns the pixels of one image as bytes: equal images have equal content."""
        return self.pixel_values[image].tobytes()

    def take(self, indices: Integer[np.ndarray, " taken"]) -> "ImageSplit":
        """Returns a split of the images ``indices``, in that order."""
        hashes = None if self.text_hashes is None else self.text_hashes[indices]
        return ImageSplit(self.pixel_values[indices], self.labels[indices], hashes)

    def followed_by(self, others: Sequence["ImageSplit"]) -> "ImageSplit":
        """Returns a split of these images, followed by those of ``others``."""
        splits = (self, *others)
        return ImageSplit(
            np.concatenate([split.pixel_values for split in splits]),
            np.concatenate([split.labels for split in splits]),
            joined_hashes([split.text_hashes for split in splits]),
        )

    def inputs(self, index: Int32[np.ndarray, "steps batch"]) -> dict[str, np.ndarray]:
        """Returns the images of each step as ``wsr.types.Batch``; zeros where ``index`` is -1."""
        pixel_values = self.pixel_values[index]
        pixel_values[index < 0] = 0
        return {"pixel_values": pixel_values}


@dataclass(frozen=True, eq=False)
class ImageExamples:
    """Checked images and labels of one role (``train``, ``validation`` or ``test``)."""

    pixels: UInt8[np.ndarray, "images height width channels"]
    labels: Labels
    keys: Sequence[str]
    """A hash of each image before resizing: equal images have equal keys."""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def hashes(self) -> Hashes:
        """A 64-bit hash of each image."""
        return np.array([int(key[:16], 16) for key in self.keys], np.uint64)

    def split(self, numbers: Sequence[int], processor: ImageProcessor) -> ImageSplit:
        """Returns a split of the images ``numbers``, normalised."""
        taken = list(numbers)
        return ImageSplit(processor.normalise(self.pixels[taken]), self.labels[taken], self.hashes[taken])


def read_images(
    records: Mapping[str, Records],
    columns: Columns,
    processor: ImageProcessor,
    *,
    label_names: tuple[str, ...] = (),
    classes: int | None = None,
) -> tuple[dict[str, ImageExamples], tuple[str, ...]]:
    """Returns the images of each role, with the size and channels of the model, and the names of the classes.

    Args:
      records: raw cells, by role. A cell of the image column is a path, the bytes of a file, or a uint8 array
        ``[height, width]`` or ``[height, width, channels]``.
      columns: the column of the image (``text``) and that of the label.
      processor: prepares the images.
      label_names: names of the classes, as for ``wsr.data.examples.read_examples``.
      classes: number of classes; 1 reads labels as real numbers.

    Raises:
      WsrError: naming the file, or the row and column.
    """
    labels, names, notes = read_labels(records, columns, label_names=label_names, classes=classes)
    refuse_one_label(records["train"], columns, labels["train"], names)
    out = {role: _examples(table, columns, labels[role], processor) for role, table in records.items()}
    out["train"] = replace(out["train"], notes=out["train"].notes + notes)
    return out, names


def _examples(table: Records, columns: Columns, labels: Labels, processor: ImageProcessor) -> ImageExamples:
    if not isinstance(columns.text, str) or columns.text_pair is not None:
        raise WsrError(f"{table.origin}: expected one column of images, found {', '.join(columns.of_texts)}")
    pixels = np.empty((len(table), processor.size, processor.size, processor.channels), np.uint8)
    keys = []
    for record, cell in enumerate(table.columns[columns.text]):
        where = str(cell) if isinstance(cell, Path) else table.where(record, columns.text)
        image = _opened(cell, where)
        keys.append(_key(image))
        try:
            pixels[record] = processor.to_pixels(image)
        except WsrError as error:
            raise WsrError(f"{where}: {error}") from None
    return ImageExamples(pixels, labels, keys, table.notes)


def _opened(cell: Any, where: str) -> Any:
    """Returns the decoded Pillow image of a cell."""
    import PIL.Image
    import PIL.ImageOps

    # A cell of a hub dataset that its library has not decoded.
    content = cell.get("bytes") or cell.get("path") if isinstance(cell, Mapping) else cell
    try:
        if isinstance(content, np.ndarray) and content.dtype == np.uint8:
            grey = content.ndim == 3 and content.shape[-1] == 1
            return PIL.Image.fromarray(content[..., 0] if grey else content)
        if isinstance(content, bytes | str | Path):
            with PIL.Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as file:
                # Turn the image upright, as the camera noted it.
                return PIL.ImageOps.exif_transpose(file.convert(file.mode))
    except Exception as error:  # Pillow's decoders raise many kinds.
        raise WsrError(f"{where}: cannot be read as an image: {' '.join(str(error).split())}") from None
    raise WsrError(f"{where}: expected an image (a path, bytes, or uint8 pixels), found {type(content).__name__}")


def _key(image: Any) -> str:
    return hashlib.sha256(f"{image.mode} {image.size}".encode() + image.tobytes()).hexdigest()
