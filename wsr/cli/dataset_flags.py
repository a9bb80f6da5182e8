"""How datasets are read: the flags shared by the verbs that train or evaluate."""

from typing import TYPE_CHECKING, Any

from wsr.cli.flags import Flag, Group, Values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wsr.data.choices import Choices
    from wsr.data.dataset import Dataset
    from wsr.data.delimited import Dialect
    from wsr.data.examples import Columns
    from wsr.data.texts import Texts
    from wsr.store import MemberRecord


GROUP = Group(
    "Data",
    (
        Flag("max_length", "Number of tokens at which a text is cut.", 64, at_least=3),
        Flag(
            "text_column",
            "Column that holds the texts or images, in files and hub datasets.",
            otherwise="text or image",
        ),
        Flag("label_column", "Column that holds the labels.", otherwise="label"),
        Flag("pair_column", "Column that holds the second text of a pair.", otherwise="text_pair where it exists"),
        Flag(
            "family",
            "Family (task) of the datasets, for datasets that are not registered.",
            otherwise="general",
        ),
        Flag("regression", "Read the labels as real numbers instead of classes.", False),
        Flag(
            "label_names",
            "Names of the classes, in the order of their numbers.",
            (),
            value="NAME,...",
            otherwise="as the dataset declares, or sorted",
        ),
        Flag("drop_empty", "Leave out rows without text or label instead of refusing them.", False),
        Flag(
            "delimiter",
            "Character between the cells of CSV and TSV files; tab for a tab.",
            value="CHARACTER",
            otherwise="as the first line shows",
        ),
        Flag(
            "quoting",
            "Whether double quotes enclose cells of CSV and TSV files.",
            allowed=("yes", "no"),
            otherwise="as the cells show",
        ),
        Flag("tfds", "Read registered datasets from the catalogue of TensorFlow Datasets, not from the hub.", False),
    ),
)
"""How a dataset is read."""
ALLOW_OVERLAP = Flag(
    "allow_overlap",
    "Score members although more than 1 % of the scored texts are among their training texts.",
    False,
)
OVERLAP_FLAGS = (
    Flag(
        "leave_out",
        "Leave members fine-tuned on the scored dataset, or on one that shares texts with it, out.",
        True,
    ),
    ALLOW_OVERLAP,
)
"""What happens to members that saw the dataset on which they are scored."""

BETWEEN = Flag("between", "Text between a question and its answer, under --loss=choices.", " ", value="TEXT")


def load(
    values: Values, name: str, tokenizer: Any, *, sizes: dict[str, int] | None = None, spoken: str | None = None
) -> "Dataset":
    """Returns the dataset ``name`` as the flags say, and prints what was assumed, left out, cut or contradictory.

    Args:
      values: the flags.
      name: a name, file or folder.
      tokenizer: the processor of the checkpoint.
      sizes: largest number of texts of each split.
      spoken: what the dataset is to be called; None: as usual.
    """
    from dataclasses import replace

    from wsr.data.load import load_dataset

    dataset = load_dataset(
        name,
        tokenizer,
        sizes=sizes,
        family=values.family,
        classes=1 if values.regression else None,
        label_names=tuple(values.label_names) or None,
        drop_empty=values.drop_empty or None,
        at_most=True,
        tfds=values.tfds,
        **_reading(values),
    )
    _told(dataset)
    return replace(dataset, name=spoken) if spoken else dataset


def spoken_apart(dataset: "Dataset | Texts | Choices", given: str, records: "Sequence[MemberRecord]") -> str:
    """Returns the name of a dataset, with a folder in front if a store has members of other texts under that name.

    Args:
      dataset: the dataset.
      given: the name, file or folder from which it was loaded.
      records: the records of the store's members.

    Raises:
      WsrError: if no name is left.
    """
    import numpy as np

    from wsr.data.names import longer_name
    from wsr.data.text_sketch import TextSketch
    from wsr.errors import WsrError

    ours = np.array([], np.uint64) if dataset.text_hashes is None else dataset.text_hashes
    sketches = [
        (record.dataset, TextSketch.from_json(record.data["texts"])) for record in records if record.data.get("texts")
    ]
    others = {own for own, _ in sketches} - {own for own, sketch in sketches if sketch.share_in(ours).matched}
    name: str | None = dataset.name
    while name in others:
        name = longer_name(given, name)
    if name is None:
        raise WsrError(
            f"{given}: the store has members of another dataset called {dataset.name!r}; rename the file or its folder"
        )
    if name != dataset.name:
        print(f"{given} is called {name} here: the store's {dataset.name} is another dataset", flush=True)
    return name


def called_in_store(dataset: "Dataset", records: "Sequence[MemberRecord]") -> str:
    """Returns what a store calls a dataset: its name, or the name under which members were fine-tuned on its texts."""
    from wsr.data.text_sketch import TextSketch

    if dataset.text_hashes is None or any(record.dataset == dataset.name for record in records):
        return dataset.name
    for record in records:
        texts = record.data.get("texts")
        if texts and TextSketch.from_json(texts).share_in(dataset.text_hashes).share > 0.5:
            return record.dataset
    return dataset.name


def load_texts(values: Values, name: str, tokenizer: Any, *, size: int | None = None) -> "Texts":
    """Returns the texts of ``name`` as the flags say, and prints what was left out; they need no labels."""
    from wsr.data.texts import load_texts

    return _told(load_texts(name, tokenizer, size=size, **_reading(values)))


def load_choices(
    values: Values, name: str, tokenizer: Any, *, encoder_decoder: bool = False, size: int | None = None
) -> "Choices":
    """Returns the questions of ``name`` as the flags say, ``BETWEEN`` included, and prints what was cut."""
    from wsr.data.choices import load_choices

    options = {"between": values.between, "encoder_decoder": encoder_decoder, "size": size}
    return _told(load_choices(name, tokenizer, **options, **_reading(values)))


def _reading(values: Values) -> dict[str, Any]:
    """Returns the arguments that say how any source is read."""
    return {"max_length": values.max_length, "columns": _columns(values), "dialect": _dialect(values)}


def _told(found: Any) -> Any:
    for note in found.notes:
        print(note, flush=True)
    return found


def _columns(values: Values) -> "Columns | None":
    from wsr.data.examples import Columns

    named = {"text": values.text_column, "text_pair": values.pair_column, "label": values.label_column}
    given: dict[str, Any] = {field: column for field, column in named.items() if column}
    if values.pair_column == "":
        given["text_pair"] = ()  # no second text, although there is a column text_pair
    return Columns(**given) if given else None


def _dialect(values: Values) -> "Dialect | None":
    from wsr.data.delimited import Dialect

    if values.delimiter is None and values.quoting is None:
        return None
    delimiter = "\t" if values.delimiter in ("tab", "\\t") else values.delimiter
    return Dialect(delimiter, None if values.quoting is None else values.quoting == "yes")
