"""Images and their labels: from raw cells to a split that an encoder of images reads."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32, Int64, Integer, UInt8

from wsr.data.examples import Columns, read_labels, refuse_one_label
from wsr.data.image_processor import ImageProcessor
from wsr.data.records import Records
from wsr.errors import WsrError

Labels = Int32[np.ndarray, " images"] | Float32[np.ndarray, " images"]


@dataclass(frozen=True, eq=False)
class ImageSplit:
    """Prepared images, all of one size; what ``wsr.data.dataset.Split`` is for texts."""

    pixel_values: Float32[np.ndarray, "images height width channels"]
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> Int64[np.ndarray, " images"]:
        """Ones: an image is one thing to be placed in a batch, as a text of one token is."""
        return np.ones(len(self), np.int64)

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """All that a model can see, shape included."""
        return np.array(self.pixel_values.shape), self.pixel_values, self.labels

    def content(self, image: int) -> bytes:
        """What a model sees of one image: equal images have equal content."""
        return self.pixel_values[image].tobytes()

    def take(self, indices: Integer[np.ndarray, " taken"]) -> "ImageSplit":
        """Returns the images ``indices``, in that order."""
        return ImageSplit(self.pixel_values[indices], self.labels[indices])

    def followed_by(self, others: Sequence["ImageSplit"]) -> "ImageSplit":
        """Returns these images and then those of the others."""
        splits = (self, *others)
        return ImageSplit(
            np.concatenate([split.pixel_values for split in splits]), np.concatenate([split.labels for split in splits])
        )

    def inputs(self, index: Int32[np.ndarray, "steps batch"]) -> dict[str, np.ndarray]:
        """Returns the images of each step, zeros where ``index`` is -1; see ``wsr.types.Batch``."""
        pixel_values = self.pixel_values[index]
        pixel_values[index < 0] = 0
        return {"pixel_values": pixel_values}


@dataclass(frozen=True, eq=False)
class ImageExamples:
    """Checked images and labels of one role."""

    pixels: UInt8[np.ndarray, "images height width channels"]
    labels: Labels
    keys: Sequence[str]
    """The same for images that are the same, before any resizing."""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def split(self, numbers: Sequence[int], processor: ImageProcessor) -> ImageSplit:
        """Returns the images ``numbers``, prepared."""
        return ImageSplit(processor.normalise(self.pixels[list(numbers)]), self.labels[list(numbers)])


def read_images(
    records: Mapping[str, Records],
    columns: Columns,
    processor: ImageProcessor,
    *,
    label_names: tuple[str, ...] = (),
    classes: int | None = None,
) -> tuple[dict[str, ImageExamples], tuple[str, ...]]:
    """Returns the images of each role in the model's size, and the names of the classes.

    A cell of the column ``columns.text`` is a path, the bytes of a file, or an array of uint8 [height, width] or
    [height, width, channels]. Labels are read as those of texts.
    Raises: ``WsrError`` naming the file, or the row and column.
    """
    labels, names = read_labels(records, columns, label_names=label_names, classes=classes)
    refuse_one_label(records["train"], columns, labels["train"], names)
    return {role: _examples(table, columns, labels[role], processor) for role, table in records.items()}, names


def _examples(table: Records, columns: Columns, labels: Labels, processor: ImageProcessor) -> ImageExamples:
    if not isinstance(columns.text, str) or columns.text_pair is not None:
        raise WsrError(f"{table.origin}: images are read from one column; found {', '.join(columns.of_texts)}")
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
    """Returns the Pillow image that a cell holds, decoded."""
    import PIL.Image
    import PIL.ImageOps

    # A cell of the hub's, where its library does not decode it.
    content = cell.get("bytes") or cell.get("path") if isinstance(cell, Mapping) else cell
    try:
        if isinstance(content, np.ndarray) and content.dtype == np.uint8:
            grey = content.ndim == 3 and content.shape[-1] == 1
            return PIL.Image.fromarray(content[..., 0] if grey else content)
        if isinstance(content, bytes | str | Path):
            with PIL.Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as file:
                # The way up that the camera noted.
                return PIL.ImageOps.exif_transpose(file.convert(file.mode))
    except Exception as error:  # Pillow's decoders raise many kinds.
        raise WsrError(f"{where}: not readable as an image: {' '.join(str(error).split())}") from None
    raise WsrError(f"{where}: expected an image (a path, bytes, or uint8 pixels), found {type(content).__name__}")


def _key(image: Any) -> str:
    return hashlib.sha256(f"{image.mode} {image.size}".encode() + image.tobytes()).hexdigest()
