"""What is kept of runs, and the page that is made of it."""

import gzip
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wsr.errors import WsrError
from wsr.report.document import Document, Figure, Section
from wsr.store.results import write_rows
from wsr.studies.harness.results import collect, load_kept, rendered

ROOT = Path(__file__).parent.parent
ROWS = [
    {"group": "In", "dataset": "a", "metric": "generalised_loss", "value": 0.5, "epochs": 2.0},
    {"group": "In", "dataset": "a", "metric": "generalised_loss", "value": 0.25, "epochs": 2.0},
    {"group": "In", "dataset": "a", "metric": "accuracy", "value": 0.75, "epochs": 2.0},
    {"group": "In'", "dataset": "a", "metric": "generalised_loss", "value": 0.125, "epochs": 2.0},
    {"group": "In'", "dataset": "b", "metric": "generalised_loss", "value": None, "epochs": 0.5},
    {"group": "In' > In", "dataset": "a", "metric": "P_B", "value": 1.0, "low": 0.75, "high": 1.0, "p_holm": 1e-5},
    {"group": "In' > In", "dataset": "b", "metric": "P_B", "value": 0.5},
]


@pytest.fixture
def kept(tmp_path):
    """A folder with one study."""
    run = tmp_path / "runs" / "hull"
    run.mkdir(parents=True)
    curve = {"series": [{"name": "one", "x": [0, 1], "y": [1, 2]}], "x_label": "alpha", "y_label": "loss"}
    section = Section(
        "The hull",
        "Is it lower?",
        "88 %",
        "79 % of pairs",
        "holds in part",
        ("Few.",),
        (Figure("curves", "Line", "Lower is better.", curve),),
    )
    document = Document("hull", ("The hull: holds in part.",), {"command": "python -m experiments.hull"}, (section,))
    (run / "plan.json").write_text(json.dumps({"experiment": "hull"}))
    (run / "document.json").write_text(document.to_json())
    write_rows(run / "results.jsonl", ROWS)
    folder = tmp_path / "docs" / "results"
    collect(run, folder, commit="abc123")
    return folder


def page(block):
    """A page with one empty block."""
    return f"# Page\n\n<!-- {block} -->\n<!-- end -->\n\nText.\n"


def lines(block, folder):
    """What a block becomes, without the rest of the page."""
    text = rendered(page(block), load_kept(folder))
    assert text.startswith("# Page\n\n")
    assert text.endswith("<!-- end -->\n\nText.\n")
    return text.splitlines()[3:-3]


def collect_metrics(kept, metrics):
    """Collects the study again with one row for each metric."""
    run = kept.parent.parent / "runs" / "hull"
    write_rows(run / "results.jsonl", [ROWS[2] | {"metric": name, "value": value} for name, value in metrics.items()])
    collect(run, kept, commit="abc123")


def test_what_is_kept_is_what_the_run_found(kept):
    own = load_kept(kept)["hull"]
    assert own.rows == ROWS
    assert (own.command, own.commit) == ("python -m experiments.hull", "abc123")
    assert own.document.sections[0].measured == "79 % of pairs"
    assert (kept / "figures" / "hull.0.svg").read_text().startswith("<")
    first = json.loads(gzip.decompress((kept / "hull.jsonl.gz").read_bytes()).splitlines()[0])
    assert first["plan"] == {"experiment": "hull"}


def test_collecting_again_changes_no_byte_and_leaves_no_stale_figure(kept, tmp_path):
    files = {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()}
    (kept / "figures" / "hull.7.svg").write_text("of an earlier run")
    collect(tmp_path / "runs" / "hull", kept, commit="abc123")
    assert {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()} == files


def test_a_table_of_several_rows_a_line_gives_mean_and_range(kept):
    found = lines("table: hull by=group,dataset,epochs metric=generalised_loss", kept)
    assert found == [
        "| group | dataset | epochs | values | generalised loss: mean | range |",
        "| --- | --- | --- | --- | --- | --- |",
        "| In | a | 2 | 2 | 0.375 | 0.250 to 0.500 |",
        "| In' | a | 2 | 1 | 0.125 | 0.125 to 0.125 |",
        "| In' | b | 0.5 | 1 | – | – |",
        "",
        "`python -m experiments.hull`, commit `abc123`, [rows](results/hull.jsonl.gz)",
    ]


def test_means_are_those_of_the_rows(kept):
    draw = np.random.default_rng(0)
    values = draw.normal(size=(3, 20))
    rows = [
        {"group": f"g{k}", "dataset": "d", "metric": "m", "value": value}
        for k, own in enumerate(values)
        for value in own
    ]
    write_rows(kept.parent.parent / "runs" / "hull" / "results.jsonl", rows)
    collect(kept.parent.parent / "runs" / "hull", kept, commit="x")
    body = [line.split(" | ") for line in lines("table: hull", kept)[2:5]]
    assert [float(cells[4]) for cells in body] == pytest.approx(values.mean(axis=1).tolist(), abs=5e-4)


def test_a_table_of_single_rows_gives_their_intervals(kept):
    assert lines("table: hull metric=P_B", kept)[:4] == [
        "| group | dataset | P_B | 95 % interval | p, Holm |",
        "| --- | --- | --- | --- | --- |",
        "| In' > In | a | 1.000 | 0.750 to 1.000 | < 0.001 |",
        "| In' > In | b | 0.500 | – | – |",
    ]


def test_other_values_choose_rows(kept):
    found = lines('table: hull by=dataset metric=generalised_loss group="In\'"', kept)
    assert [line.split(" | ")[0] for line in found[2:4]] == ["| a", "| b"]
    assert lines("table: hull by=group metric=generalised_loss epochs=2", kept)[2].startswith("| In | 2 | 0.375")


def test_findings_figures_and_verdict(kept):
    assert lines("findings: hull", kept) == ["- **The hull: holds in part.** 79 % of pairs.", "  - Few."]
    assert lines("figures: hull", kept) == ["*Line.* Lower is better.<br>![Line](results/figures/hull.0.svg)"]
    assert lines("figures: hull 0", kept) == lines("figures: hull", kept)
    assert lines("verdict: hull", kept) == ["**Verdict: holds in part.**"]
    assert lines("table: plane", kept) == ["Not run: there is no results/plane.jsonl.gz."]


def test_what_several_sections_say_is_said_once(kept):
    run = kept.parent.parent / "runs" / "hull"
    document = Document.from_json((run / "document.json").read_text())
    second = replace(document.sections[0], title="Again", text=("Few.", "Fewer."))
    (run / "document.json").write_text(replace(document, sections=(*document.sections, second)).to_json())
    collect(run, kept, commit="abc123")
    found = lines("findings: hull", kept)
    assert found == ["- **The hull: holds in part.** 79 % of pairs.", "  - Few.", found[2], "  - Fewer."]
    assert found[2].startswith("- **Again: holds in part.**")
    assert lines("verdict: hull", kept) == ["**Verdict: holds in part.**"]


def test_the_power_stands_beside_the_verdict(kept):
    path = kept / "hull.json"
    document = Document.from_json(path.read_text())
    (section,) = document.sections
    path.write_text(replace(document, sections=(replace(section, power="It shows 0.1 nats."),)).to_json())
    assert lines("verdict: hull", kept) == ["**Verdict: holds in part.** It shows 0.1 nats."]
    assert lines("findings: hull", kept)[-1] == "  - It shows 0.1 nats."


def test_verdicts_that_differ_are_given_section_by_section(kept):
    run = kept.parent.parent / "runs" / "hull"
    document = Document.from_json((run / "document.json").read_text())
    second = replace(document.sections[0], title="Again", verdict="holds")
    (run / "document.json").write_text(replace(document, sections=(*document.sections, second)).to_json())
    collect(run, kept, commit="abc123")
    assert lines("verdict: hull", kept) == ["- **The hull: holds in part.**", "- **Again: holds.**"]


def test_a_long_table_is_folded(kept):
    run = kept.parent.parent / "runs" / "hull"
    write_rows(run / "results.jsonl", [ROWS[0] | {"dataset": f"d{number}"} for number in range(31)])
    collect(run, kept, commit="abc123")
    found = lines("table: hull", kept)
    assert found[:3] == [
        '<details markdown="1"><summary>31 lines: group, dataset, metric, value</summary>',
        "",
        "| group | dataset | metric | value |",
    ]
    assert sum(line.startswith("| In |") for line in found) == 31
    assert "</details>" in found
    assert lines("table: hull by=group folded=yes", kept)[0].startswith("<details")
    assert not lines("table: hull by=group", kept)[0].startswith("<details")


def test_a_page_made_twice_is_the_same(kept):
    once = rendered(page("table: hull") + page("verdict: hull"), load_kept(kept))
    assert rendered(once, load_kept(kept)) == once


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (page("table: hull metric=nonsense"), "table of hull: no row has metric=nonsense, group, dataset"),
        ("<!-- table: hull -->\n", "a block is not closed; add <!-- end -->"),
        (page("figures: hull 1"), "figures of hull: expected numbers below 1, got 1"),
    ],
)
def test_a_page_that_cannot_be_made_is_an_error(kept, text, told):
    with pytest.raises(WsrError, match=told):
        rendered(text, load_kept(kept))


def test_damage_and_unfinished_runs_are_named(kept, tmp_path):
    (tmp_path / "runs" / "hull" / "results.jsonl").unlink()
    with pytest.raises(WsrError, match=r"no finished run, since it has no results\.jsonl"):
        collect(tmp_path / "runs" / "hull", kept, commit="x")
    file = kept / "hull.jsonl.gz"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(WsrError, match=r"hull\.jsonl\.gz: cannot be read"):
        load_kept(kept)


def run(module, *arguments):
    """A command of experiments/ in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", f"experiments.{module}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.long
def test_the_commands_collect_write_and_compare(kept, tmp_path):
    done = run("collect", f"--runs={tmp_path / 'runs'}", f"--to={kept}", "--commit=feedbee")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("hull: 3 files, ")
    file = kept.parent / "results.md"
    file.write_text(page("table: hull metric=P_B"))
    flags = (f"--page={file}", f"--kept={kept}")
    differs = run("results", *flags)
    assert differs.returncode == 1
    assert "+| In' > In | b | 0.500 | – | – |" in differs.stdout
    assert "feedbee" in differs.stdout
    assert run("results", *flags, "--write").returncode == 0
    same = run("results", *flags)
    assert (same.returncode, same.stdout) == (0, "no difference\n")
    absent = run("results", f"--page={tmp_path / 'no.md'}")
    assert absent.returncode == 1
    assert absent.stderr.count("\n") == 1
    assert "there is no page" in absent.stderr
    nothing = run("collect", f"--runs={tmp_path / 'nowhere'}")
    assert nothing.returncode == 1
    assert "holds no run" in nothing.stderr


def test_a_table_may_have_a_column_for_each_value(kept):
    made = rendered(page("table: hull by=group across=dataset metric=P_B"), load_kept(kept))
    assert "| group | a | b |\n| --- | --- | --- |\n| In' > In | 1.000 | 0.500 |\n" in made
    with_ends = lines("table: hull by=group across=dataset metric=P_B interval=yes", kept)
    assert with_ends[2] == "| In' > In | 1.000 (0.750 to 1.000) | 0.500 |"
    assert lines("table: hull by=group across=dataset metric=generalised_loss", kept)[2] == "| In | 0.375 | – |"
    with pytest.raises(WsrError, match="no row has metric=nothing"):
        rendered(page("table: hull by=group across=dataset metric=nothing"), load_kept(kept))


def test_columns_may_be_chosen_and_counts_have_no_fraction(kept):
    collect_metrics(kept, {"rank": 2.5, "accuracy, own head": 0.75, "texts read": 1234.0})
    assert lines('table: hull by=group across=metric columns="texts read|accuracy, own head"', kept)[:3] == [
        "| group | texts read | accuracy, own head |",
        "| --- | --- | --- |",
        "| In | 1,234 | 0.750 |",
    ]


def test_the_halves_of_a_metric_may_be_line_and_column(kept):
    metrics = {"adjusted_rand, spectral": 0.5, "adjusted_rand, spectral, clipped": 0.75, "mean cosine": 0.25}
    collect_metrics(kept, metrics)
    assert lines("table: hull by=measure across=method", kept)[:3] == [
        "| measure | spectral | spectral, clipped |",
        "| --- | --- | --- |",
        "| adjusted Rand index | 0.500 | 0.750 |",
    ]


@pytest.mark.parametrize(
    ("inverse_l2", "told"),
    [(1.0, "linear probe, C = 1, "), (0.0, "linear probe, C by 5-fold cross-validation on standardised features, ")],
)
def test_a_page_says_which_probe_its_rows_had(kept, inverse_l2, told):
    run = kept.parent.parent / "runs" / "hull"
    plan = {"experiment": "hull", "preset": {"probe": "linear", "inverse_l2": inverse_l2}}
    (run / "plan.json").write_text(json.dumps(plan))
    collect(run, kept, commit="abc123")
    assert f"commit `abc123`, {told}[rows]" in rendered(page("table: hull"), load_kept(kept))


def test_links_lead_from_the_page_to_the_folder_of_the_studies(kept):
    assert "[rows](hull.jsonl.gz)" in rendered(page("table: hull"), load_kept(kept), results=".")
