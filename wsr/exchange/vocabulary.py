"""Models of different vocabularies under one: rows of token tables are matched by the strings of the tokens."""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wsr.errors import WsrError
from wsr.exchange.agreement import with_defaults
from wsr.exchange.door import Brought
from wsr.exchange.tokens import tokenizer_json, tokenizer_of, vocabulary
from wsr.runtime.model_folder import companions, read_json, refuse_links, sentencepiece_file
from wsr.runtime.tensor_files import FLOATS, Tensor

_OF_TOKENS = re.compile(
    r"(^|\.)((embed_tokens|word_embeddings|token_embedding|wte|shared|embed_in|embed_out|lm_head|vocab_projector|"
    r"generator_lm_head|decoder)\.(weight|bias)|predictions\.bias)$"
)
"""Names of the tensors that have one row for each token."""
_ID = re.compile(r"[a-z_]+_token_id$")
_TOKENIZER = re.compile(r"tokenizer.*|vocab\..*|merges\.txt|.*\.model|special_tokens_map\.json|added_tokens\.json")


@dataclass(frozen=True)
class Vocabulary:
    """The vocabulary of a merge."""

    tokens: Mapping[int, str]
    """Its tokens by row."""
    rows: int
    """Number of rows; some may have no token."""
    source: Path
    """Folder of the tokenizer."""
    added: tuple[Mapping[str, Any], ...] = ()
    """Entries of a tokenizer.json for tokens that the source lacks."""


@dataclass(frozen=True, eq=False)
class RowsTensor(Tensor):
    """A tensor whose rows are those of others, or means of them."""

    sources: tuple[tuple[tuple[Tensor, int], ...], ...]
    """For each row, tensors and the row of each that are averaged."""

    def will_read(self, start: int, entries: int) -> None:
        """Does nothing: the rows lie in several places."""

    def read(self, start: int, out: np.ndarray) -> None:
        """Fills the flat array ``out`` with entries from index ``start`` on."""
        width = self.size // len(self.sources)
        first, last = start // width, -(-(start + out.size) // width)
        rows = np.empty((last - first, width), out.dtype)
        for own, row in zip(self.sources[first:last], rows, strict=True):
            parts = np.empty((len(own), width), out.dtype)
            for (tensor, at), part in zip(own, parts, strict=True):
                tensor.read(at * width, part)
            row[:] = parts[0] if len(own) == 1 else parts.mean(axis=0, dtype=np.float64)
        out[:] = rows.reshape(-1)[start - first * width :][: out.size]


def under_one_vocabulary(
    models: Mapping[str, Brought], choice: str, *, based: bool
) -> tuple[dict[str, Brought], Vocabulary]:
    """Returns the models with token tables of one vocabulary, and the vocabulary.

    A token that a model lacks has the row of the base, if that has it, and else the mean row of the models that have
    it. Rows without a token are those of the first model.

    Args:
      models: the models by name; the first is the base, or the first member.
      choice: ``base`` for the vocabulary of the first model, ``union`` for that and the added tokens of the others, or
        a folder with a tokenizer.
      based: whether the first model is a base.

    Raises:
      WsrError: if a model has no tokenizer or no token table, its tokens are ambiguous, or no model has a token of the
        vocabulary.
    """
    models = {name: replace(model, config=_with_size(model.config)) for name, model in models.items()}
    own = {name: _tokens(model) for name, model in models.items()}
    tables = {name: _tables(model) for name, model in models.items()}
    first = next(iter(models))
    target = _target(choice, models, own, next(iter(tables[first].values())).shape[0])
    having = {token: [name for name in models if token in own[name]] for token in target.tokens.values()}
    unknown = [token for token, names in having.items() if not names]
    if unknown:
        raise WsrError(
            f"--tokenizer={choice}: no model has {', '.join(map(repr, unknown[:3]))} ({len(unknown)} tokens)"
        )

    def sources(name: str, tensor: str, row: int) -> tuple[tuple[Tensor, int], ...]:
        token = target.tokens.get(row)
        if token is None:
            table = tables[first][tensor]
            return ((table, min(row, table.shape[0] - 1)),)
        if token in own[name]:
            givers = [name]
        elif based and token in own[first]:
            givers = [first]
        else:
            givers = having[token]
        return tuple((tables[giver][tensor], own[giver][token]) for giver in givers)

    found = {}
    for name, model in models.items():
        if tables[name].keys() != tables[first].keys():
            raise WsrError(f"{model} and {models[first]} have other token tables: {', '.join(tables[name])}")
        rows = {
            tensor: RowsTensor(
                table.file,
                table.dtype,
                (target.rows, *table.shape[1:]),
                0,
                tuple(sources(name, tensor, row) for row in range(target.rows)),
            )
            for tensor, table in tables[name].items()
        }
        config = None if model.config is None else _renumbered(model.config, own[name], target)
        found[name] = replace(model, tensors={**model.tensors, **rows}, config=config)
    return found, target


def write_vocabulary(target: Vocabulary, first: Brought, folder: Path) -> None:
    """Writes the tokenizer of a merge into a folder that has the files of the first model.

    Args:
      target: the vocabulary.
      first: the first model, as ``open_model`` opened it.
      folder: the folder.
    """
    if target.source != first.transformer:
        _remove_tokenizer(folder)
        for name, path in companions(target.source).items():
            if _TOKENIZER.fullmatch(name):
                shutil.copyfile(path, folder / name)
    if target.added:
        if not (folder / "tokenizer.json").exists():  # a SentencePiece model takes no more tokens
            tokenizer = tokenizer_of(target.source)
            _remove_tokenizer(folder)
            tokenizer.save_pretrained(folder)
        content = read_json(folder / "tokenizer.json")
        content["added_tokens"] = [*(content.get("added_tokens") or []), *target.added]
        (folder / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False, indent=2), encoding="utf-8")
    path = folder / "generation_config.json"
    if path.exists():
        content = _renumbered(read_json(path), _tokens(first), target)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _remove_tokenizer(folder: Path) -> None:
    for file in [own for own in folder.iterdir() if _TOKENIZER.fullmatch(own.name)]:
        file.unlink()


def _tokens(model: Brought) -> dict[str, int]:
    """Returns the row of each token of a model."""
    numbered = vocabulary(model.transformer) if model.path.is_dir() else None
    if numbered is None:
        if sentencepiece_file(model.transformer) is not None:
            tokenizer_of(model.transformer)  # says why it cannot be read
        raise WsrError(f"{model}: no tokenizer, so the rows of its tokens are not known; --tokenizer needs one")
    found = {token: number for number, token in numbered.items()}
    if len(found) < len(numbered):
        twice = next(token for number, token in numbered.items() if found[token] != number)
        raise WsrError(f"{model}: the token {twice!r} has two rows; which one counts is not known")
    return found


def _tables(model: Brought) -> dict[str, Tensor]:
    """Returns the tensors of a model that have one row for each token."""
    size = _size(model.config or {})
    found = {
        name: own
        for name, own in model.tensors.items()
        if _OF_TOKENS.search(name) and own.dtype in FLOATS and own.shape[:1] == (size,)
    }
    needed = max(_tokens(model).values()) + 1
    if not found or needed > size:
        raise WsrError(
            f"{model}: expected token tables of {size} rows (vocab_size) for {needed} tokens, found "
            f"{', '.join(found) or 'none'}"
        )
    return found


def _size(config: Mapping[str, Any]) -> int:
    """Returns the number of rows for tokens; 0 if the config does not say it."""
    return int(config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size") or 0)


def _with_size(config: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Returns a config that says the number of rows: SigLIP's on the hub leave it out where it is the default."""
    size = 0 if config is None or _size(config) else _size(with_defaults(config)[0])
    if config is None or not size:
        return config
    text = config.get("text_config")
    if isinstance(text, Mapping):
        return {**config, "text_config": {**text, "vocab_size": size}}
    return {**config, "vocab_size": size}


def _target(choice: str, models: Mapping[str, Brought], own: Mapping[str, Mapping[str, int]], rows: int) -> Vocabulary:
    first, *others = models
    tokens = {number: token for token, number in own[first].items()}
    if choice == "base":
        return Vocabulary(tokens, rows, models[first].transformer)
    if choice != "union":
        refuse_links(Path(choice))
        numbered = vocabulary(Path(choice)) if Path(choice).is_dir() else None
        if numbered is None:
            raise WsrError(f"--tokenizer={choice}: expected base, union or a folder with a tokenizer")
        return Vocabulary(numbered, max(numbered) + 1, Path(choice))
    added: list[Mapping[str, Any]] = []
    for name in others:
        for entry in _additions(models[name], own[first], own[name]):
            if all(entry["content"] != there["content"] for there in added):
                added.append({**entry, "id": max(own[first].values()) + 1 + len(added)})
    tokens |= {int(entry["id"]): str(entry["content"]) for entry in added}
    return Vocabulary(tokens, max(rows, max(tokens) + 1), models[first].transformer, tuple(added))


def _additions(model: Brought, ours: Mapping[str, int], theirs: Mapping[str, int]) -> Iterator[Mapping[str, Any]]:
    """Yields the entries of tokenizer.json for a model's tokens that the first model lacks."""
    lacking = [token for token in theirs if token not in ours]
    content = tokenizer_json(model.transformer) or {}
    entries = {own["content"]: own for own in content.get("added_tokens") or ()}
    others = [token for token in lacking if token not in entries]
    if others:
        raise WsrError(
            f"{model}: {', '.join(map(repr, others[:3]))} ({len(others)} tokens) are no added tokens of its tokenizer, "
            "so a union would split texts otherwise; choose --tokenizer=base or a folder with a tokenizer"
        )
    yield from (entries[token] for token in sorted(lacking, key=theirs.__getitem__))


def _renumbered(content: Mapping[str, Any], tokens: Mapping[str, int], target: Vocabulary) -> dict[str, Any]:
    """Returns a config with the target's number of rows and its numbers of special tokens."""
    ours = {number: token for token, number in tokens.items()}
    rows = {token: number for number, token in target.tokens.items()}

    def renumber(value: Any) -> Any:
        if isinstance(value, list):
            return [renumber(own) for own in value]
        return rows.get(ours.get(value, ""), value) if type(value) is int else value

    found = {name: renumber(value) if _ID.fullmatch(name) else value for name, value in content.items()}
    if isinstance(found.get("text_config"), dict):
        found["text_config"] = _renumbered(found["text_config"], tokens, target)
    return found | ({"vocab_size": target.rows} if "vocab_size" in found else {})
