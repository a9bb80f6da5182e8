"""Methods that draw on texts, against references that take their gradients and their least squares another way."""

import dataclasses
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models_support import inputs_for, random_params
from worlds import made_up

from wsr.data.packing import evaluation_batches
from wsr.engine.objective import on_validation
from wsr.errors import WsrError
from wsr.geometry.points import combine
from wsr.geometry.trees import flatten, nest
from wsr.merging.fisher import diagonal_fisher
from wsr.merging.method import Given, made
from wsr.merging.regmean import input_grams
from wsr.merging.run import merge
from wsr.models import architectures, build, from_linen
from wsr.region.region import Region, from_params


@pytest.fixture(scope="module")
def own(tiny):
    return {name: made_up(tiny, name, finetune=12, validation=16) for name in ("made_up_a1", "made_up_b1")}


@pytest.fixture(scope="module")
def region(tiny, own):
    def moved(seed):
        generator = np.random.default_rng(seed)
        return jax.tree.map(
            lambda leaf: (leaf + 0.05 * generator.standard_normal(leaf.shape)).astype(np.float32), tiny.params
        )

    whole = from_params(tiny.model, tiny.params, {name: moved(seed) for seed, name in enumerate(own)})
    members = [dataclasses.replace(member, dataset=member.name) for member in whole.members]
    return Region(tiny.model, tiny.params, members, base_sha256=whole.base_sha256)


@pytest.fixture(scope="module")
def given(region, own):
    generator = np.random.default_rng(7)
    heads = {
        name: {
            "kernel": generator.standard_normal((16, data.classes)).astype(np.float32),
            "bias": generator.standard_normal(data.classes).astype(np.float32),
        }
        for name, data in own.items()
    }
    return Given(own=own, heads=heads)


def one_text(split, text):
    """A batch of one text, made by hand."""
    tokens = split.token_ids[split.offsets[text] : split.offsets[text + 1]]
    count = len(tokens)
    return {
        "token_ids": tokens[None],
        "token_types": split.token_types[split.offsets[text] : split.offsets[text + 1]][None],
        "positions": np.arange(count, dtype=np.int32)[None],
        "text_ids": np.zeros((1, count), np.int32),
        "starts": np.zeros(1, np.int32),
    }


@pytest.mark.long
def test_fisher_is_the_expected_square_of_the_gradient(region, given, own):
    """Gradients of log-probabilities one label at a time, by ``jax.grad``, on texts without padding."""
    name = "made_up_a1"
    params, head = region.members[0].load(), {part: leaf / 50 for part, leaf in given.heads[name].items()}
    split = own[name].splits["finetune"].take(np.arange(2))

    @jax.jit
    def chance_and_gradient(params, batch, label):
        def log_chance(params):
            features = region.model.encode(params, batch)[0]
            return jax.nn.log_softmax(features @ head["kernel"] + head["bias"])[label]

        return jax.value_and_grad(log_chance)(params)

    squares = [
        [
            (float(np.exp(value)), {path: np.asarray(leaf) ** 2 for path, leaf in flatten(gradient).items()})
            for value, gradient in (chance_and_gradient(params, one_text(split, text), label) for label in range(2))
        ]
        for text in range(2)
    ]
    found = flatten(diagonal_fisher(region.model, params, head, split))
    for path, leaf in found.items():
        expected = sum(chance * own[path] / 2 for of_text in squares for chance, own in of_text)
        np.testing.assert_allclose(leaf, expected, rtol=1e-3, atol=1e-5, err_msg=path)
    path, seen = "layers/1/feed_forward/output/kernel", set()
    for seed in range(8):
        one = diagonal_fisher(region.model, params, head, split.take(np.arange(1)), labels="drawn", seed=seed, name="m")
        near = [np.allclose(flatten(one)[path], own[path], rtol=1e-3, atol=1e-6) for _, own in squares[0]]
        assert sum(near) == 1
        seen.add(near.index(True))
    assert seen == {0, 1}


def test_fisher_weighs_each_entry(region, given):
    fishers = [
        diagonal_fisher(
            region.model, member.load(), given.heads[member.name], given.own[member.name].splits["finetune"]
        )
        for member in region.members
    ]
    found = flatten(merge(region, made("fisher", {"labels": "all", "texts": 0, "weights": (1.0, 3.0)}), given))
    for path in ("layers/0/attention/query/kernel", "embeddings/token/embedding"):
        first, second = (np.asarray(flatten(own)[path], np.float64) + 1e-12 for own in fishers)
        left, right = (flatten(member.load())[path] for member in region.members)
        np.testing.assert_allclose(found[path], (first * left + 3 * second * right) / (first + 3 * second), atol=1e-5)


def test_regmean_is_the_least_squares_of_the_paper(region, given):
    """Where nothing shrinks: ordinary least squares over the stacked inputs and answers of both members."""
    found = flatten(merge(region, made("regmean", {"texts": 0, "shrink": 1.0}), given))
    grams, products = 0, 0
    path = "layers/0/attention/value"
    for member in region.members:
        params, split = member.load(), given.own[member.name].splits["finetune"]
        inputs = np.concatenate([embedded(region.model, params, one_text(split, t)) for t in range(len(split))])
        grams = grams + inputs.T @ inputs / len(inputs)
        products = products + inputs.T @ (inputs @ np.asarray(flatten(params)[f"{path}/kernel"])) / len(inputs)
    np.testing.assert_allclose(found[f"{path}/kernel"], np.linalg.solve(grams, products), atol=1e-4)
    for other in (f"{path}/bias", "embeddings/token/embedding", "layers/1/feed_forward/norm/scale"):
        mean = np.mean([flatten(member.load())[other] for member in region.members], axis=0)
        np.testing.assert_allclose(found[other], mean, atol=1e-6)


def embedded(model, params, batch):
    """What the first layer of a BERT reads, in float64 and by hand."""
    tables = params["embeddings"]
    summed = sum(
        np.asarray(tables[name]["embedding"], np.float64)[batch[array][0]]
        for name, array in (("token", "token_ids"), ("token_type", "token_types"), ("position", "positions"))
    )
    centred = summed - summed.mean(axis=1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + model.config["layer_norm_eps"])
    return scaled * np.asarray(tables["norm"]["scale"]) + np.asarray(tables["norm"]["bias"])


def through_a_layer(leaves, hidden, heads=2):
    """The inputs of the dense layers of a BERT layer on one text and what the layer returns, by hand in float64."""

    def dense(name, x):
        return x @ leaves[f"{name}/kernel"] + leaves[f"{name}/bias"]

    def norm(name, x):
        x = x - x.mean(axis=1, keepdims=True)
        return (
            x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-12) * leaves[f"{name}/scale"] + leaves[f"{name}/bias"]
        )

    query, key, value = (
        dense(f"attention/{name}", hidden).reshape(len(hidden), heads, -1) for name in ("query", "key", "value")
    )
    scores = np.einsum("qhd,khd->hqk", query, key) / np.sqrt(query.shape[-1])
    weights = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    mixed = np.einsum("hqk,khd->qhd", weights, value).reshape(hidden.shape)
    attended = norm("attention/norm", hidden + dense("attention/output", mixed))
    wide = dense("feed_forward/intermediate", attended)
    wide = wide * (1 + np.vectorize(math.erf)(wide / np.sqrt(2))) / 2
    inputs = dict.fromkeys(("attention/query", "attention/key", "attention/value"), hidden)
    inputs |= {"attention/output": mixed, "feed_forward/intermediate": attended, "feed_forward/output": wide}
    return inputs, norm("feed_forward/norm", attended + dense("feed_forward/output", wide))


def test_regmean_plus_plus_fits_each_layer_to_what_the_merged_layers_compute(region, given, own):
    """As in algorithm 1 of the paper: the merged layer, not the member's, passes the texts on."""
    members = [{p: np.asarray(leaf, np.float64) for p, leaf in flatten(m.load()).items()} for m in region.members]
    expected = {path: np.mean([leaves[path] for leaves in members], axis=0) for path in members[0]}
    merged = nest(expected)
    hidden = {}
    for member in region.members:
        split = own[member.name].splits["finetune"]
        hidden[member.name] = [embedded(region.model, merged, one_text(split, text)) for text in range(len(split))]
    for layer in range(2):
        sums = {}
        for member, leaves in zip(region.members, members, strict=True):
            inside = {p.removeprefix(f"layers/{layer}/"): leaf for p, leaf in leaves.items()}
            read = [through_a_layer(inside, text)[0] for text in hidden[member.name]]
            for name in read[0]:
                x = np.concatenate([inputs[name] for inputs in read])
                gram = x.T @ x / len(x)
                gram = 0.95 * gram + 0.05 * np.diag(np.diag(gram))
                left, right = sums.setdefault(name, [0, 0])
                sums[name] = [left + gram, right + gram @ inside[f"{name}/kernel"]]
        for name, (left, right) in sums.items():
            expected[f"layers/{layer}/{name}/kernel"] = np.linalg.solve(left, right)
        inside = {p.removeprefix(f"layers/{layer}/"): leaf for p, leaf in expected.items()}
        hidden = {name: [through_a_layer(inside, text)[1] for text in texts] for name, texts in hidden.items()}
    found = flatten(merge(region, made("regmean_plus_plus", {"texts": 0}), given))
    assert found.keys() == expected.keys()
    for path, leaf in found.items():
        np.testing.assert_allclose(leaf, expected[path], atol=1e-5, err_msg=path)


def test_with_all_shrunk_regmean_weighs_each_input(region, given):
    found = flatten(merge(region, made("regmean", {"texts": 0, "shrink": 0.0}), given))
    path = "layers/1/feed_forward/intermediate/kernel"
    diagonals, kernels = [], []
    for member in region.members:
        params = member.load()
        diagonals.append(np.diag(input_grams(region.model, params, given.own[member.name].splits["finetune"])[path]))
        kernels.append(np.asarray(flatten(params)[path], np.float64))
    weighed = sum(d[:, None] * k for d, k in zip(diagonals, kernels, strict=True)) / sum(diagonals)[:, None]
    np.testing.assert_allclose(found[path], weighed, atol=1e-5)


def test_padding_has_no_part_in_the_grams(region, own):
    split = own["made_up_a1"].splits["finetune"]
    params = region.members[0].load()
    packed = input_grams(region.model, params, split)
    alone = input_grams(dataclasses.replace(region.model, packed=False), params, split)
    for path, gram in packed.items():
        np.testing.assert_allclose(gram, alone[path], atol=1e-4, err_msg=path)


@pytest.mark.parametrize("name", [name for name, own in architectures().items() if own.counterpart])
def test_every_architecture_tells_what_its_dense_layers_read(name):
    """Every dense kernel is there, with inputs as wide as it reads."""
    model = build(name, architectures()[name].example)
    params = random_params(model)
    read = model.kernel_inputs(params, inputs_for(model).alone)
    leaves = flatten(params)
    kernels = {path for path, leaf in leaves.items() if path.endswith("/kernel") and leaf.ndim == 2}
    assert read.keys() == kernels
    for path, calls in read.items():
        # Features need no language model's head or decoder and, unless they are projected, no projection of CLIP.
        assert calls or path.startswith(("head/", "decoder/"))
        assert all(inputs.shape[-1] == leaves[path].shape[0] for inputs in calls)


def test_linen_modules_tell_it_too():
    from flax import linen

    class Two(linen.Module):
        @linen.compact
        def __call__(self, batch):
            return linen.Dense(3, name="second")(jnp.tanh(linen.Dense(5, name="first")(batch["x"])))

    model = from_linen(Two(), name="two", config={}, hidden=3, max_length=1, example={"x": np.ones((4, 2), np.float32)})
    params = model.init(jax.random.key(0))
    x = np.random.default_rng(0).standard_normal((4, 2)).astype(np.float32)
    read = model.kernel_inputs(params, {"x": x})
    np.testing.assert_array_equal(read["first/kernel"][0], x)
    hidden = np.tanh(x @ params["first"]["kernel"] + params["first"]["bias"])
    np.testing.assert_allclose(read["second/kernel"][0], hidden, atol=1e-6)


def entropy(region, given, params):
    """Mean over members of the mean entropy on their validation texts, with NumPy after the encoder."""
    found = []
    for member in region.members:
        split, head = given.own[member.name].splits["validation"], given.heads[member.name]
        batches = evaluation_batches(split, rows=64, row_length=64)
        inputs = {what: array[0] for what, array in batches.inputs.items()}
        features = region.model.encode(jax.tree.map(jnp.asarray, params), inputs)
        scores = np.asarray(features, np.float64)[batches.index[0] >= 0] @ head["kernel"] + head["bias"]
        chances = np.exp(scores - scores.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        found.append(-(chances * np.log(chances)).sum(axis=1).mean())
    return np.mean(found)


@pytest.mark.long
@pytest.mark.parametrize("by", ["task", "layer"])
def test_adamerging_lowers_the_entropy_and_its_model_is_that_of_its_coefficients(region, given, by):
    method = made("adamerging", {"by": by, "steps": 4, "texts": 0, "learning_rate": 0.1})
    leaves, rows, entropies = method.found(region, given)
    assert entropies[0] == pytest.approx(entropy(region, given, region.params(region.centroid())), abs=1e-5)
    assert entropies[-1] < entropies[0]
    for (path, leaf), row in zip(flatten(region.base).items(), rows, strict=True):
        vectors = [flatten(member.load())[path] - leaf for member in region.members]
        np.testing.assert_allclose(leaves[path], leaf + np.tensordot(row, vectors, axes=1), atol=1e-5)
    if by == "task":
        np.testing.assert_allclose(rows, np.broadcast_to(rows[0], rows.shape), atol=1e-6)
    else:
        assert np.ptp(rows, axis=0).max() > 0.01


@pytest.mark.long
def test_adamergings_first_step_goes_down_the_gradient_of_finite_differences(region, given):
    steps = made("adamerging", {"by": "task", "steps": 1, "texts": 0, "learning_rate": 0.1}).found(region, given)[1]
    signs = np.sign(steps[0] - 0.5)
    for member, sign in enumerate(signs):
        shift = np.zeros(2)
        shift[member] = 0.02
        centre = region.centroid()
        slope = entropy(region, given, region.params(centre + shift)) - entropy(
            region, given, region.params(centre - shift)
        )
        assert np.sign(slope) == -sign


@pytest.mark.parametrize(
    ("name", "options", "row"),
    [
        ("uniform", {}, [0.5, 0.5]),
        ("weighted", {"weights": (1.0, 3.0)}, [0.25, 0.75]),
        ("task_arithmetic", {"weights": (2.0, -1.0), "scale": 0.3}, [0.6, -0.3]),
    ],
)
def test_methods_of_coefficients_are_combine(region, name, options, row):
    expected = combine(region.base, region.stacked(), jnp.array(row, jnp.float32))
    found = merge(region, made(name, options))
    for path, leaf in flatten(expected).items():
        np.testing.assert_allclose(flatten(found)[path], leaf, atol=1e-6, err_msg=path)


@pytest.mark.parametrize("name", ["fisher", "regmean", "regmean_plus_plus", "adamerging", "greedy", "learned"])
def test_identical_members_return_themselves(tiny, region, given, own, name):
    member = region.members[0]
    twins = [dataclasses.replace(member, name=twin) for twin in ("x", "y")]
    both = Region(tiny.model, tiny.params, twins, base_sha256=region.base_sha256)
    options = {"steps": 0} if name == "adamerging" else {"points": 3} if name == "learned" else {}
    target = own["made_up_a1"]
    found = merge(both, made(name, options), dataclasses.replace(given, dataset=target))
    for path, leaf in flatten(member.load()).items():
        np.testing.assert_allclose(flatten(found)[path], leaf, atol=1e-5, err_msg=path)


@pytest.mark.long
def test_methods_that_choose_on_a_dataset_do_not_read_its_test_split(region, own):
    dataset = own["made_up_a1"]
    blind = dataclasses.replace(dataset, splits={k: v for k, v in dataset.splits.items() if k != "test"})
    merge(region, made("learned", {"points": 3}), Given(dataset=blind))
    merge(region, made("learned_free", {"steps": 1}), Given(dataset=blind))
    assert on_validation(dataset).splits["test"] is dataset.splits["validation"]


def test_only_learned_chooses_on_several_datasets(region, own):
    both = list(own.values())
    with pytest.raises(WsrError, match=r"greedy chooses on one dataset, found 2: made_up_a1, made_up_b1"):
        merge(region, made("greedy", {}), Given(dataset=both))
    with pytest.raises(WsrError, match="learned needs a dataset to choose on"):
        merge(region, made("learned", {}), Given(dataset=[]))


@pytest.mark.long
def test_the_snippet_of_the_page_runs():
    page = (Path(__file__).parent.parent / "docs" / "merging.md").read_text(encoding="utf-8")
    snippet, *_ = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    names = {}
    exec(snippet, names)
    base, members = names["base"].params, names["members"].values()
    for path, leaf in flatten(names["params"]).items():
        start = flatten(base)[path]
        most = np.max([np.abs(flatten(own)[path] - start) for own in members], axis=0)
        assert np.all(np.abs(leaf - start) <= most + 1e-6)


def test_what_is_missing_is_said(region, own, given):
    with pytest.raises(WsrError, match="fisher needs the members' own datasets"):
        merge(region, made("fisher", {}))
    with pytest.raises(WsrError, match=r"greedy needs a dataset to choose on \(--on\)"):
        merge(region, made("greedy", {}))
    with pytest.raises(WsrError, match="member made_up_b1 needs its own dataset, made_up_b1; given: made_up_a1"):
        merge(region, made("regmean", {}), Given(own={"made_up_a1": own["made_up_a1"]}))
    with pytest.raises(WsrError, match="is not a linear head"):
        merge(region, made("fisher", {}), dataclasses.replace(given, heads={"made_up_a1": {"kernel": np.ones((3, 2))}}))
    mute = Region(dataclasses.replace(region.model, kernel_inputs=None), region.base, region.members, base_sha256="b")
    with pytest.raises(WsrError, match="tiny does not expose the inputs of its dense layers"):
        merge(mute, made("regmean", {}), given)
    with pytest.raises(WsrError, match="groups need a method that uses only weights"):
        merge(region, made("regmean", {}), given, groups=[("kernel", made("uniform", {}))])
