"""Reads Hugging Face datasets from the hub or from a local folder."""

import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from wsr.data.decompressed import Allowance
from wsr.data.records import Records
from wsr.data.roles import roles_of
from wsr.errors import WsrError, nearest_names
from wsr.runtime.hub_client import REPEATED, HubUnavailable, unavailable, watched

REACH_SECONDS = 8.0
"""Longest wait for the hub to answer, in seconds, before it counts as unreachable."""
PAUSES = (1.0, 2.0)
"""Seconds after which the hub is asked again for a repository, while it answers with a fault of its own."""

OFFLINE_CHOICE = "use a folder written by datasets' save_to_disk, a local file, or a packaged corpus (vader_movie, ...)"
REPLACED = {
    "esnli": "esnli",
    "CogComp/trec": "trec_fine and trec_coarse",
    "trec": "trec_fine and trec_coarse",
    "takala/financial_phrasebank": "financial_phrasebank",
    "financial_phrasebank": "financial_phrasebank",
}
"""Names of registered datasets that read the data of repositories with a loading script, by repository."""
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Hub:
    """A dataset on the hub, or in a folder (of ``save_to_disk``, or of data files that ``datasets`` reads)."""

    path: str
    config: str | None = None
    splits: Mapping[str, str] = field(default_factory=dict)
    """The split of the dataset for each role, such as ``train_r1+train_r2``; if empty, splits named like the roles."""
    revision: str | None = None
    """Commit, tag or branch of the repository; None is the newest commit, which a note names."""

    def read(self) -> Mapping[str, Records]:
        """Returns the records by role.

        Raises:
          WsrError: if the hub cannot be reached, or the dataset, its revision or a split cannot be read.
        """
        folder = Path(self.path)
        # The cache of datasets knows a local file by its time alone, so it may hold what the file held before.
        with tempfile.TemporaryDirectory() as fresh:
            notes: tuple[str, ...] = ()
            if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
                found = _from_disk(folder)
            elif folder.is_dir():
                found = _load(self.path, self.config, fresh)
            else:
                found, notes = self._from_hub()
            roles, unread = roles_of(map(str, found), self.path)
            splits = self.splits or {role: "+".join(names) for role, names in roles.items()}
            if "train" not in splits:
                raise WsrError(f"{self.path}: no split 'train'; found {', '.join(map(str, found))}")
            records = {role: self._records(found, split) for role, split in splits.items()}
        notes += (f"{self.path}: splits that are not read: {', '.join(unread)}",) * bool(unread and not self.splits)
        return records | {"train": replace(records["train"], notes=notes)}

    def _from_hub(self) -> tuple[Mapping[str, Any], tuple[str, ...]]:
        """Returns the splits and a note on the commit; the cache replaces a hub that does not answer."""

        def load(commit: str | None) -> tuple[Mapping[str, Any], str]:
            import datasets

            builder = datasets.load_dataset_builder(self.path, self.config, revision=commit)
            if self.revision and not commit and _is_commit(self.revision) and builder.hash != self.revision:
                builder = _of_commit(builder, self.revision)
            builder.download_and_prepare()
            return builder.as_dataset(), str(builder.hash)

        found, commit = from_hub(self.path, self.revision, load)
        pinned = () if self.revision else (f"{self.path}: read at its newest commit, {commit}",)
        return found, pinned

    def _records(self, found: Mapping[str, Any], split: str) -> Records:
        import datasets

        parts = split.split("+")
        missing = [part for part in parts if part not in found]
        if missing:
            names = [str(name) for name in found]
            raise WsrError(
                f"{self.path}: no split {missing[0]!r}; found {', '.join(names)}; "
                f"nearest: {nearest_names(missing[0], names, most=1)}"
            )
        table = datasets.concatenate_datasets([found[part] for part in parts])
        names_of = {
            column: tuple(feature.names)
            for column, feature in table.features.items()
            if isinstance(feature, datasets.ClassLabel)
        }
        if Path(self.path).is_dir():
            Allowance(Path(self.path)).take(table.data.nbytes)
        where = "/".join(part for part in (self.path, self.config, split) if part)
        return Records(where, table.to_dict(), range(1, len(table) + 1), unit="row", label_names=names_of)


def from_hub(path: str, revision: str | None, load: Callable[[str | None], _Found], *, scripts: bool = False) -> _Found:
    """Returns what ``load`` makes of a dataset repository, from the hub or else from its cache.

    Args:
      path: the repository.
      revision: a commit, tag or branch; None is the newest commit.
      load: takes the commit, or None if only the cache is to be read.
      scripts: whether a repository with a loading script will do.

    Raises:
      WsrError: in one line, what the hub answered, or that it did not answer and the cache does not hold the dataset.
    """
    try:
        commit = _in_time(lambda: _commit(path, revision, scripts))
        with watched() as watch:
            try:
                return load(commit)
            except Exception as error:  # the library raises many kinds of errors, also those of other libraries
                if watch.reason is None:
                    raise _told(path, error) from None
                unavailable: Exception = HubUnavailable(watch.reason)
    except HubUnavailable as error:
        unavailable = error
    try:
        with _offline():
            return load(None)
    except WsrError:
        raise
    except Exception:
        raise WsrError(
            f"{path}: the Hugging Face hub did not answer ({unavailable}) and its cache does not hold the dataset; "
            f"{OFFLINE_CHOICE}"
        ) from None


def _commit(path: str, revision: str | None, scripts: bool) -> str:
    """Returns the hash of a revision.

    Raises:
      WsrError: if the hub has no such repository or revision, does not give it, or holds only a loading script.
      HubUnavailable: if the hub does not answer.
    """
    import huggingface_hub
    from huggingface_hub import errors

    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise HubUnavailable("HF_HUB_OFFLINE is set")
    try:
        info = huggingface_hub.HfApi().dataset_info(path, revision=revision, timeout=REACH_SECONDS)
    except errors.RevisionNotFoundError:
        newest = "" if scripts else f", or name the dataset as {path} or {path}:CONFIG to read its newest commit"
        raise WsrError(
            f"{path}: the hub has no revision {revision!r} of it{_other_revisions(path, revision)}; give its source "
            f"another revision{newest}"
        ) from None
    except errors.GatedRepoError:
        raise _gated(path) from None
    except errors.RepositoryNotFoundError:
        raise WsrError(
            f"{path}: the hub has no dataset of this name, or it is private; check the name, or log in with "
            "HF_TOKEN or `hf auth login`"
        ) from None
    except errors.HFValidationError as error:
        raise WsrError(f"{path}: {_first_line(error)}") from None
    except errors.HfHubHTTPError as error:
        if error.response.status_code in REPEATED:
            raise unavailable(error.response) from None
        raise WsrError(f"{path}: the hub does not give this dataset: {unavailable(error.response)}") from None
    script = f"{path.rpartition('/')[2]}.py"
    if not scripts and script in (file.rfilename for file in info.siblings or ()):
        raise _only_script(path, script)
    return str(info.sha)


def _in_time(ask: Callable[[], str]) -> str:
    """Returns an answer of the hub, asked in a thread: a name look-up may hang beyond any timeout.

    Raises:
      HubUnavailable: if the hub does not answer in ``REACH_SECONDS``.
    """
    answers: list[str | Exception] = []

    def repeat() -> None:
        last: Exception | None = None
        for pause in (*PAUSES, 0.0):
            try:
                answers.append(ask())
                return
            except WsrError as error:
                answers.append(error)
                return
            except HubUnavailable as error:
                last = error
                if not error.passing:
                    break
            except Exception as error:  # offline mode, name look-up, proxy, certificate, timeout: unreachable
                last = HubUnavailable(_first_line(error))
                break
            asked_again.wait(pause)
        assert last is not None
        answers.append(last)

    asked_again = threading.Event()
    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    thread.join(REACH_SECONDS)
    asked_again.set()
    answer = answers[0] if answers else HubUnavailable(f"no answer in {REACH_SECONDS:.0f} seconds")
    if isinstance(answer, Exception):
        raise answer
    return answer


def _told(path: str, error: Exception) -> WsrError:
    """Returns the one line for an error of ``datasets``."""
    line = _first_line(error)
    if isinstance(error, WsrError):
        return error
    if "scripts are no longer supported" in line:
        return _only_script(path, line.rpartition(" ")[2])
    if "gated dataset" in line or "gated repo" in line.lower():
        return _gated(path)
    return WsrError(f"{path}: datasets cannot load it: {line}")


def _only_script(path: str, script: str) -> WsrError:
    known = f"use the registered dataset {REPLACED[path]}; or " if path in REPLACED else ""
    return WsrError(
        f"{path}: the repository holds a loading script ({script}), which datasets 4 and later do not run; {known}load "
        f"it with datasets 3, write it with save_to_disk and give the folder; or look for a copy without a script"
    )


def _gated(path: str) -> WsrError:
    return WsrError(
        f"{path}: the dataset is gated: accept its terms on its page on the hub, then log in with HF_TOKEN or "
        "`hf auth login`"
    )


def _other_revisions(path: str, revision: str | None) -> str:
    import huggingface_hub

    try:
        found = huggingface_hub.HfApi().list_repo_refs(path, repo_type="dataset")
    except Exception:  # only a hint
        return ""
    names = [ref.name for ref in (*found.branches, *found.tags)]
    if not names:
        return ""
    nearest = "" if _is_commit(revision or "") else f"; nearest: {nearest_names(revision, names, most=1)}"
    return f"; found {', '.join(names[:8])}{nearest}"


def _is_commit(revision: str) -> bool:
    return len(revision) == 40 and set(revision) <= set("0123456789abcdef")


def _of_commit(cached: Any, commit: str) -> Any:
    """Returns the reader of another commit in the cache of ``datasets``, which itself offers the latest one alone.

    Raises:
      WsrError: if the cache does not hold the commit.
    """
    from datasets.packaged_modules.cache.cache import Cache

    folder = Path(cached.cache_dir)
    if not (folder.parent / commit).is_dir():
        raise WsrError(f"{cached.repo_id}: expected revision {commit}, found {cached.hash} in the cache")
    return Cache(repo_id=cached.repo_id, config_name=cached.config.name, version=folder.parent.name, hash=commit,
                 dataset_name=cached.repo_id.rpartition("/")[2])  # fmt: skip


def _from_disk(folder: Path) -> Mapping[str, Any]:
    import datasets

    try:
        saved = datasets.load_from_disk(str(folder))
    except (OSError, ValueError) as error:
        raise WsrError(f"{folder}: the saved dataset cannot be read: {_first_line(error)}") from None
    return saved if isinstance(saved, datasets.DatasetDict) else {"train": saved}


def _load(path: str, config: str | None, fresh: str) -> Mapping[str, Any]:
    """Returns the splits of a local folder."""
    import datasets

    try:
        with _offline():
            return datasets.load_dataset(path, config, cache_dir=fresh)
    except Exception as error:  # the library raises many kinds of errors, also those of other libraries
        raise _told(path, error) from None


@contextmanager
def _offline() -> Iterator[None]:
    """Makes ``datasets`` read its cache instead of retrying an unreachable hub for minutes."""
    import datasets
    import huggingface_hub

    modules: tuple[Any, ...] = (datasets.config, huggingface_hub.constants)
    before = [module.HF_HUB_OFFLINE for module in modules]
    try:
        for module in modules:
            module.HF_HUB_OFFLINE = True
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = value


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
