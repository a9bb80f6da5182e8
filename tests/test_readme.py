"""The README's own commands and snippets, as a reader would run them, in an empty folder."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [line for language, block in BLOCKS if language == "sh" for line in block.splitlines()]
SNIPPETS = [block for language, block in BLOCKS if language == "python"]


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


def test_the_commands_run_in_order(folder):
    for command in COMMANDS:
        words = shlex.split(command)
        if words == ["make", "test"]:
            continue  # this is it
        if words == ["make", "demo"]:
            # The same path, in seconds and elsewhere.
            words = ["make", f"--directory={ROOT}", "demo", f"DEMO_FLAGS=--preset=smoke --out={folder / 'runs/smoke'}"]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    for made in ("runs/smoke/report.html", "runs/mine-map/map.html", "runs/mine-merged/model.safetensors"):
        assert (folder / made).is_file()


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_the_snippets_run(folder, snippet):
    done = subprocess.run([sys.executable, "-c", snippet], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_the_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (ROOT / target).is_file(), target


def test_the_rooms_of_the_list_exist_and_none_is_missing():
    named = set(re.findall(r"`(wsr/[\w.]+?)/?`", README.split("## Where things are")[1]))
    for name in named:
        assert (ROOT / name).exists(), name
    folders = {f"wsr/{path.name}" for path in (ROOT / "wsr").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= named
