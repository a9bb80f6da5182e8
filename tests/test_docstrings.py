"""Every public name carries an example, and every example runs and prints what it says."""

import ast
import doctest
import importlib
import inspect
from pathlib import Path
from unittest.mock import patch

import pytest

import wsr
from wsr.data import table
from wsr.merging import method
from wsr.models import registry

ROOT = Path(wsr.__file__).parent
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
WITHOUT = {"demo", "report", "models", "data", "merging", "sampling"}
"""Rooms, whose functions have examples of their own, and what fetches from a package index."""


def module_of(path: Path) -> str:
    """The dotted name of a file of the package."""
    return ".".join(("wsr", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


SLOW = {
    "wsr.engine.hull_search",
    "wsr.engine.learned_coefficients",
    "wsr.engine.recipe_check",
    "wsr.engine.surrogate",
    "wsr.engine.zero_shot",
    "wsr.merging.sparse",
    "wsr.report.explorer.explore",
    "wsr.report.explorer.pareto",
    "wsr.studies.bench_merging",
    "wsr.training.members",
}
"""Examples that take two seconds and more; ``make test-long`` runs them."""
WITH_EXAMPLES = sorted(module_of(path) for path in ROOT.rglob("*.py") if ">>>" in path.read_text(encoding="utf-8"))


def public_names() -> dict[str, object]:
    """The face, and the functions and classes of the rooms that it offers."""
    found = {f"wsr.{name}": getattr(wsr, name) for name in wsr.__all__ if name not in WITHOUT}
    for room in ("models", "data", "merging"):
        space = getattr(wsr, room)
        found |= {f"wsr.{room}.{name}": getattr(space, name) for name in space.__all__}
    found |= {
        f"wsr.sampling.{name}": own
        for name, own in vars(wsr.sampling).items()
        if inspect.isfunction(own) and own.__module__ == "wsr.geometry.sampling" and name[0] != "_"
    }
    return {name: own for name, own in found.items() if inspect.isfunction(own) or inspect.isclass(own)}


@pytest.mark.parametrize("name", sorted(public_names()))
def test_a_public_name_has_an_example(name):
    own = public_names()[name]
    if inspect.isclass(own) and issubclass(own, Exception):
        pytest.skip("an error is raised, not called")
    assert ">>>" in (inspect.getdoc(own) or ""), f"{name} in {own.__module__} has no example"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name in SLOW else name for name in WITH_EXAMPLES]
)
def test_examples_print_what_they_say(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # What an example registers is gone after it: other tests of this process count what is registered.
    monkeypatch.setattr(registry, "_checkpoints", dict(registry._checkpoints))
    monkeypatch.setattr(registry, "_architectures", dict(registry._architectures))
    monkeypatch.setattr(table, "_TABLE", dict(table._TABLE))
    module = importlib.import_module(name)
    # The import hook of the tests wraps functions: the docstrings are read from the source, with their lines.
    tests = examples_of(module)
    assert tests
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    told: list[str] = []
    with patch.dict(method._KNOWN):
        for test in tests:
            runner.run(test, out=told.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(told)


def examples_of(module: object) -> list[doctest.DocTest]:
    """The examples in the docstrings of a module's functions, classes and methods."""
    path = Path(str(inspect.getsourcefile(module)))  # type: ignore[arg-type]
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            text = ast.get_docstring(node, clean=False) or ""
            if ">>>" in text:
                own = "module" if isinstance(node, ast.Module) else node.name
                line = 0 if isinstance(node, ast.Module) else node.lineno
                found.append(doctest.DocTestParser().get_doctest(text, {}, own, str(path), line))
    return found
