"""Methods that need nothing but weights, against a NumPy reference of each on whole flat vectors in float64."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from merging_world import (
    BASE,
    MEMBERS,
    NAMES,
    SHAPES,
    base,
    elect,
    expect,
    merged,
    population,
    tau,
    trimmed,
    weights_of,
)

from wsr.errors import WsrError
from wsr.merging.ingredients import Ingredients
from wsr.merging.method import METHODS, OfWeights, find, made, options_of
from wsr.merging.run import assigned, merge_leaves
from wsr.runtime import seeds

WEIGHTS_ONLY = sorted(name for name in METHODS if issubclass(find(name), OfWeights))


def test_averages():
    expect(merged(made("uniform", {})), lambda p: weights_of(p).mean(axis=0))
    w = np.array([0.5, 2.0, -0.25])
    given = {"weights": tuple(w)}
    expect(merged(made("weighted", given)), lambda p: w @ weights_of(p) / w.sum())
    expect(merged(made("linear", {**given, "normalise": False})), lambda p: w @ weights_of(p))
    expect(merged(made("task_arithmetic", given)), lambda p: base(p) + w @ tau(p) / 3)
    arithmetic = made("task_arithmetic", {**given, "scale": 0.4, "normalise": True})
    expect(merged(arithmetic), lambda p: base(p) + 0.4 * w @ tau(p) / w.sum())


@pytest.mark.parametrize("around", ["zero", "base"])
@pytest.mark.parametrize("scope", ["leaf", "whole"])
def test_slerp_is_shoemakes(around, scope):
    def reference(path):
        def ends(where):
            own = tau(where)[:2]
            if around == "base":
                return own
            return own + (base(where) if where else np.concatenate([base(p) for p in sorted(SHAPES)]))

        first, second = ends(path if scope == "leaf" else None)
        angle = np.arccos(np.clip(first @ second / np.linalg.norm(first) / np.linalg.norm(second), -1, 1))
        left, right = ends(path)
        if np.sin(angle) < 1e-5:  # one number: parallel
            mixed = 0.7 * left + 0.3 * right
        else:
            mixed = (np.sin(0.7 * angle) * left + np.sin(0.3 * angle) * right) / np.sin(angle)
        return mixed + (base(path) if around == "base" else 0)

    method = made("slerp", {"t": 0.3, "around": around, "scope": scope})
    expect(merged(method, population(MEMBERS[:2])), reference)


def test_multislerp_has_the_direction_of_the_mean_unit_and_the_mean_length():
    w = np.array([0.2, 0.5, 0.3])

    def reference(path):
        vectors = tau(path)
        lengths = np.linalg.norm(vectors, axis=1)
        direction = w @ (vectors / lengths[:, None])
        return base(path) + direction / np.linalg.norm(direction) * (w @ lengths)

    expect(merged(made("multislerp", {"weights": tuple(w)})), reference)


def test_karcher_mean_has_the_least_sum_of_squared_angles():
    def reference(path):
        vectors = weights_of(path)
        lengths = np.linalg.norm(vectors, axis=1)
        units = vectors / lengths[:, None]
        mean = units.mean(axis=0)
        mean /= np.linalg.norm(mean)
        for _ in range(200):  # plain descent on the sphere, with vectors
            angles = np.arccos(np.clip(units @ mean, -1, 1))
            tangents = units - (units @ mean)[:, None] * mean
            sizes = np.linalg.norm(tangents, axis=1)
            step = sum(a * t / s for a, t, s in zip(angles, tangents, sizes, strict=True) if s > 1e-12) / len(units)
            mean = mean + 0.5 * np.asarray(step)
            mean /= np.linalg.norm(mean)
        return mean * lengths.mean()

    expect(merged(made("karcher", {})), reference)


def test_model_stock_is_that_of_the_paper():
    def reference(path):
        vectors = tau(path)
        cosines = [
            vectors[i] @ vectors[j] / np.linalg.norm(vectors[i]) / np.linalg.norm(vectors[j])
            for i in range(3)
            for j in range(i)
        ]
        c = np.mean(cosines)
        t = 3 * c / (1 + 2 * c)
        return t * weights_of(path).mean(axis=0) + (1 - t) * base(path)

    expect(merged(made("model_stock", {})), reference)


@pytest.mark.parametrize("scope", ["whole", "leaf"])
def test_ties(scope):
    w = np.array([1.0, 0.6, 1.5])

    def reference(path):
        if scope == "leaf":
            kept = np.stack([trimmed(own, 0.3) for own in tau(path)])
        else:
            sizes = [int(np.prod(SHAPES[p])) for p in sorted(SHAPES)]
            first = sum(sizes[: sorted(SHAPES).index(path)])
            kept = np.stack([trimmed(own, 0.3)[first : first + int(np.prod(SHAPES[path]))] for own in tau()])
        return base(path) + 0.8 * elect(kept, w)

    expect(merged(made("ties", {"density": 0.3, "weights": tuple(w), "scale": 0.8, "scope": scope})), reference)


def uniform_numbers(path, name, size):
    return seeds.generator(5, "merge", path, name).random(size, dtype=np.float32)


@pytest.mark.parametrize("name", ["dare_linear", "dare_ties"])
def test_dare(name):
    def reference(path):
        kept = np.stack(
            [
                np.where(uniform_numbers(path, own, len(vector)) < 0.6, vector / 0.6, 0)
                for own, vector in zip(NAMES, tau(path), strict=True)
            ]
        )
        return base(path) + (elect(kept, np.ones(3)) if name == "dare_ties" else kept.mean(axis=0))

    expect(merged(made(name, {"density": 0.6, "seed": 5})), reference)


@pytest.mark.parametrize("name", ["della", "della_linear"])
def test_della_ranks_within_the_inputs_of_a_node(name):
    def reference(path):
        shape, kernel = SHAPES[path], path.endswith("kernel")
        kept = []
        for own, vector in zip(NAMES, tau(path), strict=True):
            nodes = np.atleast_2d(vector.reshape(shape).T if kernel else vector.reshape(shape))
            chances = np.full(nodes.shape, 0.5)
            if nodes.shape[1] > 1:
                for node, row in zip(chances, nodes, strict=True):
                    node[np.argsort(np.abs(row))] = 0.4 + 0.2 * np.arange(len(row)) / (len(row) - 1)
            numbers = uniform_numbers(path, own, nodes.size).reshape(nodes.shape)
            sparse = np.where(numbers < chances, nodes / chances, 0)
            kept.append((sparse.T if kernel else sparse).ravel())
        return base(path) + (elect(np.stack(kept), np.ones(3)) if name == "della" else np.mean(kept, axis=0))

    expect(merged(made(name, {"density": 0.5, "epsilon": 0.2, "seed": 5})), reference)


@pytest.mark.parametrize("name", ["breadcrumbs", "breadcrumbs_ties"])
def test_breadcrumbs_leaves_out_both_ends(name):
    def kept(vector):
        order = np.argsort(np.abs(vector))
        count, top = int(0.5 * len(vector)), int(0.2 * len(vector))
        first = max(0, len(vector) - count - top)
        out = np.zeros_like(vector)
        out[order[first : first + count]] = vector[order[first : first + count]]
        return out

    def reference(path):
        vectors = np.stack([kept(own) for own in tau(path)])
        return base(path) + (elect(vectors, np.ones(3)) if name.endswith("ties") else vectors.mean(axis=0))

    expect(merged(made(name, {"density": 0.5, "gamma": 0.2})), reference)


def test_sce():
    def reference(path):
        vectors = tau(path)
        variance = vectors.var(axis=0)
        kept = np.zeros_like(vectors)
        chosen = np.argsort(-variance)[: int(0.5 * np.count_nonzero(variance))]
        kept[:, chosen] = vectors[:, chosen]
        squares = (kept**2).mean(axis=1)
        w = squares / squares.sum() if squares.any() else np.full(3, 1 / 3)
        out = np.zeros(vectors.shape[1])
        for place in range(len(out)):
            sign = 1 if kept[:, place].sum() >= 0 else -1
            part = kept[:, place] * sign > 0
            if part.any():
                out[place] = w[part] @ kept[part, place] / w[part].sum()
        return base(path) + out

    expect(merged(made("sce", {"density": 0.5})), reference)


def test_densities_may_differ_by_member():
    def reference(path):
        kept = np.stack([trimmed(own, share) for own, share in zip(tau(path), (0.2, 1.0, 0.5), strict=True)])
        return base(path) + elect(kept, np.ones(3))

    expect(merged(made("ties", {"density": (0.2, 1.0, 0.5), "scope": "leaf"})), reference)


RESTORED = ("ties", "dare_linear", "dare_ties", "della", "della_linear", "breadcrumbs")


@pytest.mark.parametrize("name", RESTORED)
def test_one_member_rescaled_by_norm_keeps_its_sum_of_magnitudes(name):
    found = merged(made(name, {"density": 0.5, "rescale": "norm", "scale": 1.0}), population(MEMBERS[:1]))
    for path in ("embed/embedding", "layer/kernel"):
        kept = found[path].ravel() - base(path)
        assert 0 < np.count_nonzero(np.abs(kept) > 1e-6) < kept.size
        assert np.abs(kept).sum() == pytest.approx(np.abs(tau(path)[0]).sum(), rel=1e-4)


CHANGES = {
    "iso_c": "makes the singular values equal",
    "iso_cts": "makes the singular values equal",
    "tsv_m": "keeps a part of the singular directions",
    "core_space": "keeps a part of the singular directions",
    "wudi": "starts at the sum and takes small steps",
    "pcb": "moves the largest entries",
    "lines": "has a factor for each layer",
    "consensus": "drops entries that the sum hides",
    "nearswap": "moves the base by little",
    "arcee_fusion": "takes a part of the entries",
    "ramplus_tl": "raises the entries of one member",
}
"""Methods that do not return a member that they merge with itself, and why."""
OF_ANY_NUMBER = [name for name in WEIGHTS_ONLY if find(name).members[1] is None]


def whole(name):
    """The method with nothing left out."""
    options = options_of(find(name))
    return made(name, {"density": 1.0} if "density" in options else {})


@pytest.mark.parametrize("name", [name for name in WEIGHTS_ONLY if name not in CHANGES])
def test_identical_members_return_themselves(name):
    count = find(name).members[1] or 3
    found = merged(whole(name), population(MEMBERS[:1] * count))
    for path in SHAPES:
        np.testing.assert_allclose(found[path], MEMBERS[0][path], atol=1e-5)


@pytest.mark.parametrize("name", OF_ANY_NUMBER)
def test_the_order_of_members_does_not_matter(name):
    there = merged(made(name, {}))
    back = merged(made(name, {}), population(MEMBERS[::-1], names=NAMES[::-1]))
    for path in SHAPES:
        np.testing.assert_allclose(there[path], back[path], atol=1e-5)


@pytest.mark.parametrize("name", WEIGHTS_ONLY)
def test_neither_pieces_nor_the_form_on_disk_matter(name):
    count = find(name).members[1] or 3
    once = merged(made(name, {}), population(MEMBERS[:count]))
    for stored, piece in (("weights", 5), ("task_vectors", 2**16), ("task_vectors", 11)):
        again = merged(made(name, {}), population(MEMBERS[:count], stored=stored, piece=piece))
        for path in SHAPES:
            np.testing.assert_allclose(once[path], again[path], atol=1e-6, err_msg=f"{stored} {piece} {path}")


@pytest.mark.parametrize("name", ["dare_linear", "dare_ties", "della", "della_linear"])
def test_the_same_seed_gives_the_same_bits_whatever_the_pieces_and_another_seed_others(name):
    once, pieces = (merged(made(name, {"seed": 1}), population(piece=piece)) for piece in (2**16, 7))
    other = merged(made(name, {"seed": 2}))
    for path in SHAPES:
        np.testing.assert_array_equal(once[path], pieces[path])
    assert np.any(once["layer/kernel"] != other["layer/kernel"])


@pytest.mark.long
def test_random_methods_keep_the_mean():
    """Over many seeds DARE and DELLA are without bias: the mean of the merged models is the plain average."""
    for name in ("dare_linear", "della_linear"):
        found = np.mean(
            [merged(made(name, {"density": 0.5, "seed": s}))["layer/kernel"].ravel() for s in range(120)], 0
        )
        spread = np.sqrt((tau("layer/kernel") ** 2).sum(axis=0)) / 3 * np.sqrt(0.7 / 0.3 / 120)
        assert np.all(np.abs(found - base("layer/kernel") - tau("layer/kernel").mean(axis=0)) < 5 * spread)


def test_ties_of_a_leaf_whose_first_entries_are_unlike_the_others():
    """The rank is not where the first piece says, so that the leaf is read again."""
    shapes = {"w": (30_000,)}
    draw = np.random.default_rng(0)
    sizes = np.repeat([0.01, 1.0], 15_000)
    members = [(sizes * draw.standard_normal(30_000)).astype(np.float32) for _ in range(2)]

    def opened_flat(flat):
        return lambda path: lambda start, out: np.copyto(out, flat[start : start + out.size])

    ingredients = Ingredients(("a", "b"), shapes, None, tuple(map(opened_flat, members)), stored="weights", piece=9000)
    found = {}
    method = made("ties", {"density": 0.6, "scope": "leaf"})
    merge_leaves(ingredients, {"w": method}, lambda leaf, out: found.update(w=out))
    expected = elect(np.stack([trimmed(own.astype(np.float64), 0.6) for own in members]), np.ones(2))
    np.testing.assert_allclose(found["w"], expected, atol=1e-5)


def test_groups_merge_some_leaves_otherwise():
    groups = [
        ("kernel$", made("weighted", {"weights": (0.0, 1.0, 0.0)})),
        ("layer", made("weighted", {"weights": (1.0, 0.0, 0.0)})),
    ]
    found = merged(made("uniform", {}), groups=groups)
    np.testing.assert_allclose(found["layer/kernel"], MEMBERS[1]["layer/kernel"], atol=1e-6)
    np.testing.assert_allclose(found["layer/bias"], MEMBERS[0]["layer/bias"], atol=1e-6)
    np.testing.assert_allclose(found["norm/scale"], np.mean([own["norm/scale"] for own in MEMBERS], axis=0), atol=1e-6)
    with pytest.raises(WsrError, match=r"no leaf matches 'attention'; a path looks like 'embed/embedding'"):
        assigned(SHAPES, made("uniform", {}), [("attention", made("uniform", {}))])
    with pytest.raises(WsrError, match="is not a regular expression"):
        assigned(SHAPES, made("uniform", {}), [("(", made("uniform", {}))])


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_what_it_is_and_what_its_options_do(name):
    kind = find(name)
    assert "Source:" in kind.__doc__
    for name, option in options_of(kind).items():
        assert option.what.endswith("."), name
        assert not option.what.startswith("Of "), name
        assert option.allowed, name
        assert option.otherwise or option.default is not None, name


def test_the_page_has_a_row_for_every_method():
    page = (Path(__file__).parent.parent / "docs" / "merging.md").read_text(encoding="utf-8")
    table = page.partition("| method | what it does |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row)) == sorted(METHODS)


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("ties", {"density": 1.5}, "ties: density = 1.5; expected a number from 0 to 1"),
        ("ties", {"density": "much"}, "ties: density = 'much'; expected a number"),
        ("ties", {"densty": 0.5}, "ties has no option densty; it has density"),
        ("tie", {}, "no merge method is called 'tie'; nearest: ties"),
        ("slerp", {"scope": "layer"}, "expected leaf or whole"),
        ("weighted", {"weights": (1.0, float("nan"))}, "expected numbers, one per member"),
        ("della", {"density": 0.05}, "both are probabilities"),
    ],
)
def test_wrong_options_get_one_line(name, given, told):
    with pytest.raises(WsrError, match=told):
        made(name, given)


def test_wrong_members_get_one_line():
    with pytest.raises(WsrError, match="slerp merges exactly 2 members; found 3: a, b, c"):
        merged(made("slerp", {}))
    with pytest.raises(WsrError, match="weights has 2 numbers; expected one for each of 3 members"):
        merged(made("weighted", {"weights": (1.0, 2.0)}))
    opposite = [{path: 2 * BASE[path] - own[path] for path in SHAPES} for own in MEMBERS[:1]]
    three = [MEMBERS[0], *opposite, BASE]
    with pytest.raises(WsrError, match="cancel"):
        merged(made("multislerp", {"weights": (0.5, 0.5, 0.0)}), population(three))
    two = population([MEMBERS[0], *opposite])
    for scope in ("leaf", "whole"):
        with pytest.raises(WsrError, match=r"slerp: the two vectors are opposite .cosine -1.000000000.*linear"):
            merged(made("slerp", {"around": "base", "scope": scope}), two)
        with pytest.raises(WsrError, match="cancel"):
            merged(made("multislerp", {"scope": scope}), two)
    # The whole weights of the same models are not opposite.
    assert np.isfinite(merged(made("slerp", {"around": "zero"}), two)["layer/kernel"]).all()


def test_a_large_kernel_is_read_in_stripes_of_nodes(monkeypatch):
    """Blocks of nodes do not depend on how many fit."""
    leaf = next(own for own in population().leaves() if own.path == "layer/kernel")
    whole_leaf = [block.vectors.copy() for block, _ in leaf.node_blocks()]
    assert len(whole_leaf) == 1
    kernels = np.stack([(own["layer/kernel"] - BASE["layer/kernel"]).T.ravel() for own in MEMBERS])
    np.testing.assert_allclose(whole_leaf[0], kernels, atol=1e-7)
    monkeypatch.setattr("wsr.merging.ingredients.STRIPE", 1)
    small = replace(leaf, ingredients=replace(leaf.ingredients, piece=13))
    stripes = [block.vectors.copy() for block, _ in small.node_blocks()]
    assert len(stripes) > 1
    np.testing.assert_array_equal(np.concatenate(stripes, axis=1), whole_leaf[0])
