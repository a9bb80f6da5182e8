"""A recipe is checked where it is made: each field, with values that once went through."""

import numpy as np
import pytest

from wsr.errors import WsrError
from wsr.training import Recipe

NAN, INF = float("nan"), float("inf")


def check(**values):
    """Makes a recipe as users do, without the run-time types of these tests, which refuse a wrong type before it."""
    recipe = Recipe()
    for field, value in values.items():
        object.__setattr__(recipe, field, value)
    recipe.__post_init__()


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("mode", ["LoRA", "Full", "lora ", "adapter", None]),
        ("learning_rate", [-0.01, NAN, INF, "fast", True]),
        ("head_learning_rate", [-1e-30, NAN]),
        ("batch_size", [0, -1, 2.5, NAN]),
        ("epochs", [0, -1, NAN, INF]),
        ("weight_decay", [-1, NAN]),
        ("warmup", [-0.1, 1.5, NAN]),
        ("patience", [0, -1, 1.5]),
        ("stop_on", ["accuracy", None]),
        ("dropout_rng", ["threefry2x32", "RBG", None]),
        ("precision", ["float16", None]),
        ("check_every", [0, 0.5]),
        ("min_improvement", [-0.1, NAN]),
        ("row_length", [0]),
        ("lora_rank", [0, 1.5]),
        ("lora_alpha", [0, -1, NAN]),
        ("lora_targets", ["(query"]),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_field(field, values):
    for value in values:
        with pytest.raises(WsrError, match=f"^recipe: {field}\\b") as caught:
            check(**{field: value})
        assert "\n" not in str(caught.value)


def test_the_nearest_mode_is_named():
    with pytest.raises(WsrError, match="nearest: lora"):
        check(mode="Lora")


@pytest.mark.parametrize(
    "right",
    [
        {"head_learning_rate": 0.0, "learning_rate": 0},
        {"epochs": 0.25, "warmup": 0.0},
        {"epochs": 3, "batch_size": np.int64(16), "learning_rate": np.float32(1e-3)},
        {"patience": 1, "check_every": 1, "min_improvement": 0.0},
    ],
)
def test_what_can_be_trained_is_accepted(right):
    check(**right)


def test_a_recipe_without_newer_fields_has_the_settings_from_before_there_were_any():
    """Stores and the records of members know recipes by their settings."""
    assert not {"hidden_head", "dropout_rng", "precision"} & set(Recipe().settings)
    assert Recipe(hidden_head=True).settings["hidden_head"] is True
    assert Recipe(dropout_rng="rbg").settings["dropout_rng"] == "rbg"
    assert Recipe(precision="bfloat16").settings["precision"] == "bfloat16"
    assert Recipe(dropout_rng="rbg", dropout=False).settings == Recipe(dropout=False).settings
