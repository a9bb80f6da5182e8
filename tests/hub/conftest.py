"""A hub on this machine, and a process that reads from it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_model import roberta
from hub_repositories import isear, repositories
from hub_server import LocalHub


@pytest.fixture(scope="session")
def local_hub() -> Iterator[LocalHub]:
    """The hub, with the repositories of the paper's datasets."""
    with LocalHub(repositories(), {roberta().name: roberta()}).running() as hub:
        yield hub


@pytest.fixture(scope="session")
def ask(local_hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., dict[str, Any]]]:
    """Asks a process with an empty cache for a dataset: ``ask(name="cola")``, ``ask(hub={"path": ...})``.

    The answer for a name is kept; ``again`` asks once more.
    """
    folder = tmp_path_factory.mktemp("hub")
    (folder / "isear.csv").write_text(isear())
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTEST"))}
    environment |= {"HF_ENDPOINT": local_hub.address, "HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment |= {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    environment |= {"JAX_PLATFORMS": "cpu", "no_proxy": "127.0.0.1"}
    program = Path(__file__).parent / "hub_client_process.py"
    root = Path(__file__).parent.parent.parent
    environment["PYTHONPATH"] = os.pathsep.join([str(root), environment.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, str(program)],
        env=environment,
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"

    answers: dict[str, dict[str, Any]] = {}

    def asked(*, again: bool = False, **request: Any) -> dict[str, Any]:
        name = request.get("name", "")
        if again or name not in answers:
            print(json.dumps(request), file=process.stdin, flush=True)
            answer = json.loads(process.stdout.readline())
            if again or not name:
                return answer
            answers[name] = answer
        return answers[name]

    yield asked
    process.stdin.close()
    process.wait(20)
