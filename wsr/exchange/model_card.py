"""The README.md of an exported model: its members, their coefficients, its scores and the command that made it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wsr import __version__
from wsr.exchange.scores import scores_of
from wsr.models.huggingface.hub import is_name
from wsr.runtime.printable import printable
from wsr.store import MemberRecord, Store


def model_card(
    store: Store,
    members: Mapping[str, float | None],
    *,
    title: str,
    method: str,
    command: str,
    classifier: bool = False,
    adapter: str = "",
) -> str:
    """Returns the text of the card: front matter in YAML for Hugging Face, then Markdown.

    Args:
      store: the store the model comes from.
      members: coefficient of each member in the model; None if the method has no coefficients.
      title: title of the card.
      method: phrase that says how the model was made.
      command: command that writes the exported folder again.
      classifier: whether the model includes a head.
      adapter: what a LoRA adapter keeps of the model, if the folder is one; empty for a whole model.
    """
    records = [store.record(name) for name in members]
    coefficients = {name: own for name, own in members.items() if own is not None}
    scores = scores_of(store, coefficients) if len(coefficients) == len(members) else []
    return "\n".join(
        [
            *_front_matter(store, records, classifier, adapter=bool(adapter)),
            f"# {_text(title)}",
            "",
            f"{method[:1].upper()}{method[1:]}. Made with wsr {__version__}.",
            "",
            f"- base: {_code(store.base_name)}, sha256 {_code(store.base_sha256)}",
            *([f"- LoRA adapter in PEFT's files, {_text(adapter)}"] if adapter else []),
            f"- architecture: {_code(store.model_name)}, features pooled by {_code(store.model_config.get('pooling'))}",
            "",
            *_members(records, members),
            "## Scores",
            "",
            *_scores(records, members, scores),
            "## Made by",
            "",
            "```sh",
            printable(command),
            "```",
            "",
            "## Licence",
            "",
            "None is set here: the licences of the base, the members and their data apply. Add `license:` at the top.",
            "",
        ]
    )


def adapter_card(model: str, base: str, kept: str, *, title: str, command: str) -> str:
    """Returns the card of a LoRA adapter that was made of a fine-tuned model.

    Args:
      model: folder or hub name of the fine-tuned model.
      base: name of its base.
      kept: what the adapter keeps of the model.
      title: title of the card.
      command: command that writes the folder again; empty for none.
    """
    hub = [f"base_model: {json.dumps(base)}", "base_model_relation: adapter"] if _on_hub(base) else []
    lines = ["---", "library_name: peft", *hub, "tags:", "- lora", "---", "", f"# {_text(title)}", ""]
    lines += [f"LoRA adapter of {_code(model)}, which was fine-tuned from {_code(base)}. Made with wsr {__version__}."]
    lines += ["", f"- {_text(kept)}", ""]
    return "\n".join(lines + (["## Made by", "", "```sh", printable(command), "```", ""] if command else []))


def _front_matter(
    store: Store, records: Sequence[MemberRecord], classifier: bool, *, adapter: bool = False
) -> list[str]:
    lines = ["---", f"library_name: {'peft' if adapter else 'transformers'}"]
    sources = [str(record.hyperparameters.get("source", "")) for record in records]
    if adapter and _on_hub(store.base_name):
        # The hub shows an adapter below the model that it is added to.
        lines += [f"base_model: {json.dumps(store.base_name)}", "base_model_relation: adapter"]
    elif len(records) > 1 and all(map(_on_hub, sources)):
        # On the hub, the parents of a merge are the merged models.
        lines += ["base_model:", *(f"- {json.dumps(source)}" for source in sources), "base_model_relation: merge"]
    elif _on_hub(store.base_name):
        lines += [f"base_model: {json.dumps(store.base_name)}", "base_model_relation: finetune"]
    lines += [f"pipeline_tag: {'text-classification' if classifier else 'feature-extraction'}"]
    lines += ["tags:", "- weight-space-regions", *(["- merge"] if len(records) > 1 else [])]
    lines += [*(["- lora"] if adapter else []), "---", ""]
    return lines


def _on_hub(name: str) -> bool:
    """Returns whether a name may be that of a model on the hub, which accepts no others: not a folder."""
    return is_name(name) and "/" in name and not Path(name).exists()


def _members(records: Sequence[MemberRecord], members: Mapping[str, float | None]) -> list[str]:
    if not records:
        return ["It contains no member: it is the base.", ""]
    whole = all(own is not None for own in members.values())
    rows = [
        (
            _code(record.name),
            "–" if members[record.name] is None else f"{members[record.name]:.6g}",
            _code(record.dataset),
            _code(record.content_sha256),
        )
        for record in records
    ]
    formula = ["Each weight is `base + sum_k coefficient_k (member_k - base)`.", ""] if whole else []
    return ["## Members", "", *formula, *_table(("member", "coefficient", "fine-tuned on", "sha256"), rows)]


def _scores(
    records: Sequence[MemberRecord], members: Mapping[str, float | None], scores: Sequence[Mapping[str, Any]]
) -> list[str]:
    rows = [
        (_code(row["dataset"]), _code(row["metric"]), f"{row['value']:.4f}", str(row["n"]), _code(row["how"]))
        for row in scores
    ]
    alone = records[0] if len(records) == 1 and members[records[0].name] == 1 else None
    if alone and "test_score" in alone.metrics:
        metric = f"{alone.hyperparameters.get('metric', 'score')}, its own head"
        texts = f"{alone.metrics.get('test_texts', 0):.0f}"
        rows += [(_code(alone.dataset), _code(metric), f"{alone.metrics['test_score']:.4f}", texts, _code("exact"))]
    if not rows:
        return ["None are recorded for this model; `wsr evaluate` measures them.", ""]
    return _table(("dataset", "metric", "value", "texts", "obtained"), rows)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [*(f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows)), ""]


def _code(text: Any) -> str:
    """Returns text as inline code, in which Markdown is not interpreted: names may come from anywhere."""
    return f"`{printable(str(text)).replace('`', chr(39)).replace('|', chr(92) + '|')}`"


def _text(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>#|" else letter for letter in printable(text))
