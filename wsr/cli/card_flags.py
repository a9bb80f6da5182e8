"""The flag by which a verb names the licence in the card of what it writes, and the cards of merges."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wsr.cli.flags import Flag, Values

if TYPE_CHECKING:
    from wsr.merging.recipe import MergeRecipe
    from wsr.store import Store

LICENSE = Flag(
    "license",
    "Licence in the model card, an identifier of the hub such as apache-2.0.",
    otherwise="that of the parents, if they have one",
)


def refuse_unclear_licences(values: Values, store: "Store", names: Sequence[str]) -> None:
    """Raises ``WsrError``, before any work, if the licences of a merge's parents do not tell its own.

    Args:
      values: the flags.
      store: the store.
      names: the merged members; names that the store does not have are passed over.
    """
    from wsr.exchange.licences import licences_of

    licences_of(store, [store.record(name) for name in names if name in store], values.license)


def card_of_recipe(values: Values, recipe: "MergeRecipe") -> str:
    """Returns the card of a merge of files.

    Args:
      values: the flags of ``wsr merge``.
      recipe: the recipe.

    Raises:
      WsrError: if the licences of the parents do not tell that of the merge.
    """
    from pathlib import Path

    from wsr.cli.command import command_of
    from wsr.exchange.file_card import card_of_files, licences_of_files
    from wsr.merging.adapters import located

    parents = tuple(dict.fromkeys((*recipe.merged, *recipe.bases)))
    return card_of_files(
        recipe.merged,
        [(name, located(name)) for name in parents],
        licences_of_files(parents, values.license),
        title=Path(values.to).name,
        made=f"{recipe.merge_method} merge of {len(recipe.merged)} models",
        command=command_of("merge", values),
    )
