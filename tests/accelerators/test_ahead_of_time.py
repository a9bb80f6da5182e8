"""Programs for TPUs that are not there: no communication, memory and expected time under ceilings, every mesh built.

The compiler of TPUs is needed: ``make test-tpu-aot`` installs it, apart from the environment of the project.
"""

import json
from pathlib import Path

import pytest

from benchmarks.ahead_of_time.chips import CHIPS, mesh_of, use_compiler

use_compiler()

import jax

from benchmarks.ahead_of_time import programs
from benchmarks.ahead_of_time.compiled import compile_for
from benchmarks.ahead_of_time.work import ATTENTION, ELEMENTWISE, PRODUCTS
from wsr import load, models
from wsr.data.load import load_dataset
from wsr.data.packing import evaluation_batches
from wsr.models import features
from wsr.models.features import encoding_bytes
from wsr.runtime.devices import MOST_BYTES, member_mesh

CEILINGS = json.loads(Path(__file__).with_name("ceilings.json").read_text())


@pytest.mark.parametrize("name", ["bert", "llama", "modernbert", "deberta_v2", "t5"])
def test_devices_of_a_mesh_do_not_communicate_while_they_encode(name):
    model = models.build(name, models.architectures()[name].example)
    lowered = programs.encoding(
        model, mesh_of("v5e", 4, 2), points=2, rows=2, length=32, precision="bfloat16", slots=64
    )
    assert compile_for(lowered, "v5e").collectives == ()


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_encoder_of_two_layers_stays_under_its_ceilings(chip, precision):
    model = programs.encoder("roberta-base", 2)
    lowered = programs.encoding(model, mesh_of(chip), points=4, rows=16, length=64, precision=precision, slots=64)
    found, ceiling = compile_for(lowered, chip), CEILINGS[f"{chip} {precision}"]
    assert found.milliseconds <= ceiling["milliseconds"]
    assert found.milliseconds_by_kind.keys() >= {PRODUCTS, ATTENTION, ELEMENTWISE}
    assert found.temporary_gib <= ceiling["temporary_gib"]


def test_a_long_row_does_not_hold_its_scores():
    """Three layers of ModernBERT-base, 8,192 tokens: the scores of one layer are 1.5 GiB even in two bytes each."""
    model, ceiling = programs.encoder("modernbert-base", 3), CEILINGS["v5e long row"]
    lowered = programs.encoding(model, mesh_of("v5e"), points=1, rows=1, length=8192, precision="bfloat16", slots=64)
    found = compile_for(lowered, "v5e")
    assert found.milliseconds <= ceiling["milliseconds"]
    assert found.temporary_gib <= ceiling["temporary_gib"]


def test_eight_chips_train_eight_members_in_the_time_of_one():
    model = models.build("bert", models.architectures()["bert"].example)
    shapes = {"members": 1, "batch": 4, "rows": 4, "length": 16, "precision": "bfloat16"}
    lowered = (programs.training(model, mesh_of("v5e", chips), **shapes) for chips in (1, 8))
    alone, eight = (compile_for(own, "v5e", one_turn=True) for own in lowered)
    assert eight.collectives == ()
    assert eight.milliseconds <= 8 / 6 * alone.milliseconds


def test_chips_do_not_communicate_while_they_fit_probes():
    lowered = programs.probing(mesh_of("v5e", 2), points=4, texts=40, hidden=16, classes=3)
    assert compile_for(lowered, "v5e").collectives == ()


def test_chips_communicate_only_with_those_that_share_their_model():
    """Two groups of four chips: each with its own point of a region, or its own member in training."""
    model = models.build("llama", {**models.architectures()["llama"].example, "num_hidden_layers": 1})
    mesh = mesh_of("v5e", 2, 1, 4)
    groups = member_mesh(2, model=4, devices=list(mesh.devices.flat))
    shapes = {"rows": 2, "length": 32}
    encoding = programs.encoding(model, mesh, points=2, slots=64, precision="bfloat16", **shapes)
    training = programs.lora(model, groups, batch=4, rank=2, **shapes)
    for lowered in (encoding, training):
        found = compile_for(lowered, "v5e")
        assert "all-reduce" in found.collectives
        assert all({place // 4 for place in group} in ({0}, {1}) for group in found.partners)
    assert compile_for(programs.mixing(model, mesh, points=2), "v5e").collectives == ()


@pytest.mark.parametrize("chip", CHIPS)
def test_every_division_of_a_host_into_points_and_texts_is_a_mesh(chip):
    chips = CHIPS[chip].host[0] * CHIPS[chip].host[1] * CHIPS[chip].host[2]
    for points in range(1, chips + 1):
        if chips % points == 0:
            shape = {"points": points, "texts": chips // points, "model": 1}
            assert dict(mesh_of(chip, points, chips // points).shape) == shape


def test_what_exceeds_a_chip_is_counted_as_not_fitting(monkeypatch):
    class Lowered:
        def lower(self, *_):
            return self

        def compile(self):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm")

    monkeypatch.setattr(features, "_encoder", lambda *_: Lowered())
    tiny = load("tiny")
    split = load_dataset("made_up_a1", tiny.processor, max_length=48).splits["test"]
    batches = evaluation_batches(split, rows=4, row_length=64, packed=True)
    assert encoding_bytes(tiny.model, tiny.params, batches, mesh_of("v5e"), 4) == MOST_BYTES
