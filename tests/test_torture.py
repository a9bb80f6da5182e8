"""The table of faults is what was counted."""

import json

import pytest

from wsr.errors import WsrError
from wsr.studies.harness.torture import read_torture, rendered_torture

PAGE = """# Page

<!-- torture -->
| fault | must hold | counted |
| --- | --- | --- |
| kill -9 | 0 lost | not run |
| a flood | dry | kills 7 |
<!-- end -->

Text.
"""


def test_counts_stand_beside_what_must_hold_and_add_up(tmp_path):
    file = tmp_path / "torture.jsonl"
    rows = [{"fault": "kill -9", "kills": 100, "lost": 0}, {"fault": "kill -9", "kills": 20, "lost": 0}]
    rows.append({"fault": "new | fault", "seconds": 1.23456, "device_kind": "cpu"})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = rendered_torture(PAGE, read_torture(file))
    assert page.splitlines()[2:8] == [
        "<!-- torture -->",
        "| fault | must hold | counted |",
        "| --- | --- | --- |",
        "| kill -9 | 0 lost | kills 120, lost 0 |",
        "| a flood | dry | not run |",
        "| new / fault | – | seconds 1.23, device kind cpu |",
    ]
    assert page.endswith("<!-- end -->\n\nText.\n")
    assert rendered_torture(page, read_torture(file)) == page


def test_what_is_no_such_page_or_file_is_refused(tmp_path):
    assert read_torture(tmp_path / "absent.jsonl") == []
    with pytest.raises(WsrError, match="expected one block"):
        rendered_torture("# Page\n", [])
    with pytest.raises(WsrError, match="counted kills and then lost"):
        rendered_torture(PAGE, [{"fault": "f", "kills": 1}, {"fault": "f", "lost": 1}])
    (tmp_path / "torture.jsonl").write_text('{"kills": 1}\n')
    with pytest.raises(WsrError, match="line 1: expected the name of a fault"):
        read_torture(tmp_path / "torture.jsonl")
