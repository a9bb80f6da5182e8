"""A hub that fails: one clear line in seconds, retries where they help, and a cache that is whole."""

import zlib
from contextlib import suppress
from dataclasses import replace

import pytest
from hub_repositories import IN_DATA, TEXT, Config, Repository, parquet, repositories
from hub_server import Fault
from huggingface_hub import constants
from huggingface_hub.utils import _http

from wsr.runtime.hub_client import watched

QUICK = (1.0, 1.5, (0.1, 0.2))
"""Patience, silence and pauses, in seconds: the usual ones would make these tests slow."""


@pytest.fixture
def repository(local_hub, request):
    """A repository of its own for each test, so that no cache holds it."""
    ag_news = repositories()["fancyzhx/ag_news"]
    name = f"made-up/n{zlib.crc32(request.node.name.encode())}"
    own = replace(ag_news, name=name)
    local_hub.repositories["datasets"][name] = own
    yield own
    local_hub.faults.clear()
    local_hub.repositories["datasets"].pop(name, None)


def kept(found, repository):
    """What the cache holds of a repository."""
    return [path for path in found["cache"] if path.startswith(repository.name.replace("/", "___"))]


def test_the_client_is_as_before_once_it_is_no_longer_watched():
    usual, xet = _http._GLOBAL_CLIENT_FACTORY, constants.HF_HUB_DISABLE_XET
    with watched():
        assert _http._GLOBAL_CLIENT_FACTORY is not usual
    with suppress(ValueError), watched():
        raise ValueError
    assert _http._GLOBAL_CLIENT_FACTORY is usual
    assert xet == constants.HF_HUB_DISABLE_XET


def test_a_hub_without_faults_is_asked_once_for_each_file(local_hub, repository, ask):
    found = ask(hub={"path": repository.name})
    assert found["rows"] == {"train": 300, "test": 60}
    files = [f"GET /datasets/{repository.name}/resolve/{repository.commit}/{path}" for path in repository.files]
    assert [local_hub.requests[file] for file in files if file.endswith(".parquet")] == [1, 1]
    assert len(kept(found, repository)) == 1
    before = dict(local_hub.requests)
    ask(hub={"path": repository.name})
    assert all(local_hub.requests[file] == before.get(file, 0) for file in files if file.endswith(".parquet"))


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault("^GET /api/", status=404), "the hub does not give this dataset: it answered 404 Not Found"),
        (Fault("^GET /api/", status=403), "the hub does not give this dataset: it answered 403 Forbidden"),
        (Fault("^GET /api/", status=500), "(it answered 500 Internal Server Error)"),
        (Fault("^GET /api/", status=429), "(it answered 429 Too Many Requests)"),
        (
            Fault("^GET /api/", status=429, headers={"Retry-After": "300"}),
            "(it answered 429 Too Many Requests and asked to wait 300 seconds)",
        ),
        (Fault("^(GET|HEAD) /datasets/.*parquet", status=500), "(it answered 500 Internal Server Error)"),
        (Fault("^(GET|HEAD) /datasets/.*parquet", status=429), "(it answered 429 Too Many Requests)"),
        pytest.param(
            Fault("^GET /datasets/.*train.*parquet", stall=20),
            "(it stopped in the middle of a file)",
            marks=pytest.mark.long,
        ),
        pytest.param(Fault("^GET /api/", delay=20), "the Hugging Face hub did not answer", marks=pytest.mark.long),
    ],
)
def test_a_fault_that_lasts_is_told_in_one_line_and_nothing_is_kept(local_hub, repository, ask, fault, told):
    local_hub.faults.append(replace(fault))
    found = ask(hub={"path": repository.name}, patience=QUICK)
    assert found.get("error", "none").startswith(f"{repository.name}: ")
    assert told in found["error"]
    assert "\n" not in found["error"]
    assert found["seconds"] < 10
    assert kept(found, repository) == []
    local_hub.faults.clear()
    assert ask(hub={"path": repository.name})["rows"] == {"train": 300, "test": 60}, "and afterwards it loads"


@pytest.mark.parametrize(
    "fault",
    [
        Fault("^GET /api/", status=500, times=1),
        Fault("^GET /api/", status=429, times=2),
        Fault("^GET /datasets/.*train.*parquet", cut=0.5, times=2),
        Fault("^GET /datasets/.*train.*parquet", cut=0.0, times=1),
        Fault("^HEAD /datasets/.*parquet", status=503, times=1),
        Fault(".", delay=0.1),
    ],
)
def test_a_fault_that_passes_does_no_harm(local_hub, repository, ask, fault):
    local_hub.faults.append(replace(fault))
    found = ask(hub={"path": repository.name}, patience=(5.0, 6.0, (0.1, 0.2)))
    assert found.get("rows") == {"train": 300, "test": 60}, found
    assert found["seconds"] < 10


@pytest.mark.long
def test_with_its_usual_patience_wsr_gives_up_within_ten_seconds(local_hub, repository, ask):
    local_hub.faults.append(Fault("^GET /datasets/.*train.*parquet", stall=30))
    found = ask(hub={"path": repository.name})
    assert "it stopped in the middle of a file" in found["error"]
    assert found["seconds"] < 10


def test_a_hub_that_fails_later_is_replaced_by_the_cache(local_hub, repository, ask):
    ask(hub={"path": repository.name})
    local_hub.faults.append(Fault(".", status=500))
    found = ask(hub={"path": repository.name}, patience=QUICK)
    assert found["rows"] == {"train": 300, "test": 60}
    assert found["notes"] == [f"{repository.name}: read at its newest commit, {repository.commit}"]
    pinned = ask(hub={"path": repository.name, "revision": repository.commit}, patience=QUICK)
    assert pinned["rows"] == {"train": 300, "test": 60}
    other = ask(hub={"path": repository.name, "revision": "0" * 40}, patience=QUICK)
    assert other["error"] == (
        f"{repository.name}: expected revision {'0' * 40}, found {repository.commit} in the cache"
    )


def test_a_pinned_revision_is_read_and_needs_no_note(repository, ask):
    found = ask(hub={"path": repository.name, "revision": repository.commit})
    assert found["rows"] == {"train": 300, "test": 60}
    assert found["notes"] == []


def test_the_cache_gives_the_pinned_commit_although_it_holds_a_later_one(local_hub, repository, ask):
    pinned = {"path": repository.name, "revision": repository.commit}
    ask(hub=pinned)
    shorter = parquet(repository.name, [Config("default", TEXT, ("a", "b"), ("train",))], IN_DATA)
    local_hub.repositories["datasets"][repository.name] = shorter
    assert ask(hub={"path": repository.name})["rows"] == {"train": 300}
    local_hub.faults.append(Fault(".", status=500))
    assert ask(hub={"path": repository.name}, patience=QUICK)["rows"] == {"train": 300}
    assert ask(hub=pinned, patience=QUICK).get("rows") == {"train": 300, "test": 60}


def test_a_wrong_revision_gets_the_nearest(local_hub, repository, ask):
    local_hub.repositories["datasets"][repository.name] = replace(repository, tags=("v1.0", "v2.0"))
    found = ask(hub={"path": repository.name, "revision": "v2"})
    name = repository.name
    assert found.get("error", "none") == (
        f"{name}: the hub has no revision 'v2' of it; found main, v1.0, v2.0; nearest: v2.0; give its source another "
        f"revision, or name the dataset as {name} or {name}:CONFIG to read its newest commit"
    )
    assert ask(hub={"path": repository.name, "revision": "v2.0"})["rows"] == {"train": 300, "test": 60}


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"path": "made-up/none"}, "made-up/none: the hub has no dataset of this name, or it is private; check"),
        ({"path": "nyu-mll/glue", "revision": "v9"}, "has no revision 'v9' of it; found main; nearest: main; give its"),
        ({"path": "nyu-mll/glue", "config": "colla"}, "nyu-mll/glue: datasets cannot load it: BuilderConfig 'colla'"),
        (
            {"path": "nyu-mll/glue", "config": "mnli", "splits": {"train": "train", "test": "validation"}},
            "no split 'validation'; found train, validation_matched, validation_mismatched, test_matched, ",
        ),
        (
            {"path": "CogComp/trec"},
            "CogComp/trec: the repository holds a loading script (trec.py), which datasets 4 and later do not run; use "
            "the registered dataset trec_fine and trec_coarse; or load it with datasets 3",
        ),
    ],
)
def test_what_the_hub_does_not_have_is_told_in_one_line(ask, wanted, told):
    found = ask(hub=wanted)
    assert told in found.get("error", "none")
    assert "\n" not in found["error"]
    assert found["seconds"] < 10


def test_a_gated_dataset_says_how_to_get_it(local_hub, repository, ask):
    local_hub.repositories["datasets"][repository.name] = replace(repository, gated=True)
    found = ask(hub={"path": repository.name})
    assert found["error"] == (
        f"{repository.name}: the dataset is gated: accept its terms on its page on the hub, then log in with HF_TOKEN "
        "or `hf auth login`"
    )


def test_fewer_rows_than_the_card_says_are_refused(local_hub, repository, ask):
    """Half a file that was published whole is still no dataset."""
    card = repository.files["README.md"].replace(b"num_examples: 300", b"num_examples: 120000")
    changed = Repository(repository.name, {**repository.files, "README.md": card})
    local_hub.repositories["datasets"][repository.name] = changed
    found = ask(hub={"path": repository.name})
    assert "datasets cannot load it" in found.get("error", "none")
    assert "\n" not in found["error"]
    assert kept(found, repository) == []
