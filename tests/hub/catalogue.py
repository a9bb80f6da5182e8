"""A folder as TensorFlow Datasets prepares it for the paper's datasets that its catalogue has, with invented rows.

Configurations, columns, class names and names of splits are those of the catalogue's own builders, of which only the
downloads and the rows are replaced.
"""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
from hub_repositories import LARGE, SMALL, text

from wsr.data import table


def entries() -> list[str]:
    """Returns the names of the paper's datasets that the catalogue has."""
    return [name for name in table.PAPER if table.find(name).catalogue]


def prepare(folder: Path) -> None:
    """Prepares every entry in a folder of datasets, such as ``TFDS_DATA_DIR`` names."""
    from tensorflow_datasets.core.registered import imported_builder_cls
    from tensorflow_datasets.text import (
        super_glue,
    )  # registers the builders, as does no other import without TensorFlow

    of_tensorflow = SimpleNamespace(int32=np.int32)  # all that the columns of SuperGLUE need of it
    with patch.object(super_glue, "tf", of_tensorflow):
        for name in sorted({table.find(entry).catalogue.name for entry in entries()}):
            dataset, _, config = name.partition("/")
            kind = _invented(imported_builder_cls(dataset), dataset)
            kind(config=config or None, data_dir=folder, file_format="array_record").download_and_prepare()


def _invented(real: type, dataset: str) -> type:
    class Invented(real, skip_registration=True):  # type: ignore[call-arg, misc, valid-type]
        """The catalogue's builder with invented rows."""

        name = dataset

        def _split_generators(self, downloads: Any) -> dict[str, Iterator[tuple[int, dict]]]:
            nothing = SimpleNamespace(download_and_extract=_nowhere, download=_nowhere, extract=_nowhere)
            found = real._split_generators(self, nothing)
            names = list(found) if isinstance(found, dict) else [str(own.name) for own in found]
            return {name: self._rows(name, 10_000 * at) for at, name in enumerate(names)}

        def _rows(self, split: str, start: int) -> Iterator[tuple[int, dict]]:
            for at in range(LARGE if split == "train" else SMALL):
                yield at, _row(self.info.features, start + at)

    return Invented


class _Nowhere(str):
    """The path of a download that does not take place; of a download of several files, the path of each."""

    def __getitem__(self, key: Any) -> "_Nowhere":
        return self


def _nowhere(urls: Any) -> _Nowhere:
    return _Nowhere("nowhere")


def _row(features: Any, number: int) -> dict[str, Any]:
    """Returns an invented row whose texts show its class."""
    label = number % (features["label"].num_classes if hasattr(features["label"], "num_classes") else 6)

    def cell(name: str, feature: Any) -> Any:
        if name == "label":
            return label
        if hasattr(feature, "items"):
            return dict.fromkeys(feature, number)
        return text(number, label, name) if type(feature).__name__ == "Text" else number

    return {name: cell(name, feature) for name, feature in features.items()}
