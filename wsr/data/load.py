"""Loads a dataset by name, from a file, a folder or a hub, into four splits."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from wsr.data.classes import listed
from wsr.data.dataset import AnySplit, Dataset, Split, hash_splits
from wsr.data.delimited import Dialect
from wsr.data.examples import Columns, Examples, read_examples
from wsr.data.files import SUFFIXES, Documents, Files, find_files, find_tables
from wsr.data.hidden import without_hidden
from wsr.data.hub import Hub
from wsr.data.image_processor import ImageProcessor
from wsr.data.image_sources import ImageFolder, holds_images
from wsr.data.images import ImageExamples, read_images
from wsr.data.records import Records, Source
from wsr.data.splits import Place, choose_splits
from wsr.data.table import BUILT_IN, DatasetSpec, find, registered
from wsr.data.text_folder import TextFolder, holds_text_folders
from wsr.data.tfds import Tfds
from wsr.data.tokenise import hash_tokenizer, tokenise
from wsr.errors import WsrError
from wsr.types import Reads

PAIR = "text_pair"
"""Column of the second text of a pair, unless another is named."""

LARGE = 20.0
"""Mean or standard deviation of real labels that are told to be too large to learn."""


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
    drop_empty: bool | None = None,
    dialect: Dialect | None = None,
    at_most: bool = False,
    tfds: bool = False,
    paper_text: bool = False,
    finetune_share: float = 0.0,
) -> Dataset:
    """Returns a dataset, tokenised or as normalised images, in four disjoint splits.

    Args:
      name_or_path: the first of these that fits:

        - the name of a registered dataset;
        - a CSV, TSV, JSONL or Parquet file;
        - a folder: of such files, in which names such as train, dev and test say the split; with one subfolder of text
          files per class; written by ``save_to_disk`` of ``datasets``;
          prepared by ``tensorflow-datasets``; or with one subfolder of images per class;
        - ``owner/name`` or ``owner/name:config`` on the Hugging Face hub;
        - ``tfds:name/config`` in the catalogue of TensorFlow Datasets.
      tokenizer: the processor of a checkpoint: a Hugging Face fast tokenizer, or an ``ImageProcessor`` to read images.
      max_length: longest text in tokens, special tokens included; longer texts are truncated.
      sizes: number of texts or images of each split, by the name of the split; other splits keep all.
      seed: draws the subsample of ``finetune``; the other splits are the same for every seed.
      columns: the columns of text and label. By default ``text`` (or ``image``), ``label`` and, next to a column
        ``text``, ``text_pair`` if it exists; ``text_pair=()`` leaves it out. This and the arguments below override
        those of a registered dataset.
      family: the task family, such as ``nli``.
      classes: number of classes; 1 is regression.
      label_names: names of the classes, in the order of their numbers.
      metric: a name in ``wsr.data.metrics.METRICS``.
      drop_empty: leaves out rows without text or label and counts them in ``Dataset.notes``; otherwise they raise an
        error.
      dialect: how the cells of CSV and TSV files are separated; by default this is found in each file.
      at_most: takes all texts of a split that has fewer than ``sizes`` wants, and says so in ``Dataset.notes``;
        otherwise too few texts raise an error.
      tfds: reads a registered dataset from the catalogue of TensorFlow Datasets, not from the hub.
      paper_text: makes each text as the authors' released code does: all columns of text joined by `` <SEP> ``, then
        the tag ``<`` and the dataset's name. Otherwise a pair stays a pair, and there is no tag.
      finetune_share: share of the training texts that ``finetune`` gets; ``probe`` and the splits that the source lacks
        divide the rest. 0: the usual shares.

    Raises:
      WsrError: naming the file, row and column of bad data; or if the model reads images and the dataset holds texts,
        or the reverse.

    Example:
      >>> import wsr
      >>> tiny = wsr.load("tiny")
      >>> data = wsr.load_dataset("made_up_a1", tiny.processor, max_length=48, sizes={"finetune": 100})
      >>> {name: len(split) for name, split in data.splits.items()}
      {'finetune': 100, 'probe': 60, 'validation': 40, 'test': 60}
    """
    spec = spec_of(str(name_or_path))
    spec = _from_catalogue(spec) if tfds else spec
    refuse_other_kind(spec, tokenizer)
    overrides: dict[str, Any] = {
        "columns": columns,
        "family": family,
        "classes": classes,
        "label_names": label_names,
        "metric": metric,
        "drop_empty": drop_empty,
    }
    given = {field: value for field, value in overrides.items() if value is not None}
    if classes == 1 and metric is None:
        given["metric"] = "pearson"
    spec = replace(spec, **given)
    records, hidden = without_hidden(
        source_of(spec, dialect).read(), spec.columns.label, spec.label_names, spec.classes
    )
    named, built_in = str(name_or_path) in registered(), str(name_or_path) in BUILT_IN
    of_images = isinstance(tokenizer, ImageProcessor)
    cut = partial(
        choose_splits,
        spec.name,
        sizes=sizes,
        seed=seed,
        usual=spec.usual,
        by_name=built_in,
        at_most=at_most,
        finetune_share=finetune_share,
    )
    spec = replace(spec, columns=Columns("image") if of_images and not (named or columns) else spec.columns)
    roles: Mapping[str, Examples] | Mapping[str, ImageExamples]
    splits: Mapping[str, AnySplit]
    if isinstance(tokenizer, ImageProcessor):
        roles, names = read_images(records, spec.columns, tokenizer, label_names=spec.label_names, classes=spec.classes)
        chosen, notes = cut(roles)
        splits = {split: roles[role].split(numbers, tokenizer) for split, (role, numbers) in _by_role(chosen)}
    else:
        chosen_columns, assumed = columns_of(spec, records, columns, registered=named)
        if paper_text:
            chosen_columns = replace(chosen_columns, text=chosen_columns.of_texts, text_pair=None)
        roles, names = read_examples(
            records, chosen_columns, label_names=spec.label_names, classes=spec.classes, drop_empty=spec.drop_empty
        )
        if paper_text:
            roles = {role: _tagged(examples, spec.name) for role, examples in roles.items()}
        chosen, notes = cut(roles)
        splits, of_tokens = _tokenised(spec.name, roles, chosen, tokenizer, max_length)
        notes = (*assumed, *notes, *of_tokens)
    return Dataset(
        name=spec.name,
        family=spec.family,
        classes=1 if spec.classes == 1 else len(names),
        label_names=names,
        metric=spec.metric,
        splits=splits,
        content_hash=hash_splits(splits),
        notes=spec.notes
        + tuple(note for examples in roles.values() for note in examples.notes)
        + hidden
        + notes
        + (_unseen(spec.name, splits, names) if names else _scale(spec.name, splits)),
        text_hashes=np.unique(np.concatenate([examples.hashes for examples in roles.values()])),
        max_length=None if of_images else max_length,
        built_in=built_in,
    )


def _tagged(examples: Examples, name: str) -> Examples:
    """Returns the examples with the tag of their dataset at the end of each text, as in the released code."""
    return replace(examples, texts=[f"{text} <{name}" for text in examples.texts])


def _from_catalogue(spec: DatasetSpec) -> DatasetSpec:
    """Returns the spec with its data in the catalogue of TensorFlow Datasets as the source."""
    if spec.catalogue is None:
        named = [name for name in registered() if find(name).catalogue]
        raise WsrError(
            f"{spec.name}: no entry in the catalogue of TensorFlow Datasets is known for it; known: {', '.join(named)}"
        )
    return replace(spec, source=spec.catalogue, notes=())


def source_of(spec: DatasetSpec, dialect: Dialect | None) -> Source:
    """Returns the source of a dataset, told how its cells are separated.

    Raises:
      WsrError: if it has no cells of a file.
    """
    if dialect is None:
        return spec.source
    if not isinstance(spec.source, Files):
        raise WsrError(f"{spec.name}: a delimiter and quoting are for CSV and TSV files")
    return replace(spec.source, dialect=dialect)


def _tokenised(
    name: str, roles: Mapping[str, Examples], chosen: Mapping[str, list[Place]], tokenizer: Any, max_length: int
) -> tuple[dict[str, AnySplit], tuple[str, ...]]:
    """Returns the tokens of each split, and a note on texts that were cut."""
    tokenizer_hash, cut = hash_tokenizer(tokenizer), 0
    splits: dict[str, AnySplit] = {}
    for split, (role, numbers) in _by_role(chosen):
        tokens, longer = tokenise(*_taken(roles[role], numbers), tokenizer, max_length, tokenizer_hash)
        parts = roles[role].part_hashes
        splits[split] = replace(
            tokens, text_hashes=roles[role].hashes[numbers], part_hashes=None if parts is None else parts[numbers]
        )
        cut += longer
    total = sum(map(len, splits.values()))
    notes = (f"{name}: {cut:,} of {total:,} texts cut at {max_length} tokens",) * bool(cut)
    return splits, notes + _leave_out_equal_tokens(name, splits, max_length)


def _leave_out_equal_tokens(name: str, splits: dict[str, AnySplit], max_length: int) -> tuple[str, ...]:
    """Leaves out the texts whose tokens another split holds too, since different texts may be equal once they are cut.

    Texts for fine-tuning stay, then those of the test split, so that what a member is trained on does not depend on the
    other splits. Returns a note for each split that lost texts.
    """
    seen: set[bytes] = set()
    notes = []
    for split in ("finetune", "test", "probe", "validation"):
        own = splits[split]
        assert isinstance(own, Split)
        tokens = [own.token_ids[start:end].tobytes() for start, end in itertools.pairwise(own.offsets)]
        kept = np.flatnonzero([text not in seen for text in tokens])
        if not len(kept):
            notes.append(
                f"{name}: all texts of {split} equal one of another split once cut at {max_length} tokens, so losses "
                "say nothing; does the tokenizer know these words?"
            )
        elif len(kept) < len(own):
            splits[split] = own.take(kept)
            notes.append(
                f"{name}: left out {len(own) - len(kept)} texts of {split} that equal a text of another split once cut "
                f"at {max_length} tokens"
            )
        seen.update(tokens)
    return tuple(notes)


def _scale(name: str, splits: Mapping[str, AnySplit]) -> tuple[str, ...]:
    """Returns notes on real labels that are hard to learn or that cannot be scored."""
    notes = []
    labels = splits["finetune"].labels
    mean, deviation = float(labels.mean()), float(labels.std())
    if max(abs(mean), deviation) >= LARGE:
        notes.append(
            f"{name}: the labels have mean {mean:,.6g} and standard deviation {deviation:,.6g}, but a new head "
            "predicts numbers near 0; subtract the mean and divide by the standard deviation, or members hardly learn"
        )
    if np.ptp(splits["test"].labels) == 0:
        notes.append(f"{name}: all labels of test are equal, so the correlation is 0 for every model")
    return tuple(notes)


def _unseen(name: str, splits: Mapping[str, AnySplit], names: tuple[str, ...]) -> tuple[str, ...]:
    """Returns notes on classes that only the texts for training or only those for testing have."""
    notes = []
    alone = np.unique(splits["probe"].labels)
    if len(alone) == 1:
        notes.append(f"{name}: probe holds only the class {names[int(alone[0])]!r}, so losses do not tell models apart")
    for split in ("finetune", "probe"):
        counts = np.bincount(splits["test"].labels, minlength=len(names))
        counts[np.unique(splits[split].labels)] = 0
        lacking = [f"{names[number]!r} {counts[number]}" for number in np.flatnonzero(counts)]
        if lacking:
            shown = ", ".join(lacking[:8]) + (f" and {len(lacking) - 8} more" if len(lacking) > 8 else "")
            notes.append(
                f"{name}: the classes of {counts.sum()} of {len(splits['test'])} test texts are not in {split}: {shown}"
            )
    untested = np.setdiff1d(splits["finetune"].labels, splits["test"].labels)
    if len(untested):
        notes.append(f"{name}: no test text has the classes {listed(tuple(names[int(number)] for number in untested))}")
    return tuple(notes)


def spec_of(name: str) -> DatasetSpec:
    """Returns the registered dataset ``name``, or a new spec for a path or the name of a hub dataset.

    Args:
      name: see ``load_dataset``.

    Raises:
      WsrError: if ``name`` is neither; the message lists the nearest names.
    """
    if name in registered():
        return find(name)
    if name.startswith("tfds:"):
        catalogue = name.removeprefix("tfds:")
        return DatasetSpec(catalogue.replace("/", "_"), "general", Tfds(catalogue), reads=None)
    path = Path(name)
    if path.exists():
        found = _local(path)
        return replace(found, name=safe_name(found.name) or "data")
    if path.suffix.lower() in SUFFIXES:
        raise WsrError(f"{path}: no such file")
    # On the hub a name is owner/name; anything deeper, or from the root, is a path.
    if name.count("/") == 1 and not name.startswith((".", "/", "~")) and not name.endswith("/"):
        hub, _, config = name.partition(":")
        spoken = hub.rpartition("/")[2] + (f"_{config}" if config else "")
        return DatasetSpec(spoken, "general", Hub(hub, config or None), reads=None)
    return find(name)


def _local(path: Path) -> DatasetSpec:
    path = path.absolute()
    files = find_files(path)
    if files is not None:
        # A file called train.csv takes the name of its folder.
        name = path.name if path.is_dir() else path.parent.name if path.stem.lower() == "train" else path.stem
        return DatasetSpec(name, "general", files)
    if not path.is_dir():
        raise WsrError(f"{path}: expected a file ending in {', '.join(SUFFIXES)}, or a folder")
    if (path / "features.json").is_file():
        # The catalogue's folders are name/version or name/config/version.
        return DatasetSpec(path.parent.name, "general", Tfds(str(path)), reads=None)
    if holds_images(path):
        return DatasetSpec(path.name, "general", ImageFolder(path), reads="images")
    if holds_text_folders(path):
        return DatasetSpec(path.name, "general", TextFolder(path))
    tables = find_tables(path)
    if tables is not None:
        return DatasetSpec(path.name, "general", tables)
    if any(path.glob("*.txt")):
        return DatasetSpec(path.name, "general", Documents(path))
    return DatasetSpec(path.name, "general", Hub(str(path)), reads=None)


def safe_name(name: str) -> str:
    """Returns a name as stores and file systems accept it, without spaces and brackets; it may be empty."""
    return re.sub(r"[^\w.+=@-]+", "_", name).strip("_.-+=@")


def refuse_other_kind(spec: DatasetSpec, tokenizer: Any) -> None:
    """Raises WsrError if the dataset holds texts and the model reads images, or the reverse."""
    wanted: Reads = "images" if isinstance(tokenizer, ImageProcessor) else "text"
    if spec.reads not in (wanted, None):
        raise WsrError(
            f"{spec.name} is a dataset of {spec.reads}, but the model reads {wanted}; choose another dataset or model"
        )


def columns_of(
    spec: DatasetSpec, records: Mapping[str, Records], columns: Columns | None, *, registered: bool
) -> tuple[Columns, tuple[str, ...]]:
    """Returns the columns to read, and a note on columns of text that are left out: one may be that of a second text.

    Args:
      spec: the dataset.
      records: its raw cells, by role.
      columns: the columns that were asked for.
      registered: whether the dataset was found by its name, so that its columns are known.
    """
    chosen = columns or (spec.columns if registered else Columns())
    if chosen.text_pair == ():
        return replace(chosen, text_pair=None), ()
    if (registered and columns is None) or chosen.text_pair is not None:
        return chosen, ()
    unread = {
        name: cells for name, cells in records["train"].columns.items() if name not in (*chosen.of_texts, chosen.label)
    }
    if PAIR in unread:
        if chosen.text == Columns().text:
            return replace(chosen, text_pair=PAIR), ()
        return chosen, (f"{spec.name}: column {PAIR!r} is not read; --pair_column={PAIR} reads it as the second text",)
    texts = ", ".join(repr(name) for name, cells in unread.items() if _holds_texts(cells))
    if not texts:
        return chosen, ()
    return chosen, (
        f"{spec.name}: columns of text that are not read: {texts}; --pair_column names that of a second text",
    )


def _holds_texts(cells: Sequence[Any]) -> bool:
    """Returns whether most of the first cells hold more than one word."""
    some = [isinstance(cell, str) and len(cell.split()) > 1 for cell in itertools.islice(cells, 50)]
    return 2 * sum(some) > len(some)


def _by_role(chosen: Mapping[str, list[Place]]) -> Iterator[tuple[str, tuple[str, list[int]]]]:
    for split, places in chosen.items():
        yield split, (places[0][0], [number for _, number in places])  # a split comes from one role


def _taken(examples: Examples, numbers: list[int]) -> tuple[list[str], list[str] | None, np.ndarray]:
    pairs = None if examples.pairs is None else [examples.pairs[number] for number in numbers]
    return [examples.texts[number] for number in numbers], pairs, examples.labels[numbers]
