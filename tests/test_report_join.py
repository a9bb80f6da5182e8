"""Several studies as one document, and the verb that renders them."""

import dataclasses
import subprocess
import sys

import pytest
from test_report_example import document

from wsr.report.join import join


def test_one_document_stays_as_it_is():
    assert join([document()]) == document()


def test_sections_come_in_order_and_shared_facts_once():
    first = dataclasses.replace(document(), title="first", facts={"Base": "tiny", "device": "cpu", "command": "a"})
    second = dataclasses.replace(document(), title="second", facts={"Base": "tiny", "device": "gpu", "command": "b"})
    joined = join([first, second])
    assert joined.sections == first.sections + second.sections
    assert joined.facts == {"Studies": "first, second", "Base": "tiny", "device": "first: cpu; second: gpu"}
    assert joined.summary == (
        "12 questions of 2 studies. Verdicts: holds 4, holds in part 4, refuted 2, not tested 2.",
    )


def report(*arguments):
    command = [sys.executable, "-m", "wsr.cli", "report", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.long
def test_the_verb_writes_one_page_beside_the_runs_and_the_figures(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        short = dataclasses.replace(document(), title=name, sections=document().sections[2:3])
        (tmp_path / name / "document.json").write_text(short.to_json())
    done = report(tmp_path / "a", tmp_path / "b", f"--figures={tmp_path / 'figures'}")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report.html").read_text()
    for number in (1, 2):
        assert f'href="#s{number}"' in page
        assert f'<section id="s{number}"' in page
    assert 'id="contents"' in page
    assert len(list((tmp_path / "figures").iterdir())) == 8
    (tmp_path / "b" / "document.json").write_text("{}")
    done = report(tmp_path / "a", tmp_path / "b")
    assert done.returncode == 1
    assert "b/document.json is damaged" in done.stderr
    assert "Traceback" not in done.stderr
