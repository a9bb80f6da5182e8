"""Where tests of launchers run them: a repository of its own, and stand-ins for the programs that they call."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
STUDY = ["-m", "experiments.task_clusters"]


@dataclass
class Place:
    """A repository of launchers and one empty experiment, with stand-ins for all programs."""

    path: Path
    environment: dict[str, str]

    def run(self, *words: str | Path, answers: list[tuple[str, str, int]] = [], **more: str) -> Any:  # noqa: B006
        """Runs a command there, from no calls."""
        self.calls_file.unlink(missing_ok=True)
        environment = self.environment | {"ANSWERS": json.dumps(answers)} | more
        return subprocess.run(words, cwd=self.path, env=environment, capture_output=True, text=True, timeout=60)

    def start(self, *words: str, **more: str) -> subprocess.Popen:
        """Starts a command there whose python sleeps until SIGTERM, and waits until that sleeps."""
        python = self.path / ".venv/bin/python"
        sleeper = (
            "#!/bin/bash\ntrap 'touch stopped-$$; exit 143' TERM\ntouch started-$$\nwhile :; do sleep 0.05; done\n"
        )
        python.write_text(sleeper)
        process = subprocess.Popen(
            words,
            cwd=self.path,
            env=self.environment | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A shell cannot trap a signal that was ignored when it began, as SIGINT is in the background of a script.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )
        deadline = time.monotonic() + 30
        while len(list(self.path.glob("started-*"))) < int(more.get("SLEEPERS", "1")):
            assert time.monotonic() < deadline, process.communicate()
            time.sleep(0.02)
        return process

    @property
    def calls_file(self) -> Path:
        return Path(self.environment["CALLS"])

    def calls(self, program: str) -> list[list[str]]:
        """The words of each call of a program, without its name."""
        lines = self.calls_file.read_text().splitlines() if self.calls_file.exists() else []
        return [words[1:] for line in lines if (words := json.loads(line)["words"])[0] == program]


def made_place(tmp_path: Path) -> Place:
    """Makes one, with nothing of the system but a few tools."""
    path = tmp_path / "repository"
    shutil.copytree(ROOT / "launch", path / "launch")
    (path / "experiments").mkdir()
    (path / "experiments" / "task_clusters.py").touch()
    programs = tmp_path / "programs"
    for folder, names in (
        (programs, ("gcloud", "sbatch", "scontrol", "sky", "kubectl", "make", "git", "curl")),
        (path / ".venv/bin", ("python", "wsr")),
    ):
        folder.mkdir(parents=True)
        for name in names:
            program = folder / name
            program.write_text(f"#!{sys.executable} -ES\n" + (ROOT / "tests/fakes/program.py").read_text())
            program.chmod(0o755)
    # No PATH of the system: the machine may have a gcloud of its own, and a test must never reach it.
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("awk", "bash", "dirname", "env", "envsubst", "mkdir", "sleep", "tail", "tee", "touch"):
        found = shutil.which(name)
        assert found, f"this test needs {name}"
        (tools / name).symlink_to(found)
    environment = {"PATH": f"{programs}:{tools}", "CALLS": str(tmp_path / "calls"), "HOME": str(tmp_path)}
    return Place(path, environment)


def refused(place: Place, words: list[str], line: str, **more: str) -> None:
    done = place.run(*words, **more)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert line in done.stderr
    assert not place.calls_file.exists()
