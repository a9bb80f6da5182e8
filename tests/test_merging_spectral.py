"""Spectral methods against the formulas of their papers, by plain SVDs of whole matrices in float64."""

import numpy as np
import pytest

from wsr.errors import WsrError
from wsr.merging import spectral
from wsr.merging.ingredients import Ingredients
from wsr.merging.method import made
from wsr.merging.run import assigned, merge_leaves
from wsr.merging.spectral import svd
from wsr.merging.task_matrices import TABLES_AND_HEADS

SHAPES = {
    "layers/0/query/kernel": (12, 12),
    "layers/0/wide/kernel": (9, 20),
    "layers/0/tall/kernel": (20, 9),
    "layers/0/query/bias": (12,),
    "token/embedding": (30, 12),
    "head/kernel": (12, 10),
    "layers/0/convolution/kernel": (3, 4, 5),
}
MATRICES = [path for path in SHAPES if path.startswith("layers") and len(SHAPES[path]) == 2]
SPECTRAL = ("iso_c", "iso_cts", "tsv_m")


def drawn(seed, scale, rank=None):
    generator = np.random.default_rng(seed)

    def leaf(shape):
        if rank is None or len(shape) != 2:
            return generator.standard_normal(shape)
        return generator.standard_normal((shape[0], rank)) @ generator.standard_normal((rank, shape[1]))

    return {path: (scale * leaf(shape)).astype(np.float32) for path, shape in SHAPES.items()}


BASE = drawn(0, 1.0)


def members_of(count, rank=None):
    return [{p: BASE[p] + leaf for p, leaf in drawn(seed, 0.3, rank).items()} for seed in range(1, count + 1)]


def opened(leaves):
    def open_leaf(path):
        def read(start, out):
            out[:] = leaves[path].reshape(-1)[start : start + out.size]

        return read

    return open_leaf


def merged(method, members, *, piece=2**16, torch=False):
    """Merges Flax leaves ``[inputs, outputs]``, or the same matrices as PyTorch stores them."""
    turned = {p: p.endswith("kernel") and len(SHAPES[p]) == 2 and torch for p in SHAPES}

    def stored(leaves):
        return {p: np.ascontiguousarray(leaf.T) if turned[p] else leaf for p, leaf in leaves.items()}

    shapes = {p: SHAPES[p][::-1] if turned[p] else SHAPES[p] for p in SHAPES}
    ingredients = Ingredients(
        tuple(f"m{k}" for k in range(len(members))),
        shapes,
        opened(stored(BASE)),
        tuple(opened(stored(own)) for own in members),
        stored="weights",
        inputs_first=not torch,
        piece=piece,
    )
    found = {}

    def keep(leaf, values):
        own = values.reshape(leaf.shape)
        found[leaf.path] = own.T if turned[leaf.path] else own

    merge_leaves(ingredients, assigned(shapes, method, ()), keep)
    return found


def tasks(members, path):
    """Task matrices ``[outputs, inputs]`` in float64."""
    return [(own[path] - BASE[path]).astype(np.float64).T for own in members]


def polar(matrix):
    u, _, vt = np.linalg.svd(matrix, full_matrices=False)
    return u @ vt


def iso_c(matrices):
    u, s, vt = np.linalg.svd(sum(matrices), full_matrices=False)
    return u @ np.diag(np.full_like(s, s.mean())) @ vt


def iso_cts(matrices, common=0.8):
    """As in algorithm 1 of the paper: the common space is rounded so that the rest divides by the number of tasks."""
    count, r = len(matrices), min(matrices[0].shape)
    k = r - round((r - int(common * r)) / count) * count
    each = (r - k) // count
    u, s, vt = np.linalg.svd(sum(matrices), full_matrices=False)
    lefts, values, rights = [], [], []
    for matrix in matrices:
        rest = matrix - u[:, :k] @ u[:, :k].T @ matrix
        own_u, own_s, own_vt = np.linalg.svd(rest, full_matrices=False)
        lefts, values, rights = [*lefts, own_u[:, :each]], [*values, own_s[:each]], [*rights, own_vt[:each]]
    left, right = np.hstack([*lefts, u[:, :k]]), np.vstack([*rights, vt[:k]])
    return np.concatenate([*values, s[:k]]).mean() * polar(left) @ polar(right)


def tsv_m(matrices):
    k = int(min(matrices[0].shape) / len(matrices))
    parts = [np.linalg.svd(matrix, full_matrices=False) for matrix in matrices]
    left = polar(np.hstack([u[:, :k] for u, _, _ in parts]))
    right = polar(np.vstack([vt[:k] for _, _, vt in parts]))
    return left @ np.diag(np.concatenate([s[:k] for _, s, _ in parts])) @ right


@pytest.mark.parametrize("torch", [False, True], ids=["flax", "torch"])
@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("name", SPECTRAL)
def test_matrices_are_merged_by_the_formula_and_other_leaves_averaged(name, count, torch):
    members = members_of(count)
    found = merged(made(name, {"scale": 0.7}), members, piece=25, torch=torch)
    for path in SHAPES:
        if path in MATRICES:
            expected = BASE[path] + 0.7 * globals()[name](tasks(members, path)).T
        else:
            expected = BASE[path] + 0.7 * np.mean([own[path] - BASE[path] for own in members], axis=0)
        np.testing.assert_allclose(found[path], expected, atol=1e-5, err_msg=path)


@pytest.mark.parametrize("name", SPECTRAL)
def test_singular_vectors_of_an_accelerator_give_the_same(name, monkeypatch):
    """JAX computes them in float32, here on the CPU."""
    monkeypatch.setattr(spectral, "on_accelerator", lambda: True)
    members = members_of(3)
    found = merged(made(name, {"scale": 0.7}), members)
    for path in MATRICES:
        expected = BASE[path] + 0.7 * globals()[name](tasks(members, path)).T
        np.testing.assert_allclose(found[path], expected, atol=1e-5, err_msg=path)
    thin = merged(made(name, {}), members_of(3, rank=1))
    for path in MATRICES:
        values = np.linalg.svd(thin[path] - BASE[path], compute_uv=False)
        assert values[2] > 0.1 > 1e-5 > values[3], path


@pytest.mark.parametrize("torch", [False, True], ids=["flax", "torch"])
def test_wudi_steps_down_the_interference_as_adam_does(torch):
    """The gradient is taken numerically from the loss of the paper, in float64."""

    def loss(merged, matrices):
        return sum(np.sum(((merged - own) @ own.T) ** 2) / np.sum(own**2) for own in matrices)

    def reference(matrices):
        merged = sum(matrices)
        m, v = np.zeros((2, *merged.shape))
        for t in range(1, 4):
            gradient = np.zeros_like(merged)
            for place in np.ndindex(*merged.shape):
                step = np.zeros_like(merged)
                step[place] = 1e-4
                gradient[place] = (loss(merged + step, matrices) - loss(merged - step, matrices)) / 2e-4
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            merged = merged - 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        return merged

    members = members_of(3)
    found = merged(made("wudi", {"steps": 3, "learning_rate": 0.01}), members, torch=torch)
    for path in SHAPES:
        if path in MATRICES:
            expected = BASE[path] + reference(tasks(members, path)).T
        else:
            expected = np.mean([own[path] for own in members], axis=0)
        np.testing.assert_allclose(found[path], expected, atol=1e-5, err_msg=path)


@pytest.mark.parametrize("common", [0.0, 0.5, 1.0])
def test_the_common_share_of_iso_cts(common):
    members = members_of(3)
    found = merged(made("iso_cts", {"common": common}), members)
    for path in MATRICES:
        expected = BASE[path] + iso_cts(tasks(members, path), common).T
        np.testing.assert_allclose(found[path], expected, atol=1e-5, err_msg=path)


def test_the_leaves_that_are_averaged_can_be_named():
    members = members_of(3)
    found = merged(made("iso_c", {"averaged": "tall|token"}), members)
    head = BASE["head/kernel"] + iso_c(tasks(members, "head/kernel")).T
    np.testing.assert_allclose(found["head/kernel"], head, atol=1e-5)
    for path in ("layers/0/tall/kernel", "token/embedding"):
        np.testing.assert_allclose(found[path], np.mean([own[path] for own in members], axis=0), atol=1e-5)
    with pytest.raises(WsrError, match=r"iso_c: averaged = '\('; expected a regular expression"):
        made("iso_c", {"averaged": "("})


@pytest.mark.parametrize(
    "path",
    [
        "embeddings/token/embedding",
        "bert.embeddings.word_embeddings.weight",
        "model.embed_tokens.weight",
        "transformer.wte.weight",
        "shared.weight",
        "lm_head.weight",
        "language_model_head/kernel",
        "classifier.dense.weight",
        "pre_classifier.weight",
        "score.weight",
        "cls.predictions.transform.dense.weight",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    ],
)
def test_tables_and_heads_are_known_by_name(path):
    assert TABLES_AND_HEADS.search(path)


@pytest.mark.parametrize(
    "path",
    [
        "layers/0/attention/query/kernel",
        "bert.encoder.layer.0.attention.self.query.weight",
        "model.layers.0.mlp.gate_proj.weight",
        "decoder.block.0.layer.0.SelfAttention.q.weight",
        "transformer.h.0.attn.c_attn.weight",
        "bert.pooler.dense.weight",
    ],
)
def test_matrices_of_layers_are_not_taken_for_tables(path):
    assert not TABLES_AND_HEADS.search(path)


@pytest.mark.parametrize("name", SPECTRAL)
def test_directions_that_no_member_changed_stay_those_of_the_base(name):
    """Task matrices of rank 1, as of adapters: the merged matrix has no rank beyond theirs, and is finite."""
    members = members_of(3, rank=1)
    found = merged(made(name, {}), members)
    for path in MATRICES:
        values = np.linalg.svd(found[path] - BASE[path], compute_uv=False)
        assert values[2] > 0.1, path
        assert values[3] < 1e-5, path


def test_equal_or_absent_task_vectors_give_finite_results():
    for members in (members_of(1) * 3, [BASE] * 3):
        for name in (*SPECTRAL, "wudi"):
            found = merged(made(name, {}), members)
            assert all(np.isfinite(leaf).all() for leaf in found.values())
    np.testing.assert_array_equal(merged(made("tsv_m", {}), [BASE] * 2)["head/kernel"], BASE["head/kernel"])


def test_more_members_than_dimensions_keep_no_direction_of_their_own():
    found = merged(made("tsv_m", {}), members_of(10))
    np.testing.assert_array_equal(found["layers/0/wide/kernel"], BASE["layers/0/wide/kernel"])


@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (6, 6)])
@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_partial_svd_is_that_of_lapack(shape, count):
    matrix = np.random.default_rng(0).standard_normal(shape)
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    found = svd(matrix, count)
    np.testing.assert_allclose(found.values, s[:count], atol=1e-10)
    product = u[:, :count] @ np.diag(s[:count]) @ vt[:count]
    np.testing.assert_allclose(found.left * found.values @ found.right.T, product, atol=1e-10)
