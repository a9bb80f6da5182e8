"""Shared by all tests: shapes checked at run time, compiled programs kept on disk, one small world a session."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from jaxtyping import install_import_hook

install_import_hook("wsr", "typechecking.checked")

import pytest

from wsr.compilation import use_persistent_cache

# Compiling takes most of the time of tests on small models: a second run compiles nothing.
use_persistent_cache()


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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Continuous integration installs PyTorch: there a parity test that cannot run is a failure and not a skip."""
    if os.environ.get("CI"):
        import torch  # noqa: F401
