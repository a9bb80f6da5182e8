"""The table of config attributes that the code of transformers reads."""

import ast
import json

import pytest
from oracles import NAMES, counterpart

from wsr.models.huggingface import read_attributes
from wsr.models.huggingface.config import ATTRIBUTES_READ


@pytest.fixture(scope="module")
def table():
    return json.loads(ATTRIBUTES_READ.read_text())


def test_the_table_is_that_of_the_installed_transformers(table):
    found = read_attributes.table_of_installed()
    assert found == table, "run: python -m wsr.models.huggingface.read_attributes, and review the change"


@pytest.mark.parametrize("name", NAMES)
def test_what_determines_the_computation_is_read(table, name):
    """Except for initial values, what a config class derives others from, and MPNet's padding, a constant there.

    What only the class with a projection or a language-modelling head reads is not the encoder's in that table either.
    """
    read = table["read"][counterpart(name).model_type]["encoder"]
    unread = {own for own in counterpart(name).taken if own not in read}
    assert unread <= {
        "initializer_range",
        "initializer_factor",
        "tie_word_embeddings",
        "feed_forward_proj",
        "pad_token_id",
        "projection_dim",
        "final_logit_softcapping",
    }


def test_attributes_of_heads_are_told_apart(table):
    assert {"classifier_pooling", "classifier_activation"} <= {*table["read"]["modernbert"]["heads"]}
    assert "pooler_hidden_act" in table["read"]["deberta-v2"]["heads"]
    assert "position_buckets" in table["read"]["deberta-v2"]["encoder"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("config.one + self.config.two", {"one", "two"}),
        ("getattr(config, 'one', None)", {"one"}),
        ("hasattr(self.decoder_config, 'one')", {"one"}),
        ("settings.one", set()),
        ("config.one = 1", set()),
        ("getattr(config, name)", set()),
    ],
)
def test_expressions_that_read_a_config(source, expected):
    found = set().union(*(read_attributes._reads(node) for node in ast.walk(ast.parse(source))))
    assert found == expected
