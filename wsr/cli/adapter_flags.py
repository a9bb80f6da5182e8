"""The flags by which a verb writes a LoRA adapter in place of a whole model, and the writing."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from wsr.cli.flags import Flag, Values

if TYPE_CHECKING:
    from wsr.exchange.adapter import Change
    from wsr.models.huggingface.heads import ClassifierHead
    from wsr.store import Store

FLAGS = (
    Flag(
        "as",
        "What is written: the whole model, or a LoRA adapter in PEFT's files.",
        "model",
        allowed=("model", "adapter"),
    ),
    Flag(
        "rank",
        "Largest rank of the adapter, by a truncated SVD; the error is printed.",
        kind=int,
        at_least=1,
        otherwise="exact: the ranks of the members add up",
    ),
)


def wanted(values: Values) -> bool:
    """Returns whether the call asks for an adapter; raises ``WsrError`` for a rank without one."""
    from wsr.errors import WsrError

    adapter = values["as"].value == "adapter"
    if values.rank is not None and not adapter:
        raise WsrError("--rank is the rank of an adapter; add --as=adapter")
    return adapter


def write(
    values: Values,
    store: "Store",
    change: "Change",
    card: Callable[..., str],
    *,
    head: "ClassifierHead | None" = None,
    hint: str = "",
) -> None:
    """Writes an adapter of the store's base to ``--to`` and prints its error.

    Args:
      values: the flags.
      store: the store.
      change: the change of each leaf.
      card: returns the model card; its argument ``adapter`` says what the adapter keeps.
      head: head of the adapted class.
      hint: see ``adapter_of``.
    """
    from pathlib import Path

    from wsr.exchange.adapter import adapter_of
    from wsr.geometry.trees import flatten
    from wsr.models.huggingface.peft_write import write_adapter

    adapter = adapter_of(store.model, change, rank=values.rank, head=head, hint=hint)
    write_adapter(
        store.model,
        adapter.task_vector,
        flatten(store.base()).__getitem__,
        Path(values.to),
        base_name=store.base_name,
        head=head,
        card=card(adapter=str(adapter)),
    )
    print(f"adapter of {adapter}")
