"""KnOTS and Core Space against the formulas of their papers, by plain SVDs of whole matrices in float64."""

import numpy as np
import pytest

from wsr.geometry.low_rank import Factors, OpenLowRank
from wsr.merging import aligned, spectral
from wsr.merging.ingredients import Ingredients
from wsr.merging.method import made
from wsr.merging.run import assigned, merge_leaves
from wsr.runtime import seeds

SHAPES = {
    "layers/0/query/kernel": (8, 12),
    "layers/1/query/kernel": (12, 7),
    "layers/0/bias": (5,),
    "table/embed": (9, 4),
}
MATRICES = [path for path in SHAPES if path.endswith("kernel")]
NAMES = ("a", "b", "c")
RANKS = (2, 1, 3)
DRAW = np.random.default_rng(3)
BASE = {path: DRAW.standard_normal(shape).astype(np.float32) for path, shape in SHAPES.items()}
ADAPTERS = [
    {
        path: Factors(
            DRAW.standard_normal((SHAPES[path][0], rank)).astype(np.float32),
            DRAW.standard_normal((rank, SHAPES[path][1])).astype(np.float32),
        )
        for path in MATRICES
        if (rank, path) != (1, MATRICES[1])  # one member leaves one matrix as it is
    }
    for rank in RANKS
]


def merged(method, how):
    """Merges adapters as a store keeps them, or the same models as whole weights, of Flax or of PyTorch."""
    torch = how == "torch"

    def stored(path, leaf):
        return np.ascontiguousarray(leaf.T) if torch and path.endswith("kernel") else leaf

    def whole(own):
        def open_leaf(path):
            change = own[path].a @ own[path].b if path in own else 0
            flat = stored(path, BASE[path] + change).reshape(-1)
            return lambda start, out: np.copyto(out, flat[start : start + out.size])

        return open_leaf

    low_rank = how == "adapters"
    ingredients = Ingredients(
        NAMES,
        {path: stored(path, leaf).shape for path, leaf in BASE.items()},
        whole({}),
        tuple(OpenLowRank(own.get) if low_rank else whole(own) for own in ADAPTERS),
        stored="task_vectors" if low_rank else "weights",
        inputs_first=not torch,
        piece=13,
    )
    found = {}
    merge_leaves(
        ingredients,
        assigned(SHAPES, method, ()),
        lambda leaf, values: found.update({leaf.path: stored(leaf.path, values.reshape(leaf.shape))}),
    )
    return found


def tasks(path):
    """Task matrices ``[outputs, inputs]`` in float64."""
    shape = SHAPES[path][::-1]
    return [(own[path].a.astype(np.float64) @ own[path].b).T if path in own else np.zeros(shape) for own in ADAPTERS]


def knots_parts(path):
    """``U`` and ``diag(s) V_k^T`` of each member, as in the authors' paper."""
    own = tasks(path)
    u, s, vt = np.linalg.svd(np.hstack(own), full_matrices=False)
    rank = int((s > 1e-5).sum())
    return u[:, :rank], np.split(s[:rank, None] * vt[:rank], len(own), axis=1)


def elected(vectors):
    """The mean of the entries that agree with the sign of their sum, entry by entry."""
    out = np.zeros(vectors.shape[1:])
    for place in np.ndindex(*out.shape):
        column = vectors[(slice(None), *place)]
        agreeing = [own for own in column if own * (1 if column.sum() >= 0 else -1) > 0]
        out[place] = np.mean(agreeing) if agreeing else 0
    return out


def largest(vector, share):
    kept = np.zeros_like(vector)
    chosen = np.argsort(-np.abs(vector))[: int(share * vector.size)]
    kept[chosen] = vector[chosen]
    return kept


def knots_ties(path, density, scope):
    parts = {own: knots_parts(own) for own in MATRICES}
    u, own = parts[path]
    if scope == "leaf":
        kept = np.stack([largest(part.ravel(), density).reshape(part.shape) for part in own])
        return u @ elected(kept)
    kept = []
    for member, part in enumerate(own):
        every = np.concatenate([parts[other][1][member].ravel() for other in MATRICES])
        cut = np.sort(np.abs(every))[-int(density * every.size)]
        kept.append(np.where(np.abs(part) >= cut, part, 0))
    return u @ elected(np.stack(kept))


def expect(found, matrix, scale=1.0):
    for path, leaf in found.items():
        # No adapter changes the other leaves.
        expected = BASE[path] + scale * matrix(path).T if path in MATRICES else BASE[path]
        np.testing.assert_allclose(leaf, expected, atol=1e-5, err_msg=path)


HOW = ("adapters", "flax", "torch")


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("scope", ["whole", "leaf"])
def test_knots_with_ties(how, scope):
    method = made("knots", {"density": 0.4, "scope": scope, "scale": 0.6})
    expect(merged(method, how), lambda path: knots_ties(path, 0.4, scope), 0.6)


@pytest.mark.parametrize(("room", "times"), [(2**30, 1), (0, 2)])
def test_knots_finds_the_vectors_of_a_leaf_once_if_they_fit(monkeypatch, room, times):
    found, joint_left = [], aligned.joint_left
    monkeypatch.setattr(aligned, "joint_left", lambda leaf: found.append(leaf.path) or joint_left(leaf))
    monkeypatch.setattr(aligned, "KEPT_BYTES", room)
    monkeypatch.setattr(aligned, "usable_cores", lambda: 1)  # one leaf is remembered all the same
    expect(merged(made("knots", {"density": 0.4}), "flax"), lambda path: knots_ties(path, 0.4, "whole"))
    assert all((found.count(path) == 1) if times == 1 else (found.count(path) >= times) for path in MATRICES)


def test_knots_keeps_a_fifth_as_its_authors_do():
    expect(merged(made("knots", {}), "adapters"), lambda path: knots_ties(path, 0.2, "whole"))


def test_knots_with_dare_drops_entries_of_the_aligned_parts():
    """The draws are those of this package's streams; signs of singular vectors do not change which are dropped."""

    def reference(path):
        u, parts = knots_parts(path)
        kept = [
            np.where(
                seeds.generator(5, "merge", path, name).random(part.size, dtype=np.float32).reshape(part.shape) < 0.9,
                part / 0.9,
                0,
            )
            for name, part in zip(NAMES, parts, strict=True)
        ]
        return u @ elected(np.stack(kept))

    expect(merged(made("knots", {"inner": "dare_ties", "seed": 5}), "flax"), reference)


def cores(path, how):
    """``U``, the core matrices and ``V`` as in the authors' paper, from SVDs of the stacked factors."""
    if how == "adapters":
        pairs = [(own[path].b.T, own[path].a.T) for own in ADAPTERS if path in own]
    else:
        pairs = []
        for own in tasks(path):
            u, s, vt = np.linalg.svd(own, full_matrices=False)
            rank = int((s > 1e-5).sum())
            root = np.sqrt(s[:rank])
            pairs.append((u[:, :rank] * root, root[:, None] * vt[:rank]))
    stacked = np.hstack([b for b, _ in pairs]).astype(np.float64), np.vstack([a for _, a in pairs]).astype(np.float64)
    u, v = np.linalg.svd(stacked[0], full_matrices=False)[0], np.linalg.svd(stacked[1], full_matrices=False)[2].T
    return u, [u.T @ own @ v for own in tasks(path)], v


def polar(matrix):
    u, _, vt = np.linalg.svd(matrix, full_matrices=False)
    return u @ vt


def core_tsv_m(path, how):
    u, parts, v = cores(path, how)
    k = min(parts[0].shape) // len(parts)
    found = [np.linalg.svd(part) for part in parts]
    left = polar(np.hstack([own[:, :k][:, s[:k] > 1e-6] for own, s, _ in found]))
    right = polar(np.vstack([own[:k][s[:k] > 1e-6] for _, s, own in found]))
    values = np.concatenate([s[:k][s[:k] > 1e-6] for _, s, _ in found])
    return u @ left @ np.diag(values) @ right @ v.T


def core_iso_c(path, how):
    u, parts, v = cores(path, how)
    left, s, right = np.linalg.svd(sum(parts), full_matrices=False)
    return u @ left @ np.diag(np.full_like(s, s.mean())) @ right @ v.T


def core_ties(path, how):
    u, parts, v = cores(path, how)
    kept = np.stack([largest(part.ravel(), 0.5).reshape(part.shape) for part in parts])
    return u @ elected(kept) @ v.T


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("inner", ["tsv_m", "iso_c", "ties"])
def test_core_space(inner, how):
    options = {"density": 0.5} if inner == "ties" else {}
    reference = {"tsv_m": core_tsv_m, "iso_c": core_iso_c, "ties": core_ties}[inner]
    found = merged(made("core_space", {"inner": inner, "scale": 0.7, **options}), how)
    expect(found, lambda path: reference(path, how), 0.7)


@pytest.mark.parametrize("how", HOW)
def test_singular_vectors_of_an_accelerator_give_the_same(how, monkeypatch):
    """JAX computes them in float32, here on the CPU."""
    monkeypatch.setattr(spectral, "on_accelerator", lambda: True)
    expect(merged(made("knots", {"density": 0.4}), how), lambda path: knots_ties(path, 0.4, "whole"))
    for inner, reference in (("tsv_m", core_tsv_m), ("iso_c", core_iso_c)):
        found = merged(made("core_space", {"inner": inner}), how)
        expect(found, lambda path, reference=reference: reference(path, how))


@pytest.mark.parametrize("name", ["knots", "core_space"])
def test_equal_or_absent_adapters_give_finite_results(name, monkeypatch):
    monkeypatch.setitem(globals(), "ADAPTERS", [ADAPTERS[0]] * 3)
    for how in HOW:
        assert all(np.isfinite(leaf).all() for leaf in merged(made(name, {}), how).values())
    monkeypatch.setitem(globals(), "ADAPTERS", [{}] * 3)
    for how in HOW:
        expect(merged(made(name, {}), how), lambda path: np.zeros(SHAPES[path][::-1]))
