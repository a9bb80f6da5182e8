"""Three small members, their merge, and what the NumPy references of merge methods share."""

import numpy as np

from wsr.merging.ingredients import Ingredients
from wsr.merging.run import assigned, merge_leaves

SHAPES = {"embed/embedding": (7, 6), "layer/kernel": (6, 9), "layer/bias": (9,), "norm/scale": (1,)}
NAMES = ("a", "b", "c")


def drawn(seed, scale):
    generator = np.random.default_rng(seed)
    return {path: (scale * generator.standard_normal(shape)).astype(np.float32) for path, shape in SHAPES.items()}


BASE = drawn(0, 1.0)
MEMBERS = [{path: BASE[path] + leaf for path, leaf in drawn(seed, 0.3).items()} for seed in (1, 2, 3)]


def opened(leaves):
    def open_leaf(path):
        place = 0

        def read(start, out):
            nonlocal place
            assert start == place, "the pieces of a leaf come in order"
            place += out.size
            out[:] = leaves[path].reshape(-1)[start : start + out.size]

        return read

    return open_leaf


def population(members=MEMBERS, *, stored="weights", piece=2**16, names=NAMES):
    if stored == "task_vectors":
        members = [{path: own[path] - BASE[path] for path in SHAPES} for own in members]
    return Ingredients(
        tuple(names[: len(members)]), SHAPES, opened(BASE), tuple(map(opened, members)), stored=stored, piece=piece
    )


def merged(method, of=None, groups=()):
    found = {}
    merge_leaves(
        of or population(),
        assigned(SHAPES, method, groups),
        lambda leaf, values: found.update({leaf.path: values.reshape(leaf.shape)}),
    )
    assert found.keys() == SHAPES.keys()
    return found


def tau(path=None):
    """Task vectors [members, entries] of a leaf, or of the whole model, in float64."""
    paths = sorted(SHAPES) if path is None else [path]
    return np.stack([np.concatenate([(own[p] - BASE[p]).ravel() for p in paths]).astype(np.float64) for own in MEMBERS])


def expect(found, reference, atol=1e-5):
    for path in SHAPES:
        wanted = reference(path)
        np.testing.assert_allclose(found[path].ravel(), wanted, atol=atol, err_msg=path)


def base(path):
    return BASE[path].ravel().astype(np.float64)


def weights_of(path):
    return tau(path) + base(path)


def trimmed(vector, share):
    """The largest magnitudes of a vector, the others 0."""
    kept = np.zeros_like(vector)
    chosen = np.argsort(-np.abs(vector))[: max(1, int(share * len(vector)))]
    kept[chosen] = vector[chosen]
    return kept


def elect(vectors, weights, mean=True):
    out = np.zeros(vectors.shape[1])
    for place in range(vectors.shape[1]):
        column = weights * vectors[:, place]
        sign = 1 if column.sum() >= 0 else -1
        part = [k for k in range(len(column)) if column[k] * sign > 0]
        if part:
            out[place] = column[part].sum() / (weights[part].sum() if mean else 1)
    return out
