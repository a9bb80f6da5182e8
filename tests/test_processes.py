"""Jobs in forked processes: in a process of their own, because JAX, which tests import, forbids forks."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from wsr.runtime.processes import may_fork

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux")

BEGIN = """
import os, sys, time
sys.path.insert(0, {root!r})
from wsr.errors import WsrError
from wsr.runtime import processes
from wsr.runtime.processes import in_processes, may_fork
assert may_fork()
processes.usable_cores = lambda: 3
"""


def run(code: str) -> subprocess.CompletedProcess:
    """Runs code in a process without JAX."""
    begin = BEGIN.format(root=str(Path(__file__).parent.parent))
    return subprocess.run([sys.executable, "-c", begin + code], capture_output=True, text=True, timeout=60, check=False)


def test_each_item_is_worked_on_once_in_another_process_and_done_here_afterwards(tmp_path):
    done = run(f"""
os.chdir({str(tmp_path)!r})
def work(item): open(item, "x").write(str(os.getpid()))
seen = []
in_processes(work, list("abcdefg"), lambda item: seen.append((item, int(open(item).read()))))
assert sorted(item for item, _ in seen) == list("abcdefg")
assert os.getpid() not in dict(seen).values()
assert 1 < len({{process for _, process in seen}}) <= 3, seen
in_processes(work, [], None)
""")
    assert done.returncode == 0, done.stderr


def test_a_process_knows_the_item_after_its_own(tmp_path):
    done = run(f"""
os.chdir({str(tmp_path)!r})
def note(what, item): open(str(os.getpid()), "a").write(what + item + " ")
in_processes(lambda item: note("work ", item), list("abcdefg"), lambda item: None, lambda item: note("coming ", item))
items = []
for name in os.listdir("."):
    steps = open(name).read().split()
    pairs = list(zip(steps[::2], steps[1::2]))
    own = [item for what, item in pairs if what == "work"]
    assert [item for what, item in pairs if what == "coming"] == own[1:]
    assert [what for what, _ in pairs] == (["coming", "work"] * len(own))[: 2 * len(own) - 2] + ["work"], pairs
    items += own
assert sorted(items) == list("abcdefg")
""")
    assert done.returncode == 0, done.stderr


def test_an_error_is_raised_as_it_is(tmp_path):
    done = run("""
def work(item):
    if item == 2: raise OSError(28, "No space left on device")
try:
    in_processes(work, range(5), lambda item: None)
except OSError as error:
    assert error.errno == 28
    assert "in work" in error.__notes__[0]
else:
    raise AssertionError
def refuse(item): raise WsrError("not " + str(item))
try:
    in_processes(lambda item: None, [4], refuse)
except WsrError as error:
    assert str(error) == "not 4"
else:
    raise AssertionError
""")
    assert done.returncode == 0, done.stderr


def test_a_process_that_is_killed_is_told():
    done = run("in_processes(lambda item: os.kill(os.getpid(), 9), [1], print)")
    assert done.returncode == 1
    assert "WsrError: a process was killed while it worked" in done.stderr


def test_processes_end_with_a_parent_that_is_killed(tmp_path):
    done = run(f"""
os.chdir({str(tmp_path)!r})
def work(item):
    open(str(os.getpid()), "x").close()
    while len(os.listdir(".")) < 3: time.sleep(0.01)
    if item == 0: os.kill(os.getppid(), 9)
    time.sleep(60)
in_processes(work, range(3), print)
""")
    assert done.returncode == -9
    own = [Path("/proc") / path.name for path in tmp_path.iterdir()]
    deadline = time.monotonic() + 10
    while alive := [path for path in own if path.exists() and "State:\tZ" not in (path / "status").read_text()]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.05)


def test_there_are_no_forks_beside_jax():
    assert not may_fork()  # tests import JAX
