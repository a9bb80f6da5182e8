"""A store whose files were changed: nothing is silent, the rest stays usable, and what is damaged moves aside."""

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_store import make_store, near, random_head, random_params, record_of, same_bits

from wsr.cli import main
from wsr.errors import WsrError
from wsr.exchange.scores import keep_scores, scores_of
from wsr.geometry.low_rank import Factors
from wsr.store import Store
from wsr.store.results import Results, write_rows
from wsr.store.verification import damaged_parts, parts_of, set_aside

BASE = random_params(0)
MEMBERS = ("halved", "thick", "thin")
POINTS = ("first", "second")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """One of everything that a store may hold."""
    path = tmp_path / "store"
    made = make_store(path, BASE)
    made.save(record_of("thick"), near(BASE, 1), random_head(1))
    made.save(record_of("halved"), near(BASE, 2), random_head(2), dtype="bfloat16_task_vector")
    draw = np.random.default_rng(3)
    factors = Factors(draw.standard_normal((16, 2), np.float32), draw.standard_normal((2, 16), np.float32))
    made.save_low_rank(record_of("thin"), {"layers/0/query/kernel": factors}, random_head(3))
    made.quarantine(record_of("gone"), 17, "the loss is NaN")
    made.gram_file.add([made.record(name).content_sha256 for name in MEMBERS], draw.standard_normal((3, 3)))
    points = Results.on_disk(path / "points")
    for key in POINTS:
        points.put(key, losses=draw.standard_normal(40).astype(np.float32), predictions=draw.integers(2, size=40))
    keep_scores(made, [scored(name, 0.25 + number / 10) for number, name in enumerate(MEMBERS)])
    return made


def scored(name: str, value: float) -> dict[str, Any]:
    fields = {"group": "member", "dataset": "d", "metric": "generalised_loss", "n": 40, "how": "exact"}
    return {**fields, "members": [name], "coefficients": [1.0], "value": value}


def readers(path: Path, hashes: list[str]) -> dict[str, Callable[[], Any]]:
    """What gives the content of each part, as a user of the library would read it."""

    @cache
    def store() -> Store:
        return Store.open(path)

    def point(key: str) -> Any:
        arrays = Results.on_disk(path / "points").get(key)
        return {name: array.tolist() for name, array in arrays.items()}

    return {
        "base": lambda: store().base(),
        "store.json": lambda: (store(), json.loads((path / "store.json").read_text()))[1],
        "quarantine": lambda: repr(store().quarantined()),
        "gram.json": lambda: store().gram_file.read(hashes).tolist(),
        "scores.jsonl": lambda: [scores_of(store(), {name: 1.0}) for name in MEMBERS],
        **{f"{key}.npz": lambda key=key: point(key) for key in POINTS},
        **{name: lambda name=name: store().load(name) for name in MEMBERS},
        **{f"record of {name}": lambda name=name: repr(store().record(name)) for name in MEMBERS},
    }


def read_all(path: Path, hashes: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Returns what could be read, and the errors of the rest."""
    found, errors = {}, []
    for part, read in readers(path, hashes).items():
        try:
            found[part] = read()
        except WsrError as error:
            errors.append(str(error))
        except KeyError:  # a point that is to be evaluated again
            errors.append(part)
    if str(found.get("gram.json")) == str(np.full((3, 3), np.nan).tolist()):
        errors.append("gram.json counts as none")
        del found["gram.json"]
    return found, errors


def same(found: Any, expected: Any) -> bool:
    if isinstance(expected, tuple) or (isinstance(expected, dict) and "layers" in expected):
        return same_bits(found, expected)
    return bool(found == expected)


def flip(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content)
    changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def zero(content: bytes, draw: random.Random) -> bytes:
    start = 4096 * draw.randrange(-(-len(content) // 4096))
    rest = content[start + 4096 :]
    return content[:start] + bytes(len(content) - start - len(rest)) + rest


def cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content))]


@pytest.mark.fault
@pytest.mark.parametrize(
    ("fault", "damage"),
    [("one flipped bit", flip), pytest.param("4 KiB zeroed", zero, marks=pytest.mark.long), ("truncation", cut)],
)
def test_no_damage_is_silent_and_the_others_stay_usable(store: Store, trials: Any, fault: str, damage: Any) -> None:
    path, draw = store.path, random.Random(fault)
    hashes = [store.record(name).content_sha256 for name in MEMBERS]
    expected, problems = read_all(path, hashes)
    assert problems == store.verify() == []
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.stat().st_size)
    # What Orbax says to itself: nothing here reads it.
    unread = [file for file in files if file.name in (".zarray", "_METADATA", "commit_success.txt")]
    counted = Counter(detected=0, harmless=0, silent=0)
    while counted["detected"] + counted["silent"] < trials(20, torture=300):
        file = draw.choice(unread if draw.random() < 0.1 else [file for file in files if file not in unread])
        content = file.read_bytes()
        changed = damage(content, draw)
        if changed == content:
            continue
        part = path / Path(*file.relative_to(path).parts[: 1 if "base" in file.parts else 2])
        file.write_bytes(changed)
        found = damaged_parts(parts_of(path))
        read, errors = read_all(path, hashes)
        if not found:
            # One of those, or a time.
            unchanged = not errors and all(same(value, expected[name]) for name, value in read.items())
            counted["harmless" if unchanged else "silent"] += 1
            file.write_bytes(content)
            continue
        counted["detected"] += 1
        file.write_bytes(changed)  # a reader may have written it again
        ((told, line),) = found
        assert told.path == part
        assert all(same(value, expected[name]) for name, value in read.items()), f"{file}: read wrong"
        if part != path / "base":
            others = [name for name in expected if name.split()[-1] not in file.relative_to(path).parts]
            assert set(others) <= set(read), f"{file}: others cannot be read"
        assert errors or part == path / "store.json", f"{file}: only wsr verify told"
        if is_leaf(file):
            leaf = f"leaf {file.parent.name.replace('.', '/')}: blake3 expected "
            for complaint in (line, *errors):
                assert str(part) in complaint
                assert leaf in complaint
                assert complaint.count(", found ") == 1
        else:
            assert str(part) in line
        (place,) = set_aside(path, [told])
        assert (place if place.is_file() else place / file.relative_to(part)).read_bytes() == changed
        if told.name == "base":
            make_store(path, BASE)
        assert Store.open(path).verify() == []
        again, _ = read_all(path, hashes)
        assert all(same(again[name], expected[name]) for name in ("base", *MEMBERS) if path / "members" / name != part)
        if told.name == "base":
            shutil.rmtree(part)
        place.rename(part)
        file.write_bytes(content)
        Store.open(path)  # another base was there for a moment, and store.json is a copy of what it said
    assert counted["silent"] == 0, counted
    trials.note(f"{fault}, over all files of a store", tried=counted["detected"] + counted["silent"], **counted)


def is_leaf(file: Path) -> bool:
    return "state" in file.parts and file.name[0] in "0123456789"


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main([*words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def spoil(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_the_command_names_what_is_damaged_and_sets_it_aside(store: Store, capsys: Any) -> None:
    path, flag = store.path, f"--store={store.path}"
    status, printed, _ = run(capsys, "verify", flag)
    assert status == 0
    assert "nothing damaged; 3 of 3 members are whole" in printed
    leaf = path / "members" / "thick" / "state" / "params.layers.1.bias" / "0"
    for file in (leaf, path / "gram.json", path / "points" / "first.npz", path / "quarantine" / "gone.json"):
        spoil(file)
    (path / "store.json").unlink()
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    status, printed, complaint = run(capsys, "verify", flag)
    assert status == 1
    assert "5 of 10 parts are damaged, 2 of 3 members are whole" in complaint
    for name in ("member thick", "gram.json", "point first", "quarantine of gone", "store.json"):
        assert f"damaged: {name}: " in printed
    assert "leaf params/layers/1/bias: blake3 expected" in printed
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before, "looking changes nothing"
    status, printed, _ = run(capsys, "verify", flag, "--repair")
    assert status == 0
    assert printed.count("set aside: ") == 4
    assert "member thick: wsr train (with the same data and recipe) or wsr import" in printed
    kept = {file.read_bytes() for file in (path / "damaged").rglob("*") if file.is_file()}
    assert {before[file] for file in (leaf, path / "gram.json", path / "points" / "first.npz")} <= kept
    assert run(capsys, "verify", str(path))[0] == 0
    again = make_store(path, BASE)
    assert again.names() == ["halved", "thin"]
    again.save(record_of("thick"), near(BASE, 1), random_head(1))
    assert same_bits(again.load("thick")[0], near(BASE, 1))


@pytest.mark.parametrize("lost", ["metadata", "leaf", "folder"])
def test_a_damaged_base_comes_from_where_it_came_and_members_are_not_touched(
    store: Store, capsys: Any, lost: str
) -> None:
    path, base = store.path, store.path / "base"
    members = {file: file.read_bytes() for file in (path / "members").rglob("*") if file.is_file()}
    if lost == "folder":
        base.rename(path.parent / "elsewhere")
    else:
        spoil(base / ("_CHECKPOINT_METADATA" if lost == "metadata" else "state/layers.1.bias/0"))
    for words in (["verify", str(path)], ["verify", str(path), "--repair"]):
        status, printed, complaint = run(capsys, *words)
        assert status == 1
        assert "damaged: base: " in printed
        assert "3 of 3 members are whole" in complaint
    assert "wsr train or wsr import with --base=tiny writes it again" in complaint
    with pytest.raises(WsrError, match="has members but no folder base/"):
        Store.open(path)
    with pytest.raises(WsrError, match="not the base of these members"):
        make_store(path, random_params(5))
    assert make_store(path, BASE).verify() == []
    assert {file: file.read_bytes() for file in (path / "members").rglob("*") if file.is_file()} == members


def test_what_is_no_store_is_not_verified(tmp_path: Path, capsys: Any) -> None:
    assert "is not a store" in run(capsys, "verify", str(tmp_path))[2]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault
def test_a_manifest_that_is_lost_or_garbled_is_rebuilt_or_named(store: Store, trials: Any) -> None:
    path, draw = store.path, random.Random(0)
    manifests = [path / "store.json", *(path / "members" / name / "_CHECKPOINT_METADATA" for name in MEMBERS)]
    good = {file: file.read_bytes() for file in manifests}
    counted: Counter[str] = Counter(rebuilt=0, named=0)
    for number in range(trials(24, torture=300)):
        file = manifests[number % len(manifests)]
        content = good[file]
        garbled = [b"", b"{", b"null", b"[" * 100_000, draw.randbytes(len(content)), content[: len(content) // 2]]
        garbled.append(content.replace(b"sha256", b"sha512"))
        choice = draw.randrange(len(garbled) + 1)
        file.unlink() if choice == len(garbled) else file.write_bytes(garbled[choice])
        opened = Store.open(path)
        if file.name == "store.json":
            assert file.read_bytes() == content
            counted["rebuilt"] += 1
        else:
            name = file.parent.name
            with pytest.raises(WsrError, match=f"members/{name}: metadata"):
                opened.load(name)
            assert all(opened.load(other) for other in MEMBERS if other != name)
            counted["named"] += 1
        file.write_bytes(content)
    trials.note("manifest deleted or garbled", trials=counted.total(), **counted, silent=0)


def test_files_without_a_hash_are_still_read(store: Store) -> None:
    gone = store.path / "quarantine" / "gone.json"
    content = json.loads(gone.read_text())
    del content["sha256"]
    gone.write_text(json.dumps(content))
    write_rows(store.path / "scores.jsonl", [scored("thin", 0.5)])
    assert Store.open(store.path).quarantined() == store.quarantined()
    assert scores_of(store, {"thin": 1.0})[0]["value"] == 0.5
    assert store.verify() == []
    keep_scores(store, [scored("thick", 0.75)])
    assert (store.path / "scores.jsonl").read_text().startswith('{"sha256 of the rows": "')
    assert scores_of(store, {"thin": 1.0})[0]["value"] == 0.5


def test_a_damaged_file_of_scores_says_what_to_do(store: Store) -> None:
    file = store.path / "scores.jsonl"
    file.write_text(file.read_text().replace("0.25", "0.15"))
    for read in (lambda: scores_of(store, {"thin": 1.0}), lambda: keep_scores(store, [scored("thin", 0.5)])):
        with pytest.raises(
            WsrError, match=r"scores.jsonl was changed .* wsr verify --store=\S+ --repair sets it aside"
        ):
            read()
