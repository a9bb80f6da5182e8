"""Shared by all tests: shapes checked at run time, compiled programs kept on disk, one small world a session."""

import ctypes
import gc
import os
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from jaxtyping import install_import_hook

install_import_hook("wsr", "typechecking.checked")

import jax
import pytest
from fault_trials import Trials

from wsr.runtime.compilation import use_persistent_cache

# Compiling takes most of the time of tests on small models: a second run compiles nothing.
use_persistent_cache()

FORGET_BYTES = 5 * 2**29


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--torture=FILE``: the long form of the tests of faults; what they count is kept in FILE."""
    parser.addoption("--torture", metavar="FILE", help="run faults as often as promised; write what was counted")


@pytest.fixture(scope="session")
def trials(request: pytest.FixtureRequest) -> Trials:
    """How often to try a fault: ``trials(10, torture=100)``."""
    file = request.config.getoption("--torture")
    return Trials(Path(file) if file else None)


@pytest.fixture(scope="session")
def tiny():
    """The tiny checkpoint."""
    from wsr.models import load

    return load("tiny")


@pytest.fixture(scope="session")
def dataset(tiny):
    """A made-up dataset of two classes."""
    from worlds import made_up

    return made_up(tiny, "made_up_a1")


@pytest.fixture(scope="session")
def classifiers(tiny, tmp_path_factory):
    """The folders ``m0`` and ``m1`` of two classifiers, which a test copies."""
    from classifiers import write_classifiers

    return write_classifiers(tiny, tmp_path_factory.mktemp("classifiers"))


@pytest.fixture
def pair(classifiers, tmp_path, monkeypatch):
    """A copy of the two classifiers, in the current folder."""
    from classifiers import copied

    monkeypatch.chdir(tmp_path)
    return copied(classifiers, tmp_path)


@pytest.fixture(scope="module")
def few_resamples():
    """Takes intervals of clusterings from 20 resamples, not 200: they are most of what a small experiment computes."""
    from wsr.studies.harness import clustered

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clustered, "CLUSTERED_RESAMPLES", 20)
        yield


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """Forgets compiled programs where they have come to take much memory; who needs one again reads it from the disk.

    Kept to the end they would be more than 5 GB in each worker.
    """
    if sys.platform == "linux" and _resident_bytes() > FORGET_BYTES:
        jax.clear_caches()
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed goes back to the system


def _resident_bytes() -> int:
    """The memory of this process."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Continuous integration installs PyTorch: there a parity test that cannot run is a failure and not a skip."""
    if os.environ.get("CI"):
        import torch  # noqa: F401
