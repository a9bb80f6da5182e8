"""The house: which rooms there are, and that imports point up their list only, read from the code's own imports."""

import ast
from pathlib import Path

import pytest

import wsr

ROOT = Path(wsr.__file__).parent
VOCABULARY = ("types", "errors")
ROOMS = (
    "runtime",
    "geometry",
    "statistics",
    "data",
    "models",
    "store",
    "training",
    "region",
    "engine",
    "exchange",
    "merging",
    "planning",
    "report",
    "studies",
    "cli",
)
"""In the order in which the data flows."""
PLACE = {name: place for place, name in enumerate((*VOCABULARY, *ROOMS))}
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def imports_of(source: str) -> list[tuple[int, str]]:
    """Line and dotted name of everything that a file imports from wsr, wherever in it the statement stands."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "wsr":
            modules = [f"wsr.{alias.name}" for alias in node.names] if node.module == "wsr" else [str(node.module)]
            found += [(node.lineno, module) for module in modules]
        elif isinstance(node, ast.ImportFrom) and node.level:
            found.append((node.lineno, "a relative import"))
        elif isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names if alias.name.split(".")[0] == "wsr"]
    return found


def climbing(room: str, source: str) -> list[tuple[int, str]]:
    """The imports of a file of ``room`` that point down the list, or at the face, which stands above all rooms."""
    return [
        (line, module)
        for line, module in imports_of(source)
        if module not in ("wsr", "wsr.__version__")
        and PLACE.get(module.partition(".")[2].partition(".")[0], len(PLACE)) > PLACE[room]
    ]


def test_the_top_of_the_package_has_the_rooms_and_nothing_else():
    found = {path.name for path in ROOT.iterdir() if path.name not in ("__pycache__", "__init__.py", "py.typed")}
    assert found == {*ROOMS, *(f"{name}.py" for name in VOCABULARY)}
    assert all((ROOT / room / "__init__.py").is_file() for room in ROOMS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_up_the_list(path):
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert not climbing(room, path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "source",
    [
        "from wsr.cli import main",
        "def later():\n    from wsr.region.region import Region",
        "import wsr.engine.evaluate",
        "from wsr import evaluate",
        "from . import trees",
    ],
)
def test_what_points_down_is_found(source):
    assert climbing("geometry", source)


def test_every_file_of_a_room_stands_in_its_list():
    """A room's docstring says what each of its files is for, unless the room is one of registered parts."""
    for room in ROOMS:
        listed = ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text(encoding="utf-8"))) or ""
        if ".py" not in listed:
            continue
        missing = [path.name for path in (ROOT / room).glob("*.py") if path.name not in listed]
        assert [name for name in missing if name != "__init__.py"] == [], room
