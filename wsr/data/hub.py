"""Reads Hugging Face datasets from the hub or from a local folder."""

import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wsr.data.decompressed import Allowance
from wsr.data.records import Records
from wsr.data.roles import roles_of
from wsr.errors import WsrError

REACH_SECONDS = 8.0
"""Longest wait for the hub to answer, in seconds, before it counts as unreachable."""

OFFLINE_CHOICE = "use a folder written by datasets' save_to_disk, a local file, or a packaged corpus (vader_movie, ...)"


@dataclass(frozen=True)
class Hub:
    """A dataset on the hub, or in a folder (of ``save_to_disk``, or of data files that ``datasets`` reads)."""

    path: str
    config: str | None = None
    splits: Mapping[str, str] = field(default_factory=dict)
    """The split of the dataset for each role, such as ``train_r1+train_r2``; if empty, splits named like the roles."""

    def read(self) -> Mapping[str, Records]:
        """Returns the records by role.

        Raises:
          WsrError: if the hub cannot be reached, or the dataset or a split cannot be read.
        """
        folder = Path(self.path)
        # The cache of datasets knows a local file by its time alone, so it may hold what the file held before.
        with tempfile.TemporaryDirectory() as fresh:
            if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
                found = _from_disk(folder)
            else:
                found = _load(self.path, self.config, fresh)
            roles, unread = roles_of(map(str, found), self.path)
            splits = self.splits or {role: "+".join(names) for role, names in roles.items()}
            if "train" not in splits:
                raise WsrError(f"{self.path}: no split 'train'; found {', '.join(map(str, found))}")
            records = {role: self._records(found, split) for role, split in splits.items()}
        notes = (f"{self.path}: splits that are not read: {', '.join(unread)}",) * bool(unread and not self.splits)
        return records | {"train": replace(records["train"], notes=notes)}

    def _records(self, found: Mapping[str, Any], split: str) -> Records:
        import datasets

        parts = split.split("+")
        missing = [part for part in parts if part not in found]
        if missing:
            raise WsrError(f"{self.path}: no split {missing[0]!r}; found {', '.join(map(str, found))}")
        table = datasets.concatenate_datasets([found[part] for part in parts])
        names = {
            column: tuple(feature.names)
            for column, feature in table.features.items()
            if isinstance(feature, datasets.ClassLabel)
        }
        if Path(self.path).is_dir():
            Allowance(Path(self.path)).take(table.data.nbytes)
        where = "/".join(part for part in (self.path, self.config, split) if part)
        return Records(where, table.to_dict(), range(1, len(table) + 1), unit="row", label_names=names)


def _from_disk(folder: Path) -> Mapping[str, Any]:
    import datasets

    try:
        saved = datasets.load_from_disk(str(folder))
    except (OSError, ValueError) as error:
        raise WsrError(f"{folder}: the saved dataset cannot be read: {_first_line(error)}") from None
    return saved if isinstance(saved, datasets.DatasetDict) else {"train": saved}


def _load(path: str, config: str | None, fresh: str) -> Mapping[str, Any]:
    import datasets

    local = Path(path).is_dir()
    online = not local and _hub_answers()
    try:
        with _offline(not online):
            return datasets.load_dataset(path, config, cache_dir=fresh if local else None)
    except Exception as error:  # the library raises many kinds of errors, also those of other libraries
        if local or online:
            raise WsrError(f"{path}: datasets cannot load it: {_first_line(error)}") from None
        raise WsrError(
            f"{path}: the Hugging Face hub did not answer and its cache does not hold the dataset; {OFFLINE_CHOICE}"
        ) from None


def _hub_answers() -> bool:
    """Asks the hub once, in a thread: a name look-up may hang beyond any timeout."""
    answered = threading.Event()

    def ask() -> None:
        import huggingface_hub

        try:
            huggingface_hub.utils.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=REACH_SECONDS)
        except Exception:  # offline mode, name look-up, proxy, certificate, timeout: unreachable in each case
            return
        answered.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(REACH_SECONDS)
    return answered.is_set()


@contextmanager
def _offline(active: bool) -> Iterator[None]:
    """Makes ``datasets`` read its cache instead of retrying an unreachable hub for minutes."""
    import datasets
    import huggingface_hub

    modules: tuple[Any, ...] = (datasets.config, huggingface_hub.constants)
    before = [module.HF_HUB_OFFLINE for module in modules]
    try:
        for module in modules:
            module.HF_HUB_OFFLINE = active or module.HF_HUB_OFFLINE
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = value


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
