"""Synchronises local folders with a bucket: ``gs://bucket/path``, or any URL that fsspec can read.

Bucket and folder hold the same files, except for checkpoints. An object store cannot rename a folder, so one file of a
checkpoint, its *mark*, is uploaded last: the checkpoint exists once its mark does. All its other files, the *payload*,
lie in the bucket under a name made from the content of the mark:

    file                     in the local folder     in the bucket
    the mark                 members/<name>/<mark>   members/<name>/<mark>
    the rest of the member   members/<name>/...      members/<name>/payload-<hash of the mark>/...

So an unfinished upload is never read, and two writers of one member cannot mix their files. A local folder may hold
only the mark, which contains the member's record and the hashes of its leaves; the payload is downloaded when it is
first read.
"""

import hashlib
import os
import re
import shutil
import threading
import zlib
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from wsr.errors import WsrError
from wsr.runtime.assets import cache_folder

ANSWER_SECONDS = 60.0
Found = TypeVar("Found")


def folder_of(where: str | Path) -> Path:
    """Returns the absolute local folder for a path or a URL; downloads nothing.

    Args:
      where: a path, or the URL of a folder in a bucket.

    Returns:
      The folder itself, or for a URL a folder in the cache that mirrors it.
    """
    if "://" not in str(where):
        return Path(where).expanduser().resolve()
    url = str(where).rstrip("/")
    name = re.sub(r"[^\w.-]", "_", PurePosixPath(url).name)
    folder = (cache_folder() / "stores" / f"{name}-{zlib.crc32(url.encode()):08x}").resolve()
    _urls[folder] = url
    return folder


def where_is(folder: Path) -> str:
    """Returns the URL of a folder that mirrors a bucket, or else the path of the folder."""
    place = _place(folder)
    return place.url if place else str(folder)


def bring_files(folder: Path, names: Collection[str] | None = None) -> None:
    """Downloads files of a folder that mirrors a bucket.

    Args:
      folder: the local folder.
      names: the files to download, replacing local ones; None downloads all that are missing locally.

    Raises:
      WsrError: if the bucket cannot be read.
    """
    place = _place(folder)
    if place and names is None:
        files = [name for name, kind in place.listed().items() if kind == "file"]
        place.download({name: folder / name for name in files if not (folder / name).exists()})
    elif place and names:
        for name, content in place.contents(names).items():
            _write(folder / name, content)


def bring_marks(folder: Path, mark: str, names: Collection[str] | None = None) -> None:
    """Downloads the marks of checkpoints, and removes local checkpoints that the bucket no longer holds.

    Args:
      folder: the local folder of the checkpoints.
      mark: file name of the marks.
      names: the checkpoints ``folder/<name>``; None takes all.

    Raises:
      WsrError: if the bucket cannot be read.
    """
    place = _place(folder)
    if not place:
        return
    # List local checkpoints first: another process uploads a checkpoint before it renames it into place here.
    here = {path.parent.name for path in folder.glob(f"*/{mark}")}
    if names is None:
        there = {name for name, kind in place.listed().items() if kind == "directory"}
        found = place.contents([f"{name}/{mark}" for name in sorted(there - here)])
    else:
        found = place.contents([f"{name}/{mark}" for name in names])
        here, there = here & set(names), {path.removesuffix(f"/{mark}") for path in found}
    for path, content in found.items():
        if not (folder / path).exists():
            _write(folder / path, content)
    for name in here - there:
        shutil.rmtree(folder / name, ignore_errors=True)


def bring(folder: Path, mark: str) -> None:
    """Downloads the payload of a checkpoint whose mark is present; asks the bucket once per process.

    Args:
      folder: the local folder of the checkpoint.
      mark: file name of its mark.

    Raises:
      WsrError: if the bucket cannot be read.
    """
    place = _place(folder)
    if not place or not (folder / mark).exists() or _state(folder / mark) in _brought:
        return
    payload = place.below(_payload(folder / mark))
    names = payload.found()
    payload.download({name: folder / name for name in names if not (folder / name).exists()})
    _brought.add(_state(folder / mark))


def put_folder(source: Path, folder: Path, mark: str) -> bool:
    """Uploads a finished checkpoint if its folder mirrors a bucket.

    Args:
      source: the finished checkpoint.
      folder: the local folder that it will be renamed to.
      mark: file name of its mark.

    Returns:
      False if the bucket already holds a checkpoint of this name, which then stays unchanged and whose mark is
      downloaded; otherwise True.

    Raises:
      WsrError: if the bucket cannot be read or written.
    """
    place = _place(folder)
    if not place:
        return True
    names = [path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()]
    payload = place.below(_payload(source / mark))
    if not place.contents([mark]):
        payload.upload({name: source / name for name in sorted(names) if name != mark})
    if place.contents([mark]):  # another writer was as fast
        bring_marks(folder.parent, mark, [folder.name])
        return False
    place.upload({mark: source / mark})
    return True


def put_file(path: Path) -> None:
    """Uploads a file in the background. If uploads fail, it prints one line; the file can be computed again."""
    place = _place(path.parent)
    if place:
        _puts.append(_putter().submit(_put_or_tell, place, path))


def settle() -> None:
    """Waits until all uploads of ``put_file`` are done; the end of the process waits too."""
    while _puts:
        _puts.pop().result()


@dataclass(frozen=True)
class _Place:
    """A folder in a bucket."""

    url: str

    def below(self, name: str) -> "_Place":
        return _Place(f"{self.url}/{name}")

    def listed(self) -> dict[str, str]:
        """Returns the entries of the folder with their kinds, file or directory; empty if there is no folder."""

        def call(files: Any, root: str) -> dict[str, str]:
            files.invalidate_cache()
            try:
                entries = files.ls(root, detail=True)
            except FileNotFoundError:
                return {}
            kinds = {entry["name"].strip("/"): entry["type"] for entry in entries}
            kinds.pop(root.strip("/"), None)  # some stores have an object for the folder itself
            names = {path.rpartition("/")[2]: kind for path, kind in kinds.items()}
            return {name: kind for name, kind in names.items() if not name.startswith(".")}

        return self._ask("read", call, ANSWER_SECONDS)

    def found(self) -> list[str]:
        """Returns the paths of all files below the folder."""

        def call(files: Any, root: str) -> list[str]:
            files.invalidate_cache()
            return [path.removeprefix(root).lstrip("/") for path in files.find(root)]

        return [_safe(name, self.url) for name in self._ask("read", call, ANSWER_SECONDS)]

    def contents(self, names: Collection[str]) -> dict[str, bytes]:
        """Returns the contents of those files that exist."""

        def call(files: Any, root: str) -> dict[str, bytes]:
            files.invalidate_cache()
            there = {}
            for path, content in files.cat([f"{root}/{name}" for name in names], on_error="return").items():
                if isinstance(content, bytes):
                    there[path.removeprefix(root).lstrip("/")] = content
                elif not isinstance(content, FileNotFoundError):
                    raise content
            return there

        return self._ask("read", call, ANSWER_SECONDS) if names else {}

    def download(self, wanted: Mapping[str, Path]) -> None:
        """Downloads files, each atomically."""
        scratch = {name: _scratch(path) for name, path in wanted.items()}
        for path in {path.parent for path in wanted.values()}:
            path.mkdir(parents=True, exist_ok=True)
        try:
            if wanted:
                sources = [f"/{name}" for name in wanted]
                targets = [str(path) for path in scratch.values()]
                self._ask("read", lambda files, root: files.get([root + source for source in sources], targets))
            for name, path in wanted.items():
                scratch[name].replace(path)
        finally:
            for path in scratch.values():
                path.unlink(missing_ok=True)

    def upload(self, files_here: Mapping[str, Path]) -> None:
        """Uploads files."""
        sources, targets = [str(path) for path in files_here.values()], [f"/{name}" for name in files_here]
        self._ask("written", lambda files, root: files.put(sources, [root + target for target in targets]))

    def _ask(self, verb: str, call: Callable[[Any, str], Found], seconds: float | None = None) -> Found:
        answer: Future[Found] = Future()

        def ask() -> None:
            try:
                answer.set_result(call(*_connect(self.url)))
            except BaseException as error:
                answer.set_exception(error)

        # A daemon thread, which can be abandoned: clients wait long for a missing network or missing credentials.
        threading.Thread(target=ask, daemon=True).start()
        try:
            return answer.result(seconds)
        except WsrError:
            raise
        except Exception as error:
            if not answer.done():
                told = f"{self.url}: no answer in {seconds:g} s; is the network up, are you logged in?"
                raise WsrError(told) from None
            hint = "does the bucket exist, are you logged in, as by gcloud auth application-default login?"
            raise WsrError(f"{self.url} cannot be {verb}: {_line(error)}; {hint}") from error


_urls: dict[Path, str] = {}
_brought: set[tuple[Path, int]] = set()
_puts: list[Future[None]] = []
_told: set[str] = set()


def _place(folder: Path) -> _Place | None:
    for parent in (folder, *folder.parents) if _urls else ():
        if parent in _urls:
            return _Place("/".join((_urls[parent], *folder.relative_to(parent).parts)))
    return None


def _connect(url: str) -> tuple[Any, str]:
    """Returns fsspec's file system for ``url``, and the path in it."""
    scheme = url.partition("://")[0]
    try:
        import fsspec

        return fsspec.url_to_fs(url, **({"auto_mkdir": True} if scheme in ("file", "local") else {}))
    except ImportError as error:
        extra = "pip install 'wsr[gcs]'" if scheme in ("gs", "gcs") else str(error)
        raise WsrError(f"{url}: support for {scheme}:// is not installed: {extra}") from error
    except ValueError as error:
        raise WsrError(f"{url}: {error}; expected a folder or a URL such as gs://bucket/path") from error


@cache
def _putter() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=8)


def _put_or_tell(place: _Place, path: Path) -> None:
    try:
        place.upload({path.name: path})
    except WsrError as error:
        root = next(url for url in _urls.values() if place.url.startswith(url))
        if root not in _told:
            _told.add(root)
            print(f"files that can be computed again stay on this machine only: {error}", flush=True)


def _payload(mark: Path) -> str:
    return f"payload-{hashlib.sha256(mark.read_bytes()).hexdigest()[:16]}"


def _state(mark: Path) -> tuple[Path, int]:
    return mark, mark.stat().st_mtime_ns


def _scratch(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _scratch(path).write_bytes(content)
    _scratch(path).replace(path)


def _safe(name: str, url: str) -> str:
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or not parts:
        raise WsrError(f"{url} holds the unsafe name {name!r}; remove it")
    return name


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
