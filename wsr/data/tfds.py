"""Reads TensorFlow Datasets without TensorFlow, which only the array_record format allows."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wsr.data.records import Records
from wsr.data.roles import roles_of
from wsr.errors import WsrError


@dataclass(frozen=True)
class Tfds:
    """A dataset of the catalogue (such as ``glue/mnli``), or a folder that TensorFlow Datasets has prepared."""

    name: str
    splits: Mapping[str, str] = field(default_factory=dict)
    """The split of the catalogue for each role; if empty, splits named like the roles."""
    data_dir: str | Path | None = None

    def read(self) -> Mapping[str, Records]:
        """Returns the records by role.

        Raises:
          WsrError: if the dataset cannot be prepared or read.
        """
        builder = self._builder()
        found = builder.info.splits
        roles, unread = roles_of(found, self.name)
        splits = self.splits or {role: names[0] for role, names in roles.items()}
        missing = sorted({"train", *splits} - set(splits)) or [s for s in splits.values() if s not in found]
        if missing:
            raise WsrError(f"{self.name}: no split {missing[0]!r}; found {', '.join(found)}")
        records = {role: self._records(builder, split) for role, split in splits.items()}
        notes = (f"{self.name}: splits that are not read: {', '.join(unread)}",) * bool(unread and not self.splits)
        return records | {"train": replace(records["train"], notes=notes)}

    def _builder(self) -> Any:
        try:
            import array_record  # noqa: F401
            import tensorflow_datasets

            # Without TensorFlow the package does not register these by itself.
            import tensorflow_datasets.text
            from tensorflow_datasets.core.read_only_builder import builder_from_files
        except ImportError as error:
            raise WsrError(f"{self.name}: needs {error.name}: run pip install 'wsr[tfds]'") from None
        try:
            if Path(self.name).is_dir():
                return tensorflow_datasets.builder_from_directory(self.name)
            # Some builders cannot be made without TensorFlow, not even to read what is prepared.
            with suppress(tensorflow_datasets.core.DatasetNotFoundError):
                return builder_from_files(self.name, data_dir=self.data_dir, file_format="array_record")
            builder = tensorflow_datasets.builder(self.name, data_dir=self.data_dir, file_format="array_record")
            builder.download_and_prepare()
        except Exception as error:  # builders raise all kinds of errors
            if "No module named 'tensorflow'" in str(error):
                raise WsrError(
                    f"{self.name}: preparing it needs TensorFlow, reading it does not: prepare it once where "
                    "TensorFlow is installed, with file_format='array_record', and give its folder here, or the "
                    "folder of all prepared datasets as TFDS_DATA_DIR"
                ) from None
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise WsrError(
                f"{self.name}: tensorflow-datasets cannot prepare it: {reason}; prepare it on a machine with network "
                f"access, with file_format='array_record', and give its folder here"
            ) from None
        return builder

    def _records(self, builder: Any, split: str) -> Records:
        features = builder.info.features
        try:
            source = builder.as_data_source(split=split)
            examples = [source[at] for at in range(len(source))]
        except (NotImplementedError, ImportError, ValueError, OSError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise WsrError(
                f"{self.name}/{split}: cannot be read without TensorFlow: {reason}; "
                f"prepare it with file_format='array_record'"
            ) from None
        where = f"{self.name}/{split}"
        columns = {name: [_plain(example[name], where, row, name) for row, example in enumerate(examples, 1)]
                   for name in features}  # fmt: skip
        names = {name: tuple(feature.names) for name, feature in features.items() if hasattr(feature, "names")}
        return Records(where, columns, range(1, len(examples) + 1), unit="row", label_names=names)


def _plain(cell: Any, where: str, row: int, column: str) -> Any:
    """Returns the content of a cell as a plain Python value."""
    cell = cell.item() if hasattr(cell, "item") and getattr(cell, "ndim", 0) == 0 else cell
    if not isinstance(cell, bytes):
        return cell
    try:
        return cell.decode()
    except UnicodeDecodeError as error:
        raise WsrError(f"{where}, row {row}, column {column!r}: byte {cell[error.start]:#04x} is not UTF-8") from None
