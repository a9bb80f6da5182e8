"""A LoRA adapter of a model that was fine-tuned in full: the truncated SVD of its difference from the base."""

from pathlib import Path

import numpy as np

from wsr.errors import WsrError
from wsr.exchange.adapter import Adapter, adapter_of
from wsr.exchange.importing import read_incoming
from wsr.exchange.licences import Licences, licence_of
from wsr.exchange.member import Incoming
from wsr.exchange.model_card import adapter_card
from wsr.geometry.low_rank import Factors
from wsr.geometry.trees import flatten
from wsr.models import Checkpoint, load
from wsr.models.huggingface.heads import ClassifierHead, stored_classifier
from wsr.models.huggingface.peft_write import write_adapter
from wsr.runtime.new_folder import refuse_taken


def extract(
    model: str | Path,
    base: Checkpoint | str | Path,
    folder: str | Path,
    *,
    rank: int | None = None,
    share: float | None = None,
    command: str = "",
    licence: str | None = None,
) -> Adapter:
    """Writes a fine-tuned model as a LoRA adapter of its base, in PEFT's files, and returns the adapter with its error.

    Matrices are replaced by truncated SVDs. Biases, norms and the head are kept whole. What PEFT cannot hold is left
    out, and the error counts it.

    Args:
      model: a Hugging Face folder, a LoRA adapter or a hub name.
      base: the checkpoint that the model was fine-tuned from.
      folder: a new or empty folder.
      rank: largest rank of a matrix.
      share: share of the norm of each matrix's change that is kept at least, from 0 to 1, by the smallest rank that
        does.
      command: the command to quote in the model card; empty for none.
      licence: licence of the adapter; None: that of the model and the base, see ``wsr.exchange.licences``.

    Raises:
      WsrError: if neither ``rank`` nor ``share`` is given, the model was not fine-tuned from the base, its licence is
        unclear, or ``folder`` is not empty.

    Example:
      >>> import tempfile, wsr
      >>> place, base, region = tempfile.mkdtemp(), wsr.load("tiny"), wsr.made_up_region(1)
      >>> wsr.export(base.with_params(region.members[0].load()), place + "/tuned")
      >>> adapter = wsr.extract(place + "/tuned", "tiny", place + "/adapter", rank=4)
      >>> max(factors.a.shape[1] for factors in adapter.task_vector.values())
      4
    """
    refuse_taken(Path(folder))
    origin = base if isinstance(base, Checkpoint) else load(base)
    incoming = read_incoming(str(model), origin)
    if rank is None and share is None and incoming.low_rank is None:
        raise WsrError("name the largest rank, or the share of the norm to keep: --rank=8 or --share=0.9")
    if share is not None and not 0 < share <= 1:
        raise WsrError(f"--share={share:g}: expected a number above 0 and up to 1")
    parents = {
        origin.name: licence_of(origin.name),
        str(model): licence_of(str(model), incoming.about.get("card")),
    }
    licences = Licences.of(parents, licence)
    head = _head(incoming)
    leaves, ours = flatten(incoming.params), flatten(origin.params)

    def change(path: str) -> Factors | np.ndarray | None:
        if incoming.low_rank is not None:
            return incoming.low_rank.get(path)
        return np.asarray(leaves[path], np.float32) - np.asarray(ours[path], np.float32)

    adapter = adapter_of(origin.model, change, rank=rank, share=share, head=head)
    card = adapter_card(str(model), origin.name, str(adapter), licences, title=Path(folder).name, command=command)
    write_adapter(
        origin.model,
        adapter.task_vector,
        ours.__getitem__,
        Path(folder),
        base_name=origin.name,
        head=head,
        card=card,
    )
    return adapter


def _head(incoming: Incoming) -> ClassifierHead | None:
    """Returns the head of the model as a part of the adapter; None where the model has none."""
    return stored_classifier(incoming.head, incoming.about) if incoming.head else None
