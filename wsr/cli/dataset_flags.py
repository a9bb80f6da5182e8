"""How datasets are read: the flags that training and evaluation share."""

from typing import TYPE_CHECKING, Any

from absl import flags

if TYPE_CHECKING:
    from wsr.data.dataset import Dataset
    from wsr.data.examples import Columns
    from wsr.data.texts import Texts


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    text = flags.DEFINE_string
    text("text_column", None, "Of files and hub datasets: the column of the text or image.", flag_values=values)
    text("pair_column", None, "The column of the second text of a pair.", flag_values=values)
    text("label_column", None, "The column of the label.", flag_values=values)
    text("family", None, "The family of the datasets, where the table does not say it.", flag_values=values)
    flags.DEFINE_bool("regression", False, "Labels are real numbers.", flag_values=values)
    flags.DEFINE_integer("max_length", 64, "Tokens a text is cut to.", lower_bound=3, flag_values=values)


def load(values: flags.FlagValues, name: str, tokenizer: Any, *, sizes: dict[str, int] | None = None) -> "Dataset":
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


def load_texts(values: flags.FlagValues, name: str, tokenizer: Any, *, size: int | None = None) -> "Texts":
    """Returns the texts of ``name`` as the flags say; they need no labels."""
    from wsr.data.texts import load_texts

    return load_texts(name, tokenizer, max_length=values.max_length, size=size, columns=_columns(values))


def _columns(values: flags.FlagValues) -> "Columns | None":
    from wsr.data.examples import Columns

    named = {"text": values.text_column, "text_pair": values.pair_column, "label": values.label_column}
    given = {field: column for field, column in named.items() if column}
    return Columns(**given) if given else None
