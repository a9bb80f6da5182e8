"""LoRA against AdamW written out by hand, against torch's gradients, and by its promises."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from models_support import every_token, one_a_row, random_texts
from worlds import made_up

from wsr import models
from wsr.data.packing import training_batches
from wsr.errors import WsrError
from wsr.geometry.low_rank import add
from wsr.geometry.trees import flatten, nest
from wsr.models.huggingface.weights import from_huggingface
from wsr.runtime import seeds
from wsr.runtime.devices import member_mesh
from wsr.training import Job, Recipe, finetune, initial_head, memory, score_member
from wsr.training.batches import group_batches
from wsr.training.lora import adapted, initial_factors
from wsr.training.memory import chunk_for_training, member_bytes, shared_bytes
from wsr.training.program import hyperparameters, initial_state, training_program
from wsr.training.trainable import partition

RECIPE = Recipe(
    mode="lora", lora_rank=2, lora_alpha=6.0, learning_rate=2e-2, batch_size=16, epochs=1, warmup=0.25, dropout=False
)


def train(checkpoint, *jobs, chunk=1):
    return list(finetune(checkpoint.model, checkpoint.params, jobs, chunk=chunk))


def adapted_paths(checkpoint):
    return [path for path in flatten(checkpoint.params) if path.endswith(("query/kernel", "value/kernel"))]


def test_equals_a_plain_loop_over_factors_with_optax_adamw(tiny, dataset):
    job = Job(dataset, 3, RECIPE)
    (member,) = train(tiny, job)

    steps, scale, base = 4, 6.0 / 2, flatten(tiny.params)
    batches = training_batches(
        dataset.splits["finetune"],
        batch_size=16,
        steps=steps,
        generator=seeds.generator(3, dataset.name, "order"),
        row_length=64,
    )
    start = initial_factors(job, base)
    factors = {path: [jnp.asarray(start[f"low_rank/{path}/{side}"]) for side in "ab"] for path in adapted_paths(tiny)}
    weights = {"factors": factors, "head": jax.tree.map(jnp.asarray, initial_head(job, tiny.model.hidden))}
    # Warm-up over 1 of 4 steps, then down to zero: written out by hand.
    rates = jnp.asarray([1.0, 1.0, 2 / 3, 1 / 3]) * 2e-2
    optimizer = optax.adamw(
        lambda step: rates[step], weight_decay=0.01, mask=lambda w: jax.tree.map(lambda x: x.ndim > 1, w)
    )
    state, losses = optimizer.init(weights), []

    def moved(factors):
        return nest(base | {path: base[path] + scale * (a @ b) for path, (a, b) in factors.items()})

    @jax.jit
    def step(weights, state, batch, labels):
        def loss_of(weights):
            features = tiny.model.encode(moved(weights["factors"]), batch)
            logits = features @ weights["head"]["kernel"] + weights["head"]["bias"]
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        loss, gradient = jax.value_and_grad(loss_of)(weights)
        updates, state = optimizer.update(gradient, state, weights)
        return optax.apply_updates(weights, updates), state, loss

    for number in range(steps):
        batch = {name: array[number] for name, array in batches.inputs.items()}
        weights, state, loss = step(weights, state, batch, batches.labels[number])
        losses.append(float(loss))
    np.testing.assert_allclose(member.losses, losses, atol=1e-4)
    for path, leaf in flatten(moved(weights["factors"])).items():
        np.testing.assert_allclose(flatten(member.params)[path], leaf, atol=1e-4, err_msg=path)
    np.testing.assert_allclose(member.head["kernel"], weights["head"]["kernel"], atol=1e-4)


def test_only_targets_move_by_a_product_of_the_rank_asked_for(tiny, dataset):
    (member,) = train(tiny, Job(dataset, 0, dataclasses.replace(RECIPE, epochs=4)))
    base, trained = flatten(tiny.params), flatten(member.params)
    assert member.low_rank.keys() == set(adapted_paths(tiny))
    for path, leaf in trained.items():
        if path not in member.low_rank:
            np.testing.assert_array_equal(leaf, base[path], err_msg=path)
            continue
        a, b = member.low_rank[path]
        spectrum = np.linalg.svd(a.astype(np.float64) @ b.astype(np.float64), compute_uv=False)
        assert spectrum[1] > 1e-4
        assert spectrum[2:].max() < 1e-10
        np.testing.assert_allclose(leaf - base[path], a @ b, atol=1e-6)
    assert member.losses[-4:].mean() < member.losses[:4].mean()


@pytest.mark.parametrize("name", [name for name, own in models.architectures().items() if own.counterpart])
def test_every_architecture_has_targets_when_none_are_named(name, dataset):
    model = models.build(name, models.architectures()[name].example)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    leaves = {path: np.zeros(leaf.shape, np.float32) for path, leaf in flatten(shapes).items()}
    drawn = initial_factors(Job(dataset, 0, dataclasses.replace(RECIPE, lora_rank=1)), leaves)
    assert len(drawn) >= 4


def test_learns(tiny, dataset):
    (member,) = train(tiny, Job(dataset, 0, dataclasses.replace(RECIPE, epochs=20)))
    assert member.losses[-4:].mean() < 0.5 * member.losses[:4].mean()
    assert score_member(tiny.model, member.params, member.head, dataset, "test") > 0.8


def test_members_start_at_the_base_each_from_factors_of_its_own(tiny, dataset):
    base, bound = flatten(tiny.params), 1 / np.sqrt(tiny.model.hidden)
    jobs = [Job(own, seed, RECIPE) for own in (dataset, dataclasses.replace(dataset, name="other")) for seed in (0, 1)]
    drawn = [initial_factors(job, base) for job in jobs]
    seen = []
    for factors in drawn:
        for path, leaf in factors.items():
            if path.endswith("/b"):
                assert not leaf.any()
            else:
                assert 0.9 * bound < np.abs(leaf).max() <= bound
                assert abs(leaf.mean()) < 0.3 * bound
                seen.append(leaf.tobytes())
    assert len(set(seen)) == len(seen)  # no two leaves, seeds or datasets share a draw
    (member,) = train(tiny, Job(dataset, 0, dataclasses.replace(RECIPE, learning_rate=0.0)))
    np.testing.assert_array_equal(flatten(member.params)[adapted_paths(tiny)[0]], base[adapted_paths(tiny)[0]])


def test_same_seed_same_bits_alone_or_in_a_padded_group(tiny, dataset):
    jobs = [Job(dataset, seed, RECIPE) for seed in range(3)]
    first, again = (train(tiny, jobs[0])[0] for _ in range(2))
    in_group = train(tiny, *jobs, chunk=2)
    (padded,) = train(tiny, jobs[2], chunk=2)
    for one, other, atol in ((first, again, 0.0), (in_group[2], padded, 0.0), (first, in_group[0], 1e-4)):
        assert one.low_rank.keys() == other.low_rank.keys()
        for path, factors in one.low_rank.items():
            for own, theirs in zip(factors, other.low_rank[path], strict=True):
                np.testing.assert_allclose(own, theirs, rtol=0, atol=atol, err_msg=path)
        np.testing.assert_allclose(one.head["kernel"], other.head["kernel"], rtol=0, atol=atol)
    assert [member.group_size for member in in_group] == [2, 2, 2]
    assert np.abs(first.low_rank[adapted_paths(tiny)[0]].a - in_group[1].low_rank[adapted_paths(tiny)[0]].a).max() > 0.1


def test_ranks_and_scales_that_differ_share_no_program(tiny, dataset):
    other = dataclasses.replace(RECIPE, lora_rank=3, lora_targets=r"layers/1/.*/output/kernel")
    scaled = dataclasses.replace(RECIPE, lora_alpha=60.0)
    found = train(tiny, *(Job(dataset, 0, recipe) for recipe in (RECIPE, other, scaled)), chunk=2)
    by_recipe = {member.job.recipe: member for member in found}
    assert {path: own.a.shape[1] for path, own in by_recipe[other].low_rank.items()} == {
        "layers/1/attention/output/kernel": 3,
        "layers/1/feed_forward/output/kernel": 3,
    }
    assert by_recipe[RECIPE].losses[0] == pytest.approx(by_recipe[scaled].losses[0], abs=1e-6)
    assert abs(by_recipe[RECIPE].losses[-1] - by_recipe[scaled].losses[-1]) > 1e-4


def test_one_program_serves_seeds_and_learning_rates(tiny, dataset):
    training_program.cache_clear()
    train(tiny, Job(dataset, 0, RECIPE))
    train(tiny, Job(dataset, 1, dataclasses.replace(RECIPE, learning_rate=1e-3)))
    assert training_program.cache_info().misses == 1


@pytest.mark.long
def test_early_stopping_looks_at_the_moved_encoder(tiny, dataset):
    patient = dataclasses.replace(RECIPE, epochs=30, learning_rate=5e-2, patience=2, check_every=4)
    (member,) = train(tiny, Job(dataset, 0, patient))
    assert len(member.losses) <= 120
    assert any(np.abs(own.b).max() > 1e-3 for own in member.low_rank.values())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lora_targets": "query"}, "matches no leaf; matrices are, for example, layers/1/"),
        ({"lora_targets": "(query"}, "is not a valid regular expression"),
        ({"lora_targets": ".*/query/bias"}, "layers/0/attention/query/bias is [128]"),
        ({"lora_rank": 500}, "expected matrices with both sides at least lora_rank = 500"),
    ],
)
def test_targets_that_no_factors_fit_are_refused(tiny, dataset, changes, said):
    hidden = tiny.model.hidden
    with pytest.raises(WsrError) as caught:
        train(tiny, Job(dataset, 0, dataclasses.replace(RECIPE, **changes)))
    assert said.replace("[128]", f"[{hidden}]") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.torch
def test_gradients_of_factors_agree_with_torch():
    torch = pytest.importorskip("torch", reason="PyTorch, the oracle of the parity tests, is not installed")
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    example = models.architectures()["bert"].example
    config = BertConfig(**{key: value for key, value in example.items() if key != "pooling"})
    theirs = BertModel(config, add_pooling_layer=False).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ours = models.build("bert", {**example, "pooling": "cls"})
    base, _ = from_huggingface(ours, {name: own.numpy().copy() for name, own in theirs.state_dict().items()})

    scale, random = 1.5, np.random.default_rng(0)
    places = {f"layers/{n}/attention/{part}/kernel": (n, part) for n in (0, 1) for part in ("query", "value")}
    factors = {
        path: {"a": random.normal(size=(16, 2)).astype(np.float32), "b": random.normal(size=(2, 16)).astype(np.float32)}
        for path in places
    }
    text = random_texts(0, [9], 40)[0]
    direction = random.normal(size=(9, 16)).astype(np.float32)

    weights = {name: own.detach() for name, own in theirs.named_parameters()}
    leaves = {
        path: {side: torch.tensor(own[side], requires_grad=True) for side in "ab"} for path, own in factors.items()
    }
    for path, (layer, part) in places.items():
        name = f"encoder.layer.{layer}.attention.self.{part}.weight"
        # Theirs is [outputs, inputs]: W + scale B A with A = a^T and B = b^T.
        weights[name] = weights[name] + scale * leaves[path]["b"].T @ leaves[path]["a"].T
    states = torch.func.functional_call(theirs, weights, (torch.tensor([text[0]]),)).last_hidden_state[0]
    (states * torch.tensor(direction)).sum().backward()

    batch = every_token(one_a_row([text], 9))
    encode = adapted(ours, scale).encode

    def loss(factors):
        params = {**base, "low_rank": nest(flatten(factors))}
        return (encode(params, batch) * direction).sum()

    found = jax.jit(jax.grad(loss))({path: jax.tree.map(jnp.asarray, own) for path, own in factors.items()})
    for path in places:
        for side in "ab":
            expected = leaves[path][side].grad.numpy()
            assert np.abs(expected).max() > 1e-3
            np.testing.assert_allclose(found[path][side], expected, rtol=1e-4, atol=1e-4, err_msg=f"{path} {side}")


def test_training_takes_what_its_compiled_program_says(tiny, dataset):
    job = Job(dataset, 0, dataclasses.replace(RECIPE, dropout=True))
    frozen, trainable = partition(tiny.params, job)
    encoder, plan = group_batches(tiny.model, tiny.params, [job])
    state = initial_state([trainable], [initial_head(job, tiny.model.hidden)], member_mesh(1))
    program = training_program(encoder, False, True)
    lowered = program.lower(state, frozen, plan, hyperparameters([job], job.steps), 0, 1)
    compiled = lowered.compile().memory_analysis().temp_size_in_bytes
    compiled += sum(leaf.nbytes for leaf in jax.tree.leaves((state, plan)))
    assert 0.9 * compiled < member_bytes(tiny.model, tiny.params, job) < 2 * compiled
    assert shared_bytes(tiny.params, job) == sum(leaf.nbytes for leaf in jax.tree.leaves(tiny.params))


def test_the_base_is_shared_and_only_factors_multiply(tiny, dataset, monkeypatch):
    """Of an encoder whose weights are most of what training takes; none is trained."""
    monkeypatch.setattr(memory, "members_for_devices", lambda wanted, **_: wanted)
    sizes = {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4, "num_hidden_layers": 4}
    model = models.build("bert", {**tiny.model.config, **sizes})
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    start = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    recipe = dataclasses.replace(RECIPE, batch_size=1)
    factors = [Job(dataset, seed, recipe) for seed in range(32)]
    whole = [Job(dataset, seed, dataclasses.replace(recipe, mode="full")) for seed in range(32)]
    gib = 4 * member_bytes(model, start, whole[0]) / 2**30
    chosen = [chunk_for_training(model, start, jobs, memory_budget_gib=gib) for jobs in (whole, factors)]
    assert chosen == [4, 16]


@pytest.mark.long
def test_from_the_command_line_to_a_map(tmp_path, capsys):
    from wsr.cli import main
    from wsr.region.region import Region
    from wsr.store import Store

    flags = [
        f"--store={tmp_path / 's'}",
        "--base=tiny",
        "--datasets=made_up_a1",
        "--seeds=2",
        "--size=96",
        "--epochs=4",
        "--learning_rate=0.02",
        "--max_length=48",
        "--mode=lora",
        "--lora_rank=4",
        "--lora_alpha=8",
    ]
    assert main(["train", *flags]) == 0
    printed = capsys.readouterr().out
    assert "made_up_a1-lora-n96-s1" in printed
    assert printed.count("rank 4") == 2
    assert main(["train", *flags]) == 0
    assert "2 of 2 members are in the store already" in capsys.readouterr().out
    assert main(["train", f"--store={tmp_path / 't'}", *flags[1:], "--lora_targets=query"]) == 1
    assert "lora_targets='query' matches no leaf" in capsys.readouterr().err
    assert not (tmp_path / "t").exists()
    assert main(["train", *flags[:-2], "--lora_rank=2"]) == 1
    assert "lora_rank is 4 in the store and 2 here" in capsys.readouterr().err
    store = Store.open(tmp_path / "s")
    model = models.build(store.model_name, store.model_config)
    vectors = []
    for name in store.names():
        moved, base = flatten(store.load(name)[0]), flatten(store.base())
        vectors.append(np.concatenate([(moved[path].astype(np.float64) - base[path]).ravel() for path in base]))
        assert store.record(name).hyperparameters["lora_alpha"] == 8
    gram = Region.from_store(store, model).gram
    np.testing.assert_allclose(gram, np.stack(vectors) @ np.stack(vectors).T, rtol=1e-4)


def test_members_of_other_modes_are_recorded_as_before(dataset):
    """A store from before this mode goes on: its records know no rank."""
    assert not any(name.startswith("lora") for name in Recipe(mode="full", lora_rank=3).settings)
    assert Recipe(mode="full").settings.keys() | {"lora_rank", "lora_alpha", "lora_targets"} == RECIPE.settings.keys()


def test_params_of_a_member_are_the_base_moved_by_its_factors(tiny, dataset):
    members = train(tiny, Job(dataset, 0, RECIPE), Job(made_up(tiny, "made_up_b1"), 0, RECIPE), chunk=2)
    for member in members:
        expected = flatten(add(tiny.params, member.low_rank))
        for path, leaf in flatten(member.params).items():
            np.testing.assert_array_equal(leaf, expected[path])
