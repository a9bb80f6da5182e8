"""The help of every command: its form, its words, and examples that run as they are printed."""

import csv
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from wsr.cli import VERBS, main
from wsr.cli.flags import DEBUG
from wsr.cli.help import WIDTH, help_of
from wsr.merging.method import METHODS, find, options_of
from wsr.training import Recipe

PAGES = {verb: importlib.import_module(f"wsr.cli.{verb.replace('-', '_')}").PAGE for verb in VERBS}
VARIANTS = {f"merge {words}": page for words, page in PAGES["merge"].variants.items()}
EXPERIMENTS = sorted(
    path.stem
    for path in (Path(__file__).parent.parent / "experiments").glob("*.py")
    if "    launch(main, " in path.read_text(encoding="utf-8")
)
NOT_RUN = {
    "wsr demo": "minutes; tests/test_readme.py runs the same path on the smoke preset",
    "wsr demo --preset=smoke --out=runs/smoke": "tests/test_studies.py runs it",
}
ORDER = (
    "plan",
    "train",
    "export",
    "extract",
    "average",
    "import",
    "ls",
    "verify",
    "map",
    "check",
    "diff",
    "lineage",
    "align",
    "atlas",
    "evaluate",
    "explore",
    "pareto",
    "compare",
    "suggest",
    "merge",
    "bench-merging",
)
"""An example may need what an earlier one wrote."""


def experiment_pages():
    from experiments.launcher import page_of

    pages = {}
    for name in EXPERIMENTS:
        module = importlib.import_module(f"experiments.{name}")
        pages[name] = page_of(name, module.__doc__, type(module.SETTINGS["smoke"]))
    for name in ("collect", "demo", "merge_forecast", "power", "pretrain", "results"):
        pages[name] = importlib.import_module(f"experiments.{name}").PAGE
    return pages


ALL_PAGES = {**PAGES, **VARIANTS, **{f"experiments.{name}": page for name, page in experiment_pages().items()}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files that examples read; runs/mine is made by the first example of wsr train."""
    from wsr.data.made_up import MadeUp
    from wsr.report.document import Document, Section

    place = tmp_path_factory.mktemp("examples")
    cells = MadeUp("made_up_a", "reviews", texts=120).read()["train"].columns
    with (place / "reviews.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["review", "stars"])
        writer.writerows(zip(cells["text"], cells["label"], strict=True))
    for run in ("runs/demo", "runs/packaged/convex_hull"):
        (place / run).mkdir(parents=True)
        section = Section(title=run, question="?", paper="", measured="0.5", verdict="not tested", command="wsr demo")
        document = Document(run, ("A finding.",), {"command": "wsr demo"}, (section,))
        (place / run / "document.json").write_text(document.to_json(), encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def outputs(folder):
    """What the examples of all verbs printed, in the order in which they build on one another."""
    import contextlib
    import io

    printed = {}
    with contextlib.chdir(folder):
        for verb in (*ORDER, "report"):
            for example in PAGES[verb].examples:
                program, *words = shlex.split(example)
                assert program == "wsr"
                out, err = io.StringIO(), io.StringIO()
                with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                    status = main(words)
                printed[example] = (status, out.getvalue(), err.getvalue())
    return printed


def test_every_example_is_run_or_has_a_reason():
    listed = {example for page in PAGES.values() for example in page.examples}
    assert set(NOT_RUN) <= listed
    assert {verb for verb in VERBS if not set(PAGES[verb].examples) & set(NOT_RUN)} == {*ORDER, "report"}


@pytest.mark.parametrize(
    "example", [example for page in PAGES.values() for example in page.examples if example not in NOT_RUN]
)
@pytest.mark.long
def test_an_example_runs_as_it_is_printed(outputs, example):
    status, out, err = outputs[example]
    assert status == 0, err
    assert out.strip()


@pytest.mark.parametrize("name", [name for name in METHODS if find(name).members[1]])
@pytest.mark.long
def test_an_example_names_as_many_members_as_its_method_merges(outputs, folder, monkeypatch, capsys, name):
    monkeypatch.chdir(folder)
    (example,) = VARIANTS[f"merge --method={name}"].examples
    assert main(shlex.split(example)[1:]) == 0, capsys.readouterr().err
    assert (folder / f"runs/{name}/model.safetensors").is_file()


@pytest.mark.long
def test_examples_write_what_they_name(outputs, folder):
    for made in (
        "runs/theirs/first/model.safetensors",
        "runs/mine-map/map.html",
        "runs/rows.jsonl",
        "runs/ties-0.3/model.safetensors",
        "runs/ranking.jsonl",
        "runs/both.html",
    ):
        assert (folder / made).is_file(), made


@pytest.mark.parametrize("verb", VERBS)
def test_a_page_has_usage_two_examples_groups_and_debug_last(verb):
    text = help_of(PAGES[verb])
    assert text.startswith(f"Usage: wsr {verb}")
    assert len(PAGES[verb].examples) == 2
    joined = re.sub(r" \\\n\s+", " ", text)
    for example in PAGES[verb].examples:
        assert f"\n  {example}\n" in joined
    listed = re.findall(r"^  --([a-z0-9_]+)", text, re.MULTILINE)
    assert listed == [flag.name for group in (*PAGES[verb].groups, DEBUG) for flag in group.flags]
    assert listed[-1] == "debug"


@pytest.mark.parametrize("name", ALL_PAGES)
def test_every_text_is_a_sentence_and_the_page_fits(name):
    page = ALL_PAGES[name]
    assert page.what.endswith((".", "?", ")")), page.what
    flags = page.flags
    assert len({flag.name for flag in flags}) == len(flags)
    for flag in flags:
        assert flag.what.endswith("."), flag.name
        assert not flag.what.startswith("Of "), flag.name
        assert flag.what[0].isupper() or flag.what.startswith("mergekit"), flag.name
    text = help_of(page)
    assert max(map(len, text.splitlines())) <= max(WIDTH, 120 if name.startswith("experiments.") else WIDTH)
    for group in page.groups:
        assert f"\n{group.heading}:\n" in text


def terms_of(text, flag):
    """What a page says of a flag, on one line, up to the end of its terms."""
    return " ".join(text.split(f"\n  --{flag}=", 1)[1].split("]", 1)[0].split())


@pytest.mark.parametrize("name", [*VERBS, *VARIANTS])
def test_every_option_tells_its_default(name):
    text = help_of(ALL_PAGES[name])
    for group in ALL_PAGES[name].groups:
        for flag in group.flags:
            terms = terms_of(text, flag.name)
            assert "default: " in terms or "required" in terms, flag.name


@pytest.mark.parametrize("name", METHODS)
def test_a_method_tells_its_own_options_words_and_defaults(name, capsys):
    """Against the dataclass itself: the defaults that a merge would use."""
    assert main(["merge", f"--method={name}", "--help"]) == 0
    text = capsys.readouterr().out
    main(["merge", "--help", "--method", name])
    assert capsys.readouterr().out == text
    kind = find(name)
    method = kind()
    listed = re.findall(r"^  --([a-z0-9_]+)", text, re.MULTILINE)
    assert listed == [*options_of(kind), "debug"]
    for option, about in options_of(kind).items():
        value, told = getattr(method, option), terms_of(text, option)
        default = told.rpartition("default: ")[2]
        assert about.what in told
        if value is None:
            assert default == about.otherwise
        elif isinstance(value, bool):
            assert default == str(value).lower()
        elif isinstance(value, float):
            assert float(default) == pytest.approx(value, rel=1e-5)
        else:
            assert default == str(value)


def test_options_that_methods_share_have_the_words_of_each(capsys):
    def told(method):
        main(["merge", f"--method={method}", "--help"])
        return " ".join(capsys.readouterr().out.split())

    assert "[number; default: 1]" in told("ties")
    assert "default: 1 / members" in told("dare_linear")
    assert "Number of gradient steps" in told("learned_free")
    assert "--on=DATASET,..." in told("learned")
    assert "Largest number of steps" in told("karcher")


def test_the_general_page_of_merge_lists_methods_and_no_options(capsys):
    main(["merge", "--help"])
    text = capsys.readouterr().out
    assert not {"density", "steps", "rescale"} & set(re.findall(r"^  --([a-z0-9_]+)", text, re.MULTILINE))
    table = " ".join(text.split())
    for name in METHODS:
        row = table.split(f" {name} ", 1)[1]
        options = ", ".join(options_of(find(name)))
        assert not options or f"[{options}]" in row


def test_train_has_the_defaults_of_a_recipe():
    recipe = Recipe()
    flags = {flag.name: flag.default for flag in PAGES["train"].flags}
    shared = flags.keys() & recipe.__dataclass_fields__
    assert {"batch_size", "epochs", "warmup", "learning_rate", "weight_decay", "mode", "dropout"} <= shared
    assert {name: flags[name] for name in shared} == {name: getattr(recipe, name) for name in shared}
    assert (recipe.batch_size, recipe.epochs, recipe.warmup) == (32, 3.0, 0.06)


def test_the_preset_of_the_paper_keeps_the_papers_recipe():
    from wsr.studies.harness.preset import PRESETS

    recipe = PRESETS["paper"].recipe
    assert (recipe.batch_size, recipe.epochs, recipe.warmup, recipe.learning_rate) == (256, 10.0, 0.006, 5e-5)


def test_the_overview_imports_neither_jax_nor_numpy():
    code = (
        "import sys; from wsr.cli import main; main(['--help']); "
        "assert not {'jax', 'numpy', 'jaxtyping'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    listed = re.findall(r"^  ([a-z-]+)  +\S", done.stdout, re.MULTILINE)
    assert listed == list(VERBS)


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["ls"], 1, "expected one store, found none"),
        (["ls", "a", "--store=b"], 1, "expected one store, found b and a"),
        (["evaluate", "--store=x"], 1, "--on is needed: Datasets to score on"),
        (["check", "one", "two", "--store=x"], 1, "unexpected 'two'"),
        (["merge", "--to=x"], 1, "--store is needed"),
        (["train", "--mode=ful"], 2, "full|bitfit|lora|head"),
    ],
)
def test_wrong_calls_say_what_was_expected(words, status, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == status
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
