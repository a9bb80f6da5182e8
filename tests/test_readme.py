"""Commands and snippets of the README and the pages that follow it, as a reader runs them, in an empty folder."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks(README, "sh") for line in block.splitlines()]
GOING_ON = [
    line
    for page in ("evaluate", "checkpoints")
    for block in blocks(ROOT / "docs" / f"{page}.md", "sh")
    for line in block.splitlines()
    if line not in COMMANDS
]
"""Commands of two pages, which take the README's store further."""
SNIPPETS = {
    "README": blocks(README, "python"),
    "datasets": blocks(ROOT / "docs" / "datasets.md", "python"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An empty folder that has only what the commands name: the environment."""
    place = tmp_path_factory.mktemp("reader")
    (place / ".venv").symlink_to(sys.prefix)
    return place


def test_the_two_commands_are_named_and_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert COMMANDS[:2] == ["make demo", "make test"]
    assert re.search(r"^demo:", makefile, re.MULTILINE)
    assert re.search(r"^test:.*\blint\b", makefile, re.MULTILINE)


@pytest.mark.long
def test_the_commands_run_in_order(folder):
    for command in [*COMMANDS, *GOING_ON]:
        words = shlex.split(command)
        if words == ["make", "test"]:
            continue  # this is it
        if words == ["make", "demo"]:
            # The same path, in seconds and elsewhere.
            words = ["make", f"--directory={ROOT}", "demo", f"DEMO_FLAGS=--preset=smoke --out={folder / 'runs/smoke'}"]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    for made in (
        "runs/smoke/report.html",
        "runs/mine-map/map.html",
        "runs/mine-merged/model.safetensors",
        "runs/ties/config.json",
    ):
        assert (folder / made).is_file()


@pytest.mark.long
@pytest.mark.parametrize("page", SNIPPETS)
def test_the_snippets_run(folder, page):
    assert SNIPPETS[page]
    for snippet in SNIPPETS[page]:
        done = subprocess.run([sys.executable, "-c", snippet], cwd=folder, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
