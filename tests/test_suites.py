"""The suites of model merging without a hub: scores and their resamples, methods that refuse, samples, the dry run."""

from dataclasses import dataclass

import numpy as np
import pytest
from safetensors.numpy import load_file

import wsr
from wsr.data.metrics import score
from wsr.data.records import Records
from wsr.errors import WsrError
from wsr.geometry.trees import flatten
from wsr.store.results import Results
from wsr.studies.merged_models import Effort
from wsr.studies.merging_benchmarks import RESAMPLES, _merges, methods_of, score_draws
from wsr.studies.suite_plan import planned
from wsr.studies.suite_tasks import Heads, Sampled, Sizes
from wsr.studies.suites import SUITES, some_tasks, suite

EFFORT = Effort(2, (0.5,), (1.0, 2.0), 1, 0, 0, 8)


def _outcomes(seed, texts=400):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 51, texts)
    values = np.clip(labels + random.integers(-12, 13, texts), 0, 50)
    return {"labels": labels, "values": values, "right": (labels == values).astype(np.float64)}


def test_a_score_is_that_of_scipy_and_its_resamples_spread_as_theory_says():
    outcomes = {"a": _outcomes(0), "b": _outcomes(1)}
    found = score_draws("spearman", outcomes, np.random.default_rng(0))
    for group, own in outcomes.items():
        assert found[group].shape == (1 + RESAMPLES,)
        assert found[group][0] == pytest.approx(score("spearman", own["labels"], own["values"]), abs=1e-12)
    shares = score_draws("accuracy", {"a": {"right": np.arange(500) < 150}}, np.random.default_rng(0))["a"]
    assert shares[0] == pytest.approx(0.3)
    assert shares[1:].std() == pytest.approx(np.sqrt(0.3 * 0.7 / 500), rel=0.1)


def test_models_share_the_resamples_and_equal_values_have_no_correlation():
    same = {group: {"right": np.arange(90) % 3 == 0} for group in "ab"}
    found = score_draws("accuracy", same, np.random.default_rng(0))
    np.testing.assert_array_equal(found["a"], found["b"])
    constant = {**_outcomes(2), "values": np.full(400, 7)}
    assert not score_draws("spearman", {"a": constant}, np.random.default_rng(0))["a"].any()


class _Judge(Heads):
    """Scores three made-up members; each validation loss is the next of ``losses``."""

    def __init__(self, losses):
        super().__init__(wsr.made_up_region(3), None, {}, Results.in_memory(), Sizes(1, 1, 0))
        object.__setattr__(self, "losses", iter(losses))

    def load(self, task, *, test):
        return None

    def outcomes(self, data, model, name, split):
        assert split == "validation"
        return {"own_losses": np.array([next(self.losses)])}

    def given(self, data):
        return wsr.merging.Given()


def test_a_method_that_refuses_the_models_is_noted_and_the_others_go_on(tmp_path):
    judge = _Judge([0.0] * 6)
    tasks = suite("gpt2_glue").tasks[:3]
    merges, told, missing = _merges(judge, tasks, ("uniform", "slerp", "ties"), EFFORT, tmp_path)
    assert [model.name for model in merges] == ["uniform", "ties"]
    assert told == {"uniform": (1, {}), "ties": (2, {"density": 0.5, "scale": 1.0})}
    assert missing == {"slerp": "slerp merges exactly 2 members; found 3: m0, m1, m2"}
    (file,) = tmp_path.glob("uniform-*.safetensors")
    mean = {
        path: np.mean([flatten(member.load())[path] for member in judge.region.members], axis=0)
        for path in flatten(judge.region.base)
    }
    for path, leaf in load_file(file).items():
        np.testing.assert_allclose(leaf, mean[path], atol=1e-6)


def test_the_options_with_the_lowest_validation_loss_are_taken(tmp_path):
    judge = _Judge([3.0, 1.0])  # the made-up members have one dataset
    told = _merges(judge, suite("gpt2_glue").tasks[:3], ("task_arithmetic",), EFFORT, tmp_path)[1]
    assert told == {"task_arithmetic": (2, {"scale": pytest.approx(2 / 3)})}


@dataclass(frozen=True)
class _Source:
    def read(self):
        return {role: Records(role, {"image": [f"{role} {at}" for at in range(50)]}, range(1, 51)) for role in
                ("train", "test")}  # fmt: skip


def test_a_sample_is_small_always_the_same_and_in_order():
    first, again = (Sampled(_Source(), 8, 0).read() for _ in range(2))
    assert {role: len(table) for role, table in first.items()} == {"train": 8, "test": 50}
    assert first["train"].columns == again["train"].columns
    assert first["train"].columns["image"] == [f"train {row - 1}" for row in first["train"].rows]
    assert list(first["train"].rows) == sorted(set(first["train"].rows))


def test_a_dry_run_without_a_hub_says_so():
    told = planned(suite("clip8"), suite("clip8").tasks, methods_of(suite("clip8"), ["ties"]), EFFORT)
    assert "the hub gives no list of the files of openai/clip-vit-base-patch32" in told
    assert "tanganke/clip-vit-base-patch32_dtd" in told
    # Eight tasks: TIES tries two options; the base, the members, the average and TIES are scored on the test data.
    assert "points: 16 on validation data, 32 on test data" in told
    # The base, eight members and two merges.
    assert f"{11 * 4 * 87_456_000 / 1e9:.2f} GB" in told


def test_wrong_names_are_refused():
    with pytest.raises(WsrError, match="no suite is called 'clip'; nearest: clip8"):
        suite("clip")
    with pytest.raises(WsrError, match="no merge method is called 'tie'"):
        methods_of(suite("clip8"), ["tie"])
    with pytest.raises(WsrError, match="one task leaves nothing to merge"):
        some_tasks(suite("clip8"), ["mnist"])


def test_facts_are_complete():
    import jax

    from wsr.models import build
    from wsr.models.gpt2 import EXAMPLE

    for name in SUITES:
        own = suite(name)
        assert all(len(row.percent) == len(own.tasks) for row in own.published)
        assert len({task.member for task in own.tasks}) == len(own.tasks)
    assert [task.data.classes for task in suite("clip8").tasks] == [397, 196, 45, 10, 10, 43, 10, 47]
    assert all(template.count("{}") == 1 for task in suite("clip8").tasks for template in task.templates)
    for task in suite("flan_t5_glue").tasks:
        assert len(task.answers) == (51 if task.name == "stsb" else task.data.classes)
        assert all(f"{{{column}}}" in task.prompt for column in task.data.columns.of_texts)
    sizes = {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "vocab_size": 50257}
    shapes = jax.eval_shape(build("gpt2", {**EXAMPLE, **sizes}).init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == suite("gpt2_glue").parameters
