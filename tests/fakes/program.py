"""Stands in for any program: notes how it was called, and answers as the test said.

Installed under the program's name by tests/test_launch.py. CALLS: a file that gets a line of JSON for each call: its
words, and what came from a pipe. ANSWERS: JSON, [part of the words, output, status] each; of those that fit, the n-th
answers the n-th such call, and the last all that follow. FAIL_AT=k: the k-th call of all has status 1.
"""

import json
import os
import sys
from pathlib import Path

words = [Path(sys.argv[0]).name, *sys.argv[1:]]
calls = Path(os.environ["CALLS"])
before = [json.loads(line)["words"] for line in calls.read_text().splitlines()] if calls.exists() else []
piped = sys.stdin.read() if words[0] == "kubectl" else ""
with calls.open("a") as file:
    file.write(json.dumps({"words": words, "piped": piped}) + "\n")
if len(before) + 1 == int(os.environ.get("FAIL_AT", "0")):
    sys.exit(1)
fitting = [answer for answer in json.loads(os.environ.get("ANSWERS", "[]")) if answer[0] in " ".join(words)]
if fitting:
    used = sum(fitting[0][0] in " ".join(call) for call in before)
    _, output, status = fitting[min(used, len(fitting) - 1)]
    print(output)
    sys.exit(status)
