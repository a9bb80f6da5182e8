"""The store of a population on disk: members are added once, read many times, and never changed."""

import contextlib
import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wsr.errors import WsrError
from wsr.geometry.low_rank import LowRank
from wsr.geometry.trees import nest
from wsr.runtime import buckets, strict_json
from wsr.runtime.model_folder import BASE_HEAD, shared_files
from wsr.store import checkpoint, encoder_part, refusals
from wsr.store.base_files import files_of_base
from wsr.store.encoder_part import DTypeOnDisk
from wsr.store.gram_file import GramFile
from wsr.store.leaves import (
    Leaves,
    Table,
    float32_leaves,
    json_sha256,
    table_differences,
    table_of,
)
from wsr.store.member import is_name, member_folders, read_member
from wsr.store.record import (
    MemberRecord,
    Quarantined,
    check_name,
    read_quarantined,
    record_to_json,
    to_plain_json,
)
from wsr.store.results import Results
from wsr.store.seal import sealed
from wsr.store.sketch_file import SketchFile
from wsr.store.verification import damaged_parts, parts_of, summary_of
from wsr.types import Params

if TYPE_CHECKING:
    from wsr.models.model import Checkpoint, Model


class Store:
    """A population on disk. Create one with ``Store.create_for``, or open one with ``Store.open``.

    The folder of a store holds:

        store.json                 a readable copy of facts in base/: architecture, configuration, hashes
        base/                      the parameters that all members were fine-tuned from, and in companions/ the
                                   config and tokenizer of the base
        members/<name>/            one immutable checkpoint per member
        quarantine/<name>.json     members whose training became non-finite
        gram.json                  inner products of task vectors computed so far
        sketches/                  sketches of task vectors computed so far
        points/, scores.jsonl      results of evaluations
        damaged/                   parts that ``wsr verify --repair`` set aside
        writing/                   unfinished writes, each under a unique name

    Example:
      A store of one member that equals the base.

      >>> import tempfile, wsr
      >>> from wsr.store.record import MemberRecord
      >>> tiny = wsr.load("tiny")
      >>> store = wsr.Store.create_for(tempfile.mkdtemp() + "/store", tiny)
      >>> record = MemberRecord(
      ...     name="mnli-0", dataset="mnli", family="nli", seed=0, mode="full", size=500, hyperparameters={},
      ...     metrics={}, jaxlib="", device_kind="cpu", threads=1, group_size=1,
      ... )
      >>> _ = store.save(record, tiny.params, head={})
      >>> store.names(), store.record("mnli-0").architecture
      (['mnli-0'], 'tiny')
    """

    def __init__(self, path: Path, about: Mapping[str, Any], base_table: Table):
        self.path = path
        self.model_name: str = about["model_name"]
        self.model_config: Mapping[str, Any] = about["model_config"]
        self.base_name: str = about["base_name"]
        self.base_sha256: str = about["base_sha256"]
        self.config_sha256: str = about["config_sha256"]
        self.created: str = about["created"]
        self.tokenizer: Mapping[str, str] = about.get("tokenizer", {})
        """Fingerprint of the base's tokenizer or image processor (``wsr.data.fingerprint``); empty if unknown."""
        self._base_table = base_table

    def __repr__(self) -> str:
        members = len(self.names())
        return (
            f"Store {self.where}: {members} member{'s' * (members != 1)} fine-tuned from {self.base_name}\n"
            f"  {self.model_name}, base {self.base_sha256[:12]}, created {self.created}"
        )

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        model_name: str,
        model_config: Mapping[str, Any],
        base_name: str,
        base_params: Params,
        tokenizer: Mapping[str, str] | None = None,
        companions: Mapping[str, Path] | None = None,
    ) -> "Store":
        """Creates a store, or opens an existing one of the same model and base.

        Args:
          path: the store: a folder or a URL.
          model_name: name of the architecture.
          model_config: configuration of the architecture.
          base_name: name or folder that ``wsr.load`` loads the base from.
          base_params: parameters of the base, float32.
          tokenizer: its fingerprint, see ``wsr.data.fingerprint.fingerprint``; None does not compare it.
          companions: files of the base beside its weights, by relative path; the store keeps a copy of them.

        Raises:
          WsrError: if ``path`` holds something other than a store, or a store of another base; the message names
            every difference.
        """
        path = _brought(path)
        leaves = float32_leaves(base_params, "base")
        if not leaves:
            raise WsrError("the base cannot be stored: it has no parameters")
        table = table_of(leaves)
        config = to_plain_json(model_config, "model_config")
        about = {
            "model_name": model_name,
            "model_config": config,
            "base_name": base_name,
            "base_sha256": json_sha256(table),
            "config_sha256": json_sha256(config),
            "tokenizer": dict(tokenizer or {}),
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        if not (path / "base").exists():
            refusals.refuse_foreign_folder(path)
            refusals.refuse_other_members(path, about["base_sha256"])
            checkpoint.publish(path / "base", leaves, table, about, path / "writing", companions=companions)
        store = cls.open(path)
        refusals.refuse_other_base(store, store._base_table, about, table)
        checkpoint.sweep(store._staging)
        return store

    @classmethod
    def create_for(cls, path: str | Path, checkpoint: "Checkpoint") -> "Store":
        """Creates a store for models fine-tuned from a checkpoint, or opens an existing one.

        Args:
          path: the store: a folder or a URL.
          checkpoint: the base of all members.

        Raises:
          WsrError: if ``path`` holds something other than a store, or a store of another base.

        Example:
          >>> import tempfile, wsr
          >>> wsr.Store.create_for(tempfile.mkdtemp() + "/store", wsr.load("tiny")).base_name
          'tiny'
        """
        from wsr.data.fingerprint import fingerprint

        with contextlib.ExitStack() as stack:
            files = {} if cls.is_at(path) else stack.enter_context(files_of_base(checkpoint))
            return cls.create(
                path,
                model_name=checkpoint.model.name,
                model_config=checkpoint.model.config,
                base_name=checkpoint.name,
                base_params=checkpoint.params,
                tokenizer=fingerprint(checkpoint.processor),
                companions=files,
            )

    @classmethod
    def open(cls, path: str | Path) -> "Store":
        """Opens an existing store.

        Args:
          path: the store: a folder or a URL.

        Raises:
          WsrError: if there is no store, or its base is damaged.
        """
        path = _brought(path)
        if not (path / "base").is_dir():
            if member_folders(path):
                raise WsrError(
                    f"{buckets.where_is(path)} has members but no folder base/; wsr train or wsr import with their "
                    "original --base writes it again"
                )
            raise WsrError(f"{buckets.where_is(path)} is not a store: it has no folder base/")
        about, table = checkpoint.read_about(path / "base")
        store = cls(path, about, table)
        store._write_summary(summary_of(about))
        return store

    @classmethod
    def is_at(cls, path: str | Path) -> bool:
        """Returns whether there is a store at ``path``, a folder or a URL."""
        return (_brought(path) / "base").is_dir()

    @property
    def where(self) -> str:
        """The URL of the store if it is in a bucket, else its path."""
        return buckets.where_is(self.path)

    @cached_property
    def _base(self) -> Params:
        leaves = checkpoint.read(self.path / "base")
        for leaf in leaves.values():
            leaf.flags.writeable = False  # shared by all callers
        return nest(leaves)

    def base(self) -> Params:
        """Returns the parameters of the base: float32, verified when first read, and read-only."""
        return self._base

    def save(
        self,
        record: MemberRecord,
        params: Params,
        head: Params,
        *,
        dtype: DTypeOnDisk = "float32",
        companions: Mapping[str, Path] | None = None,
    ) -> MemberRecord:
        """Stores a member atomically; storing the same member again changes nothing.

        Args:
          record: how the member was trained.
          params: parameters of its encoder, float32.
          head: its head, float32.
          dtype: ``float32``, or ``bfloat16_task_vector`` to halve the disk space; each entry of the task vector is
            then off by at most 0.4 %. (Weights in bfloat16 would lose the task vector itself.)
          companions: files to keep with the member, such as its chat template, by relative path.

        Returns:
          The stored record, with the fields that the store fills in.

        Raises:
          WsrError: if another member has this name; the parameters are not float32, not finite or not of the form of
            the base; or the record names another base.
        """
        check_name(record.name)
        encoder = float32_leaves(params, f"member {record.name!r}")
        form = {path: {"dtype": "float32", "shape": list(leaf.shape)} for path, leaf in encoder.items()}
        refusals.refuse_other_form(self.path, record.name, table_differences(form, self._base_table))
        return self._save(record, encoder_part.whole_on_disk(encoder, self.base, dtype), head, companions)

    def save_low_rank(
        self,
        record: MemberRecord,
        task_vector: LowRank,
        head: Params,
        *,
        companions: Mapping[str, Path] | None = None,
    ) -> MemberRecord:
        """Stores a member as the low-rank factors of its task vector.

        Args:
          record: how the member was trained.
          task_vector: the factors of each leaf that changed, float32.
          head: its head, float32.
          companions: files to keep with the member, such as its chat template, by relative path.

        Returns:
          The stored record, with the fields that the store fills in.

        Raises:
          WsrError: in the cases of ``save``, or if a product of factors does not fit a matrix of the base.
        """
        check_name(record.name)
        leaves = float32_leaves(nest(encoder_part.factors_on_disk(task_vector)), f"member {record.name!r}")
        refusals.refuse_other_form(self.path, record.name, refusals.misfits(task_vector, self._base_table))
        return self._save(record, leaves, head, companions, version=checkpoint.FORMAT_OF_FACTORS)

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str) or not is_name(name):
            return False
        buckets.bring_marks(self.path / "members", checkpoint.METADATA_FILE, [name])
        return self._folder(name).is_dir()

    def names(self) -> list[str]:
        """Returns the names of all members, sorted; of a store in a bucket, the current ones."""
        buckets.bring_marks(self.path / "members", checkpoint.METADATA_FILE)
        return [folder.name for folder in member_folders(self.path)]

    def records(self) -> list[MemberRecord]:
        """Returns the records of all members, sorted by name."""
        return [self.record(name) for name in self.names()]

    def record(self, name: str) -> MemberRecord:
        """Returns how a member was trained.

        Raises:
          WsrError: if there is no such member, or its metadata is damaged.
        """
        return self._about(name)[0]

    def load(self, name: str, *, verify: bool = True) -> tuple[Params, Params]:
        """Returns the encoder and the head of a member as float32 NumPy arrays.

        Args:
          name: the member.
          verify: whether the hashes of all leaves are compared.

        Raises:
          WsrError: if there is no such member, or it is damaged.
        """
        _, table = self._about(name)
        leaves = checkpoint.read(self._folder(name), verify=verify)
        encoder = encoder_part.dense(leaves, table, self.base, self._base_table)
        return nest(encoder), nest(encoder_part.of_part(leaves, "head"))

    def load_factors(self, name: str) -> LowRank | None:
        """Returns the factors of a member's task vector, verified; None if the member is stored whole.

        Args:
          name: the member.

        Raises:
          WsrError: if there is no such member, or it is damaged.
        """
        _, table = self._about(name)
        if not encoder_part.is_low_rank(table):
            return None
        names = [path for path in table if path.startswith("low_rank/")]
        return encoder_part.factors_of(checkpoint.read(self._folder(name), names))

    def head(self, name: str) -> Params:
        """Returns the head of a member as float32 NumPy arrays, verified, without reading the encoder."""
        _, table = self._about(name)
        leaves = checkpoint.read(self._folder(name), [path for path in table if path.startswith("head/")])
        return nest(encoder_part.of_part(leaves, "head"))

    def load_leaf(self, name: str, path: str) -> np.ndarray:
        """Returns one leaf of a member's encoder, such as ``layers/0/query/bias``, verified; reads no other leaf."""
        return self.load_leaves(name, [path])[path]

    def load_leaves(self, name: str, paths: Sequence[str]) -> dict[str, np.ndarray]:
        """Returns some leaves of a member's encoder, verified; reads no other leaf.

        Args:
          name: the member.
          paths: the leaves, such as ``layers/0/query/bias``.

        Returns:
          The leaves in float32, by path.

        Raises:
          WsrError: if there is no such member or leaf, or a leaf is damaged.
        """
        _, table = self._about(name)
        unknown = [path for path in paths if path not in self._base_table]
        if unknown:
            raise WsrError(
                f"{self.path}: no such leaf: {', '.join(unknown)}; expected a path such as {min(self._base_table)}"
            )
        leaves = checkpoint.read(self._folder(name), encoder_part.names_on_disk(table, paths))
        return encoder_part.dense(leaves, table, self.base, paths)

    def open_task_vector(self, name: str) -> Callable[[str], Callable[[int, np.ndarray], None]]:
        """Opens a member's task vector for reading in pieces, so that the model is never whole in memory.

        Args:
          name: the member.

        Returns:
          A function from the path of a leaf to ``read(start, out)``, which fills the flat float32 array ``out`` with
          the entries of the leaf from ``start`` on. Read the pieces of a leaf in order; the last one verifies its hash.
          For a member stored as factors this is an ``OpenLowRank``, which verifies the factors when it reads them.

        Raises:
          WsrError: if there is no such member, or its metadata is damaged.
        """
        return encoder_part.open_in_pieces(self._folder(name), self._about(name)[1], self.base)

    def kept_as(self, name: str) -> tuple[str, int]:
        """Returns the form in which a member's encoder is stored, and its size in bytes.

        The form is ``float32``, ``bfloat16_task_vector`` or, for factors, ``rank 8`` for example.
        """
        return encoder_part.kept_as(self._about(name)[1])

    @cached_property
    def model(self) -> "Model":
        """The architecture of the base and the members."""
        from wsr.models import build

        return build(self.model_name, self.model_config)

    def checkpoint(self) -> "Checkpoint":
        """Returns the checkpoint that the members were fine-tuned from, with its tokenizer or image processor.

        Raises:
          WsrError: if the tokenizer's files are missing, or differ from those that the members were trained with.
        """
        from wsr.models.model import Checkpoint

        processor, folder = self.processor(), self.path / "base" / checkpoint.COMPANIONS
        return Checkpoint(self.model, self.base(), processor, self.base_name, folder if folder.is_dir() else None)

    def processor(self) -> Any:
        """Returns the tokenizer or image processor of the base, from the store's own copy.

        A store that was made before stores kept a copy reads the folder of its base.

        Raises:
          WsrError: if its files are missing, or differ from those that the members were trained with.
        """
        from wsr.data.fingerprint import fingerprint, other_fingerprint
        from wsr.models.huggingface.folder import read_processor

        own = checkpoint.companions(self.path / "base")
        if own:
            processor = read_processor(self.path / "base" / checkpoint.COMPANIONS, self.model)
        else:
            processor = self._processor_of_base()
        other = other_fingerprint(fingerprint(processor), self.tokenizer)
        if other:
            raise WsrError(
                f"{self.path}: the tokenizer of {self.base_name!r} is not the one its members were trained with: "
                f"another {' and another '.join(other)}; restore the original files"
            )
        return processor

    def replaced(self) -> list[str]:
        """Returns the files in the folder of the base that have changed since the store copied them.

        The store uses its own copies, so this is only to be told.
        """
        here = Path(self.base_name)
        own = checkpoint.companions(self.path / "base")
        there = {name: here / name for name in own if (here / name).is_file()}
        return [name for name, path in there.items() if path.read_bytes() != own[name].read_bytes()]

    def companions(self, names: Sequence[str] = ()) -> dict[str, Path]:
        """Returns the files that belong to a point beside its weights, by relative path.

        Args:
          names: the members of the point. A file that all of them have, with equal content, takes the place of the
            base's.

        Raises:
          WsrError: if a file differs from what was written.
        """
        own = shared_files([checkpoint.companions(self._folder(name)) for name in names])
        of_base = checkpoint.companions(self.path / "base")
        of_base.pop(BASE_HEAD, None)
        return of_base | own

    def results(self) -> Results:
        """Returns the finished points of the store."""
        return Results.on_disk(self.path / "points")

    @property
    def gram_file(self) -> GramFile:
        """The cache of inner products of the members' task vectors."""
        return GramFile(self.path / "gram.json", self.base_sha256, self._staging)

    def sketch_file(self, size: int) -> SketchFile:
        """Returns the cache of sketches of ``size`` numbers of the members' task vectors."""
        return SketchFile(self.path / "sketches", self.base_sha256, size)

    def quarantine(self, record: MemberRecord, step: int, reason: str) -> None:
        """Records that the training of a member became non-finite; its weights are not stored.

        Args:
          record: how the member was trained.
          step: the training step at which it became non-finite.
          reason: what became non-finite.
        """
        check_name(record.name)
        content = {"record": record_to_json(self._complete(record)), "step": step, "reason": reason}
        checkpoint.write_json(self.path / "quarantine" / f"{record.name}.json", sealed(content), self._staging)

    def quarantined(self) -> list[Quarantined]:
        """Returns the members whose training became non-finite, sorted by name."""
        return [read_quarantined(path) for path in sorted((self.path / "quarantine").glob("*.json"))]

    def verify(self) -> list[str]:
        """Reads everything on disk and returns one line per damaged part."""
        return [problem for _, problem in damaged_parts(parts_of(self.path))]

    @property
    def _staging(self) -> Path:
        return self.path / "writing"

    def _folder(self, name: str) -> Path:
        check_name(name)
        return self.path / "members" / name

    def _about(self, name: str) -> tuple[MemberRecord, Table]:
        folder = self._folder(name)
        if not folder.is_dir():
            raise WsrError(f"{self.path} has no member {name!r}; wsr ls lists its {len(self.names())} members")
        return read_member(folder, self.base_sha256)

    def _processor_of_base(self) -> Any:
        from wsr.models.load import load_processor

        try:
            return load_processor(self.base_name, self.model)
        except WsrError as error:
            raise WsrError(
                f"{error}; {self.path} was made before stores kept the tokenizer: restore the base, or remove "
                f"{self.path / 'base'} and write it again by wsr import or wsr train with --base=ITS_NEW_PLACE"
            ) from error

    def _save(
        self,
        record: MemberRecord,
        encoder: Leaves,
        head: Params,
        companions: Mapping[str, Path] | None,
        *,
        version: int | None = None,
    ) -> MemberRecord:
        heads = float32_leaves(head, f"head of member {record.name!r}")
        leaves = encoder | {f"head/{path}": leaf for path, leaf in heads.items()}
        table = table_of(leaves)
        record = self._complete(record, json_sha256(table))
        folder = self._folder(record.name)
        checkpoint.sweep(self._staging)
        about = {"record": record_to_json(record)}
        if folder.exists() or not checkpoint.publish(
            folder, leaves, table, about, self._staging, version=version, companions=companions
        ):
            refusals.refuse_other_member(self.path, self.record(record.name), record)
        return self.record(record.name)

    def _complete(self, record: MemberRecord, content_sha256: str = "") -> MemberRecord:
        completed = replace(
            record,
            base_sha256=self.base_sha256,
            architecture=self.model_name,
            config_sha256=self.config_sha256,
            content_sha256=content_sha256,
        )
        for field in ("base_sha256", "architecture", "config_sha256", "content_sha256"):
            given, own = getattr(record, field), getattr(completed, field)
            if given not in ("", own):
                raise WsrError(f"member {record.name!r}: {field} expected {own} (of {self.path}), found {given}")
        return completed

    def _write_summary(self, summary: dict[str, Any]) -> None:
        path = self.path / "store.json"
        try:
            if strict_json.parse(path.read_text(encoding="utf-8")) == summary:
                return
        except (OSError, ValueError):
            pass
        # A read-only store works without this copy.
        with contextlib.suppress(OSError):
            checkpoint.write_json(path, summary, self._staging)


def _brought(path: str | Path) -> Path:
    """Returns the absolute folder of a store; for a store in a bucket, first downloads its metadata."""
    folder = buckets.folder_of(path)
    buckets.bring_files(folder, ["store.json", "gram.json", "scores.jsonl"])
    buckets.bring_files(folder / "quarantine")
    buckets.bring_marks(folder, checkpoint.METADATA_FILE, ["base"])
    buckets.bring_marks(folder / "members", checkpoint.METADATA_FILE)
    return folder
