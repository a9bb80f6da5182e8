"""Fine-tuning with products in bfloat16: what the programs multiply, where members end, and what stores say."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from wsr.cli import main
from wsr.geometry.trees import flatten, nest
from wsr.store import Store
from wsr.training import Job, Recipe, finetune
from wsr.training.batches import group_batches
from wsr.training.lora import initial_factors

FULL = Recipe(learning_rate=1e-3, batch_size=16, epochs=2, dropout=False)


def in_bfloat16(recipe):
    return dataclasses.replace(recipe, precision="bfloat16")


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_every_product_with_a_kernel_and_both_of_its_gradients_are_of_bfloat16(tiny, dataset, mode):
    job = Job(dataset, 0, in_bfloat16(dataclasses.replace(FULL, mode=mode)))
    encoder, plan = group_batches(tiny.model, tiny.params, [job])
    batch = {name: array[0, 0, 0] for name, array in plan["inputs"].items()}
    leaves = flatten(tiny.params) | (initial_factors(job, flatten(tiny.params)) if mode == "lora" else {})

    def loss(leaves):
        return encoder.encode(nest(leaves), batch).sum()

    text = jax.jit(jax.grad(loss)).lower(leaves).as_text()
    operands = re.findall(r"stablehlo\.dot_general.*?: \(tensor<[^>]*x(\w+)>, tensor<[^>]*x(\w+)>\)", text)
    kernels = sum(path.endswith("/kernel") for path in flatten(tiny.params))
    # The gradient of the first layer's inputs is that of the embeddings, which are trained or asked for too.
    assert operands.count(("bf16", "bf16")) == 3 * kernels
    assert ("f32", "bf16") not in operands
    assert ("bf16", "f32") not in operands


def test_members_end_near_those_of_float32_and_their_weights_are_float32(tiny, dataset):
    exact, near = finetune(
        tiny.model, tiny.params, [Job(dataset, 0, FULL), Job(dataset, 0, in_bfloat16(FULL))], chunk=1
    )
    assert 0 < np.abs(near.losses - exact.losses).max() < 0.02
    for path, leaf in flatten(near.params).items():
        assert leaf.dtype == np.float32, path
    moved, wanted = (
        np.concatenate([np.ravel(flatten(own.params)[path] - leaf) for path, leaf in flatten(tiny.params).items()])
        for own in (near, exact)
    )
    assert moved @ wanted / np.linalg.norm(moved) / np.linalg.norm(wanted) > 0.98


@pytest.mark.long
def test_jobs_of_two_precisions_share_no_program(tiny, dataset):
    jobs = [Job(dataset, seed, recipe) for recipe in (FULL, in_bfloat16(FULL)) for seed in (0, 1)]
    together = list(finetune(tiny.model, tiny.params, jobs, chunk=4))
    alone = next(finetune(tiny.model, tiny.params, jobs[2:3], chunk=4))
    assert [own.job for own in together] == jobs
    np.testing.assert_allclose(together[2].losses, alone.losses, atol=1e-3)


def test_a_member_of_bfloat16_is_another_member_of_the_store(tmp_path, capsys):
    flags = [f"--store={tmp_path / 's'}", "--base=tiny", "--datasets=made_up_a1", "--seeds=1", "--size=32"]
    flags += ["--epochs=1", "--max_length=48", "--mode=head"]
    assert main(["train", *flags, "--precision=float16"]) != 0
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert main(["train", *flags, "--precision=bfloat16"]) == 0
    assert Store.open(tmp_path / "s").record("made_up_a1-head-n32-s0").hyperparameters["precision"] == "bfloat16"
    capsys.readouterr()
    assert main(["train", *flags]) == 1
    assert "precision is 'bfloat16' in the store and 'float32' here" in capsys.readouterr().err
