"""How datasets are read: the flags shared by the verbs that train or evaluate."""

from typing import TYPE_CHECKING, Any

from wsr.cli.flags import Flag, Group, Values

if TYPE_CHECKING:
    from wsr.data.dataset import Dataset
    from wsr.data.examples import Columns
    from wsr.data.texts import Texts


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
    ),
)
"""How a dataset is read."""


def load(values: Values, name: str, tokenizer: Any, *, sizes: dict[str, int] | None = None) -> "Dataset":
    """Returns the dataset ``name`` as the flags say."""
    from wsr.data.load import load_dataset

    return load_dataset(
        name,
        tokenizer,
        max_length=values.max_length,
        sizes=sizes,
        columns=_columns(values),
        family=values.family,
        classes=1 if values.regression else None,
    )


def load_texts(values: Values, name: str, tokenizer: Any, *, size: int | None = None) -> "Texts":
    """Returns the texts of ``name`` as the flags say; they need no labels."""
    from wsr.data.texts import load_texts

    return load_texts(name, tokenizer, max_length=values.max_length, size=size, columns=_columns(values))


def _columns(values: Values) -> "Columns | None":
    from wsr.data.examples import Columns

    named = {"text": values.text_column, "text_pair": values.pair_column, "label": values.label_column}
    given = {field: column for field, column in named.items() if column}
    return Columns(**given) if given else None
