"""One call from a name, a file, a folder or a hub to a dataset in four splits."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wsr.data.dataset import Dataset, hash_splits
from wsr.data.examples import Columns, Examples, read_examples
from wsr.data.files import SUFFIXES, Documents, find_files
from wsr.data.hub import Hub
from wsr.data.records import Records
from wsr.data.splits import Place, choose_splits
from wsr.data.table import DatasetSpec, find, registered
from wsr.data.tfds import Tfds
from wsr.data.tokenise import hash_tokenizer, tokenise
from wsr.errors import WsrError


def load_dataset(
    name_or_path: str | Path,
    tokenizer: Any,
    *,
    max_length: int = 64,
    sizes: Mapping[str, int] | None = None,
    seed: int = 0,
    columns: Columns | None = None,
    family: str | None = None,
    classes: int | None = None,
    label_names: tuple[str, ...] | None = None,
    metric: str | None = None,
) -> Dataset:
    """Returns a dataset, tokenised by a Hugging Face fast tokenizer, in four disjoint splits.

    ``name_or_path`` is looked up in this order: a registered name; a CSV, TSV, JSONL or Parquet file; a
    folder of such files called train, validation and test, one written by ``save_to_disk``, or one that
    ``tensorflow-datasets`` prepared; ``owner/name`` or ``owner/name:config`` on the Hugging Face hub;
    ``tfds:name/config`` in the catalogue of TensorFlow Datasets.

    Args:
        max_length: tokens that a text is cut to, special tokens included.
        sizes: texts of each split, by its name; a split that is not named keeps all its texts.
        seed: draws the subsample of ``finetune``.
        columns, family, classes, label_names, metric: override what the table says, or say it for a path;
            without ``columns`` a path has ``text``, ``label`` and, for pairs, ``text_pair``; ``classes=1`` is
            regression.

    Raises: ``WsrError`` naming file, row and column for whatever is wrong with the data.
    """
    spec = spec_of(str(name_or_path))
    overrides: dict[str, Any] = {
        "columns": columns,
        "family": family,
        "classes": classes,
        "label_names": label_names,
        "metric": metric,
    }
    given = {field: value for field, value in overrides.items() if value is not None}
    if classes == 1 and metric is None:
        given["metric"] = "pearson"
    spec = replace(spec, **given)
    records = spec.source.read()
    if columns is None and str(name_or_path) not in registered():
        spec = replace(spec, columns=pair_if_there(records))
    roles, names = read_examples(
        records, spec.columns, label_names=spec.label_names, classes=spec.classes, drop_empty=spec.drop_empty
    )
    chosen, notes = choose_splits(spec.name, roles, sizes, seed)
    tokenizer_hash = hash_tokenizer(tokenizer)
    splits = {
        split: tokenise(*_taken(places, roles), tokenizer, max_length, tokenizer_hash)
        for split, places in chosen.items()
    }
    return Dataset(
        name=spec.name,
        family=spec.family,
        classes=1 if spec.classes == 1 else len(names),
        label_names=names,
        metric=spec.metric,
        splits=splits,
        content_hash=hash_splits(splits),
        notes=tuple(note for examples in roles.values() for note in examples.notes) + notes,
    )


def spec_of(name: str) -> DatasetSpec:
    """Returns the table's line for ``name``, or one for a path or a name of a hub; see ``load_dataset``."""
    if name in registered():
        return find(name)
    if name.startswith("tfds:"):
        catalogue = name.removeprefix("tfds:")
        return DatasetSpec(catalogue.replace("/", "_"), "general", Tfds(catalogue))
    path = Path(name)
    if path.exists():
        return _local(path)
    if path.suffix in SUFFIXES:
        raise WsrError(f"{path}: no such file")
    # The hub's own rule: one owner and one name; anything deeper, or from the root, is a path.
    if name.count("/") == 1 and not name.startswith((".", "/", "~")) and not name.endswith("/"):
        hub, _, config = name.partition(":")
        spoken = hub.rpartition("/")[2] + (f"_{config}" if config else "")
        return DatasetSpec(spoken, "general", Hub(hub, config or None))
    return find(name)


def _local(path: Path) -> DatasetSpec:
    path = path.absolute()
    files = find_files(path)
    if files is not None:
        # train.csv says nothing; its folder does.
        name = path.name if path.is_dir() else path.parent.name if path.stem == "train" else path.stem
        return DatasetSpec(name, "general", files)
    if not path.is_dir():
        raise WsrError(f"{path}: expected a file that ends in {', '.join(SUFFIXES)}, or a folder")
    if (path / "features.json").is_file():
        # The catalogue's folders are name/version or name/config/version.
        return DatasetSpec(path.parent.name, "general", Tfds(str(path)))
    if any(path.glob("*.txt")):
        return DatasetSpec(path.name, "general", Documents(path))
    return DatasetSpec(path.name, "general", Hub(str(path)))


def pair_if_there(records: Mapping[str, Records]) -> Columns:
    """Returns the usual columns, with that of a pair where there is one."""
    return Columns(text_pair="text_pair" if "text_pair" in records["train"].columns else None)


def _taken(places: list[Place], roles: Mapping[str, Examples]) -> tuple[list[str], list[str] | None, np.ndarray]:
    role = places[0][0]  # a split comes from one role
    examples, numbers = roles[role], [number for _, number in places]
    pairs = None if examples.pairs is None else [examples.pairs[number] for number in numbers]
    return [examples.texts[number] for number in numbers], pairs, examples.labels[numbers]
