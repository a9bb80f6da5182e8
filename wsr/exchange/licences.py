"""Licences of the parents of a model, as their cards name them, and the licence that follows for the model.

The rule:

- Parents are the members of the point, and the base.
- A member that wsr trained has the licence of the base.
- A card that names one licence decides. A licence called ``other`` or ``unknown``, or a list of several, is unclear.
- A model ``owner/name`` of the hub whose card names none, or cannot be read, is unclear.
- A folder whose card names none says nothing: peft and sentence-transformers write such cards for everybody's own
  models. So does a folder without a card, and a packaged checkpoint.
- If a parent is unclear, or two name different licences, the model is refused until the user names its licence.
- The model has the licence that every parent names. If one says nothing, the model has none, and its card says so.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsr.errors import WsrError

if TYPE_CHECKING:
    from wsr.store import MemberRecord, Store

UNCLEAR = ""
"""A licence that must not be guessed."""
_VAGUE = ("other", "unknown")
_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_DATASET = re.compile(r"[\w.-]+(/[\w.-]+)?")
_LONGEST_CARD_BYTES = 2**20

Card = Mapping[str, Any]
"""What a card says: ``license``, ``UNCLEAR`` or None where it says nothing, and ``datasets``, a list of names."""


@dataclass(frozen=True)
class Licences:
    """The licence of a model and those of its parents."""

    own: str | None
    """None: not set."""
    parents: Mapping[str, str | None]
    """Licence of each parent by its name: ``UNCLEAR``, or None if it says nothing."""

    @classmethod
    def of(cls, parents: Mapping[str, str | None], given: str | None = None) -> "Licences":
        """Returns the licence that follows from those of the parents by the rule above.

        Args:
          parents: licence of each parent by its name: ``UNCLEAR``, or None if it says nothing.
          given: the licence that the user names; None: it must follow from the parents.

        Raises:
          WsrError: if the licence is unclear or the parents' licences differ, and none is given.
        """
        if given is not None:
            if not _IDENTIFIER.fullmatch(given):
                raise WsrError(
                    f"--license={given}: expected an identifier of the hub, such as apache-2.0, mit or cc-by-4.0"
                )
            return cls(given, parents)
        remedy = "name the licence of the result with --license, such as --license=apache-2.0"
        unclear = [name for name, own in parents.items() if own == UNCLEAR]
        if unclear:
            more = f" and {len(unclear) - 3} more" if len(unclear) > 3 else ""
            raise WsrError(
                f"the licence of {', '.join(unclear[:3])}{more} is unclear: its card names none, several or 'other', "
                f"or cannot be read; {remedy}"
            )
        named = {own for own in parents.values() if own is not None}
        if len(named) > 1:
            told = ", ".join(f"{name}: {own}" for name, own in parents.items() if own)
            raise WsrError(f"the parents have different licences ({told}); {remedy}")
        return cls(None if None in parents.values() else next(iter(named), None), parents)


def licences_of(store: "Store", records: "Sequence[MemberRecord]", given: str | None = None) -> Licences:
    """Returns the licence of a point of a store by the rule above.

    Args:
      store: the store.
      records: the members of the point.
      given: the licence that the user names; None: it must follow from the parents.

    Raises:
      WsrError: if the licence is unclear or the parents' licences differ, and none is given.
    """
    base = licence_of(store.base_name)
    parents = {store.base_name: base}
    for record in records:
        about = record.hyperparameters
        parents[record.name] = licence_of(str(about["source"]), about.get("card")) if "source" in about else base
    return Licences.of(parents, given)


def licence_of(name: str, card: Card | None = None) -> str | None:
    """Returns the licence of one parent: ``UNCLEAR``, or None if it says nothing.

    Args:
      name: a registered name, a folder or a hub name.
      card: what its card said when it was read; None: there was none, and that of the hub is read now.
    """
    if card is not None:
        own = card.get("license")
        if own is None and on_hub(name):
            return UNCLEAR
        return own if isinstance(own, str) or own is None else UNCLEAR
    if Path(name).exists():
        there = card_of_folder(Path(name))
        return None if there is None else licence_of(name, there)
    from wsr.models.huggingface.hub import card_text, is_name  # needs JAX
    from wsr.models.registry import checkpoints

    if name in checkpoints() or not is_name(name) or name.startswith("."):
        return None
    text = card_text(name)
    if text is None:
        return UNCLEAR if on_hub(name) else None
    return licence_of(name, card_of_text(text))


def card_of_folder(folder: Path) -> Card | None:
    """Returns what the README.md of a model folder says; None if there is none.

    Args:
      folder: a Hugging Face folder.
    """
    path = folder / "README.md"
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return card_of_text(file.read(_LONGEST_CARD_BYTES).decode("utf-8", "replace"))


def card_of_text(text: str) -> Card:
    """Returns what the text of a card says.

    Args:
      text: content of a README.md.
    """
    from huggingface_hub import ModelCard

    if not text.startswith("---"):
        return {"license": None, "datasets": []}
    try:
        data = ModelCard(text, ignore_metadata_errors=True).data.to_dict()
    except Exception:  # Not valid YAML, or not a table: the library raises errors of several kinds.
        return {"license": UNCLEAR, "datasets": []}
    licence, datasets = data.get("license"), data.get("datasets") or []
    if isinstance(licence, list) and len(licence) == 1:
        licence = licence[0]
    if licence is None:
        found = None
    elif isinstance(licence, str) and licence.lower() not in _VAGUE and _IDENTIFIER.fullmatch(licence.lower()):
        found = licence.lower()
    else:
        found = UNCLEAR
    names = [datasets] if isinstance(datasets, str) else datasets
    return {
        "license": found,
        "datasets": [name for name in names if isinstance(name, str) and _DATASET.fullmatch(name)],
    }


def on_hub(name: str) -> bool:
    """Returns whether a name may be that of a model on the hub, which accepts no others: not a folder.

    Args:
      name: source of a member, or name of a base.
    """
    return _HUB_NAME.fullmatch(name) is not None and not name.startswith(".") and not Path(name).exists()
