"""The command line in processes that start in a moment: one script imports what verbs need, and forks for each call.

A fork has what a process has: output and exit status of its own, a JAX that has started nothing.
"""

import atexit
import functools
import importlib
import json
import os
import pkgutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
OUTPUT = ("out", "err")


def wsr(*words: object, timeout: float = 240) -> subprocess.CompletedProcess:
    """Runs ``wsr WORDS`` and returns what it printed and its exit status."""
    command = list(map(str, words))
    with tempfile.TemporaryDirectory() as folder:
        script = _script()
        script.stdin.write(json.dumps([folder, timeout, command]) + "\n")
        script.stdin.flush()
        status = script.stdout.readline()
        assert status, "the script ended"
        out, err = (Path(folder, name).read_text(encoding="utf-8") for name in OUTPUT)
    return subprocess.CompletedProcess(command, int(status), out, err)


@functools.cache
def _script() -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    script = subprocess.Popen(
        [sys.executable, __file__], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(lambda: (script.stdin.close(), script.wait()))
    return script


def _serve() -> None:
    """Forks for each line of stdin, one after another, and writes its exit status."""
    for line in sys.stdin:
        folder, timeout, words = json.loads(line)
        child = os.fork()
        if not child:
            _call(folder, timeout, words)
        _, status = os.waitpid(child, 0)
        os.write(1, f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _call(folder: str, timeout: float, words: list[str]) -> None:
    """Becomes ``wsr WORDS``; does not return."""
    signal.alarm(int(timeout))  # ends it, unless it is done by then
    for descriptor, name in enumerate(OUTPUT, start=1):
        file = os.open(Path(folder, name), os.O_WRONLY | os.O_CREAT)
        os.dup2(file, descriptor)
    try:
        status = main(words)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    import signal
    import traceback

    import datasets  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import sklearn.cluster
    import sklearn.linear_model  # noqa: F401
    import transformers  # noqa: F401

    import wsr as package
    from wsr.cli import main

    for module in pkgutil.walk_packages(package.__path__, "wsr."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    _serve()
