"""Progress without a terminal: plain lines, the last one always; with one: rich's bar."""

import io
import sys

from wsr.runtime import progress as module
from wsr.runtime.progress import progress


def test_plain_lines_say_what_how_many_rate_and_time_left(capsys, monkeypatch):
    clock = iter([0.0, 1.0, 20.0, 22.0, 40.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with progress("fine-tuning", 4, "steps") as counter:
        for _ in range(4):
            counter.advance(note="sst2")
    assert capsys.readouterr().out.splitlines() == [
        "fine-tuning: 2/4 steps, 10.0 s/step, 0:20 left sst2",
        "fine-tuning: 4/4 steps, 10.0 s/step, 0:00 left sst2",
    ]


def test_nothing_to_do_prints_nothing(capsys):
    with progress("fine-tuning", 0, "steps"):
        pass
    assert capsys.readouterr().out == ""


def test_a_terminal_gets_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    with progress("evaluating", 2, "points") as counter:
        counter.advance(2, note="imdb")
    assert "evaluating" in screen.getvalue()
    assert "2/2" in screen.getvalue()
    assert "imdb" in screen.getvalue()
