"""The README.md of an exported model: its members, their coefficients, its scores and the command that made it."""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

from wsr import __version__
from wsr.data.table import find, registered
from wsr.exchange.card_parts import TAG, code, front_matter, licence_section, made_by, plain, table
from wsr.exchange.licences import Licences, licences_of, on_hub
from wsr.exchange.scores import scores_of
from wsr.models.model import Model
from wsr.runtime.printable import printable
from wsr.store import MemberRecord, Store

LEVEL = 0.95
"""Level of the intervals of scores."""
OWN_HEAD = "its own head"
"""How the score of a member's own head is told from that of a probe."""


def model_card(
    store: Store,
    members: Mapping[str, float | None],
    *,
    title: str,
    method: str,
    command: str,
    classifier: bool = False,
    adapter: str = "",
    licence: str | None = None,
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
      licence: licence of the model; None: that of its parents, see ``wsr.exchange.licences``.

    Raises:
      WsrError: if the licence of a parent is unclear, or parents have different ones, and ``licence`` is None.
    """
    records = [store.record(name) for name in members]
    licences = licences_of(store, records, licence)
    scores = _all_scores(store, records, members)
    front = _front(
        store, records, scores, title=title, licence=licences.own, classifier=classifier, adapter=bool(adapter)
    )
    return "\n".join(
        [
            *front,
            f"# {plain(title)}",
            "",
            f"{method[:1].upper()}{method[1:]}. Made with wsr {__version__}.",
            "",
            f"- base: {code(store.base_name)}, sha256 {code(store.base_sha256)}",
            *([f"- LoRA adapter in PEFT's files, {plain(adapter)}"] if adapter else []),
            f"- architecture: {code(store.model_name)}, features pooled by {code(store.model_config.get('pooling'))}",
            "",
            *_members(records, members),
            "## Scores",
            "",
            *_scores(scores),
            *made_by(command),
            *licence_section(licences),
        ]
    )


def adapter_card(model: str, base: str, kept: str, licences: Licences, *, title: str, command: str) -> str:
    """Returns the card of a LoRA adapter that was made of a fine-tuned model.

    Args:
      model: folder or hub name of the fine-tuned model.
      base: name of its base.
      kept: what the adapter keeps of the model.
      licences: its licence and those of the model and the base.
      title: title of the card.
      command: command that writes the folder again; empty for none.
    """
    about: dict[str, Any] = {"library_name": "peft"}
    if on_hub(base):
        about |= {"base_model": base, "base_model_relation": "adapter"}
    if licences.own is not None:
        about["license"] = licences.own
    lines = [*front_matter({**about, "tags": [TAG, "lora"]}), f"# {plain(title)}", ""]
    lines += [f"LoRA adapter of {code(model)}, which was fine-tuned from {code(base)}. Made with wsr {__version__}."]
    lines += ["", f"- {plain(kept)}", ""]
    return "\n".join([*lines, *made_by(command), *licence_section(licences)])


def _front(
    store: Store,
    records: Sequence[MemberRecord],
    scores: Sequence[Mapping[str, Any]],
    *,
    title: str,
    licence: str | None,
    classifier: bool,
    adapter: bool,
) -> list[str]:
    """Returns the metadata that the hub reads."""
    sources = [str(record.hyperparameters.get("source", "")) for record in records]
    parents = list(dict.fromkeys(filter(on_hub, sources)))
    about: dict[str, Any] = {"library_name": "peft" if adapter else "transformers"}
    if adapter and on_hub(store.base_name):
        # The hub shows an adapter below the model that it is added to.
        about |= {"base_model": store.base_name, "base_model_relation": "adapter"}
    elif len(records) > 1 and parents:
        # On the hub, the parents of a merge are the merged models.
        about |= {"base_model": parents, "base_model_relation": "merge"}
    elif on_hub(store.base_name):
        about |= {"base_model": store.base_name, "base_model_relation": "finetune"}
    if licence is not None:
        about["license"] = licence
    if datasets := _datasets(records):
        about["datasets"] = datasets
    task = _task(store.model, classifier)
    about["pipeline_tag"] = task
    about["tags"] = [TAG, *(["merge"] if len(records) > 1 else []), *(["lora"] if adapter else [])]
    if scores:
        about["model-index"] = [{"name": printable(title), "results": [_result(row, task) for row in scores]}]
    return front_matter(about)


def _task(model: Model, classifier: bool) -> str:
    """Returns the hub's name of what the model is for."""
    images = model.reads == "images"
    if classifier:
        return "image-classification" if images else "text-classification"
    if model.token_losses is not None:
        return "text-generation"
    return "image-feature-extraction" if images else "feature-extraction"


def _datasets(records: Sequence[MemberRecord]) -> list[str]:
    """Returns the hub names of the datasets that members were fine-tuned on; those of imported ones by their cards."""
    found: list[str] = []
    for record in records:
        if "source" in record.hyperparameters:
            found += (record.hyperparameters.get("card") or {}).get("datasets", [])
        elif record.dataset in registered():
            path = str(getattr(find(record.dataset).source, "path", ""))
            found += [path] if on_hub(path) else []
    return list(dict.fromkeys(found))


def _result(row: Mapping[str, Any], task: str) -> dict[str, Any]:
    """Returns a score as an entry of the hub's model-index."""
    interval = {} if row["low"] is None else {"interval": [row["low"], row["high"]], "level": LEVEL}
    return {
        "task": {"type": task, **({"name": row["probe"]} if row.get("probe") else {})},
        "dataset": {"name": row["dataset"], "type": row["dataset"], "split": "test"},
        "metrics": [
            {
                "type": row["metric"],
                "value": row["value"],
                "name": f"{row['metric']} on {row['n']} texts, {row['how']}",
                "args": {"texts": row["n"], **interval},
            }
        ],
    }


def _members(records: Sequence[MemberRecord], members: Mapping[str, float | None]) -> list[str]:
    if not records:
        return ["It contains no member: it is the base.", ""]
    whole = all(own is not None for own in members.values())
    rows = [
        (
            code(record.name),
            "–" if members[record.name] is None else f"{members[record.name]:.6g}",
            code(record.dataset),
            code(record.content_sha256),
        )
        for record in records
    ]
    formula = ["Each weight is `base + sum_k coefficient_k (member_k - base)`.", ""] if whole else []
    return ["## Members", "", *formula, *table(("member", "coefficient", "fine-tuned on", "sha256"), rows)]


def _all_scores(
    store: Store, records: Sequence[MemberRecord], members: Mapping[str, float | None]
) -> list[dict[str, Any]]:
    """Returns the rows of the model's scores, each with the ends of its interval, or None."""
    coefficients = {name: own for name, own in members.items() if own is not None}
    rows = [dict(row) for row in scores_of(store, coefficients)] if len(coefficients) == len(members) else []
    alone = records[0] if len(records) == 1 and members[records[0].name] == 1 else None
    score = alone.metrics.get("test_score") if alone else None
    if alone and score is not None and math.isfinite(score):
        own = {"probe": OWN_HEAD, "metric": str(alone.hyperparameters.get("metric", "score")), "how": "exact"}
        rows.append({**own, "dataset": alone.dataset, "value": score, "n": int(alone.metrics.get("test_texts", 0))})
    return [{**row, **dict(zip(("low", "high"), _interval(row), strict=True))} for row in rows]


def _interval(row: Mapping[str, Any]) -> tuple[float, float] | tuple[None, None]:
    """Returns the interval of a score: its own, or Wilson's for an accuracy (Wilson 1927, JASA 22)."""
    if row.get("low") is not None:
        return float(row["low"]), float(row["high"])
    if row["metric"] != "accuracy" or not row["n"] or not 0 <= row["value"] <= 1:
        return None, None
    share, texts = float(row["value"]), int(row["n"])
    squared = NormalDist().inv_cdf((1 + LEVEL) / 2) ** 2 / texts
    middle = (share + squared / 2) / (1 + squared)
    half = math.sqrt(squared * (share * (1 - share) + squared / 4)) / (1 + squared)
    return middle - half, middle + half


def _scores(scores: Sequence[Mapping[str, Any]]) -> list[str]:
    if not scores:
        return ["None are recorded for this model; `wsr evaluate` measures them.", ""]
    rows = [
        (
            code(row["dataset"]),
            code(f"{row['metric']}, {OWN_HEAD}" if row.get("probe") == OWN_HEAD else row["metric"]),
            f"{row['value']:.4f}",
            "–" if row["low"] is None else f"{row['low']:.4f} to {row['high']:.4f}",
            str(row["n"]),
            code(row["how"]),
        )
        for row in scores
    ]
    return table(("dataset", "metric", "value", "95 % interval", "texts", "obtained"), rows)
