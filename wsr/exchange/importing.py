"""Import of a model into a store: read, compare with the base, admit."""

from collections.abc import Iterable
from pathlib import Path

from wsr.errors import WsrError
from wsr.exchange.admission import admit, dataset_of, names_of
from wsr.exchange.likely_bases import likeliest_base, stores_beside
from wsr.exchange.member import Incoming, read_member, require_base
from wsr.models import Checkpoint
from wsr.models.load import find_folder
from wsr.store import MemberRecord, Store


def import_model(
    where: str | Path, store: Store, *, name: str | None = None, dataset: str | None = None, family: str | None = None
) -> MemberRecord:
    """Imports a model that was fine-tuned from the store's base elsewhere, and returns the record of the new member.

    Args:
      where: a Hugging Face folder, a LoRA adapter or a hub name.
      store: the store to import into.
      name: name of the member; None: the name of its folder.
      dataset: dataset it was fine-tuned on; None: a registered dataset that its name contains, or else its name.
      family: family of that dataset; None: that of the registered dataset, or ``"unknown"``.

    Raises:
      WsrError: if the model has another base or another architecture, its weights are not finite, or its name is taken.

    Example:
      >>> import tempfile, wsr
      >>> folder, base, region = tempfile.mkdtemp(), wsr.load("tiny"), wsr.made_up_region(1)
      >>> wsr.export(base.with_params(region.members[0].load()), folder + "/theirs")
      >>> store = wsr.Store.create_for(folder + "/store", base)
      >>> wsr.import_(folder + "/theirs", store).name
      'theirs'
    """
    called = name or names_of([str(where)])[0]
    incoming = read_incoming(str(where), store.checkpoint(), stores_beside(store.path))
    admit(store, incoming, name=called, dataset=dataset or dataset_of(called), family=family, source=str(where))
    return store.record(called)


def read_incoming(where: str, base: Checkpoint, stores: Iterable[Path] = ()) -> Incoming:
    """Reads a model and compares it with the base.

    Args:
      where: a Hugging Face folder, a LoRA adapter or a hub name.
      base: the base.
      stores: other stores, whose bases are tried if the model does not fit.

    Raises:
      WsrError: if the model does not fit the base; the message names the likeliest base among those tried.
    """
    folder = find_folder(where)
    try:
        incoming = read_member(folder, base)
        require_base(incoming)
    except WsrError as error:
        likely = likeliest_base(folder, [*stores])
        raise WsrError(f"{error}; the likeliest base is {likely}" if likely else str(error)) from error
    return incoming
