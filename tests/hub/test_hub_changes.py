"""A repository that is not as the registry says: one line with what was expected, found, and the nearest name.

It is read at its newest commit, because a commit does not change.
"""

from dataclasses import replace

import pytest
from hub_repositories import IN_DATA, TEXT, Config, parquet, repositories

NAMES = ("World", "Sports", "Business", "Sci/Tech")
USUAL = Config("default", TEXT, NAMES, ("train", "test"))


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (
            replace(USUAL, columns={"texts": "text", "label": "label"}),
            "fancyzhx/ag_news/train: no column 'text'; found 'texts', 'label'; nearest: texts; ",
        ),
        (
            replace(USUAL, columns={"text": "text", "topic": "label"}),
            "fancyzhx/ag_news/train: no column 'label'; found 'text', 'topic'; nearest: ",
        ),
        (
            replace(USUAL, classes=(*NAMES, "Weather")),
            "fancyzhx/ag_news/train, column 'label': expected 4 classes, found 5: 'World', 'Sports', ",
        ),
        (
            replace(USUAL, splits=("train", "testing")),
            "fancyzhx/ag_news: no split 'test'; found train, testing; nearest: testing",
        ),
        (
            replace(USUAL, columns={"text": "int32", "label": "label"}),
            "fancyzhx/ag_news/train, row 1, column 'text': expected text, found 0",
        ),
    ],
)
def test_a_change_of_a_repository_is_told_in_one_line(local_hub, ask, config, told):
    usual = repositories()["fancyzhx/ag_news"]
    local_hub.repositories["datasets"][usual.name] = parquet(usual.name, [config], IN_DATA)
    try:
        found = ask(name="ag_news", newest=True, again=True)
    finally:
        local_hub.repositories["datasets"][usual.name] = usual
    assert told in found.get("error", "none")
    assert "\n" not in found["error"]
    assert found["seconds"] < 10
    assert "error" not in ask(name="ag_news", newest=True, again=True), (
        "and the cache of the other commit is not taken for it"
    )
