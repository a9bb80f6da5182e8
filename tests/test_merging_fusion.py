"""Consensus, layerwise, competing and fusing methods, against a NumPy reference of each in float64."""

import numpy as np
import pytest
from merging_world import BASE, MEMBERS, SHAPES, base, expect, merged, opened, population, tau, weights_of

from wsr.errors import WsrError
from wsr.merging.ingredients import Ingredients
from wsr.merging.method import made
from wsr.merging.run import merge_leaves


def test_emr_unifies_signs_and_largest_magnitudes():
    def reference(path):
        vectors = tau(path)
        out = np.zeros(vectors.shape[1])
        for place, column in enumerate(vectors.T):
            sign = 1 if column.sum() > 0 else -1
            out[place] = sign * max([abs(entry) for entry in column if entry * sign > 0], default=0.0)
        return base(path) + 0.7 * out

    expect(merged(made("emr", {"scale": 0.7})), reference)


@pytest.mark.parametrize(("threshold", "least"), [(0.4, 2), (0.6, 1), (0.2, 3), (0.4, 0)])
def test_consensus_keeps_what_several_tall_masks_have(threshold, least):
    def reference(path):
        theta, start = weights_of(path), base(path)
        together = start + tau(path).sum(axis=0)
        masks = [np.abs(start - own) > threshold * np.abs(together - own) for own in theta]
        return start + 0.5 * (together - start) * (np.sum(masks, axis=0) >= least)

    method = made("consensus", {"threshold": threshold, "least": least, "scale": 0.5})
    expect(merged(method), reference)
    if least == 2:
        kept = np.mean(merged(method)["layer/kernel"] != BASE["layer/kernel"])
        assert 0.1 < kept < 0.9


def test_ram_averages_what_several_members_changed():
    def reference(path, r=0.0, alpha=0.0):
        vectors = tau(path)
        changed = np.abs(vectors) > 0.3
        alone = changed & (changed.sum(axis=0) == 1)
        out = np.zeros(vectors.shape[1])
        for k, vector in enumerate(vectors):
            own, shared = alone[k].sum(), (changed[k] & ~alone[k]).sum()
            rise = 1 + r * min(alpha, shared / own if own else (np.inf if shared else 0))
            out[alone[k]] = rise * vector[alone[k]]
        for place in np.flatnonzero(changed.sum(axis=0) > 1):
            out[place] = vectors[changed[:, place], place].mean()
        return base(path) + out

    expect(merged(made("ram", {"epsilon": 0.3})), reference)
    plus = made("ramplus_tl", {"epsilon": 0.3, "r": 0.5, "alpha": 0.8})
    expect(merged(plus), lambda path: reference(path, 0.5, 0.8))


@pytest.mark.parametrize(("density", "trim"), [(0.1, 1e-4), (0.5, 0.1), (1.0, 0.0), (0.95, 0.02)])
def test_pcb(density, trim):
    """On the whole flat task vectors, entries sorted in full."""
    vectors = tau()
    count, size = vectors.shape
    sizes = np.abs(vectors)
    for row in sizes:
        ordered = np.sort(row)
        row[:] = np.clip(row, ordered[int(size * trim)], ordered[int(size * (1 - trim) - 1)])
    ranged = np.stack([(row - row.min()) / (row.max() - row.min()) for row in sizes])
    scores = np.exp(count * ranged**2) * np.tanh(vectors * vectors.sum(axis=0))
    for row in scores:
        least = np.sort(row)[min(int(size * (1 - density)), size - 1)]
        row[:] = (np.maximum(row, least) - least) / (row.max() - least)
    together = (np.sign(vectors) * sizes * scores).sum(axis=0) / np.maximum(scores.sum(axis=0), 1e-12)
    start = np.concatenate([base(path) for path in sorted(SHAPES)])
    expected = dict(zip(sorted(SHAPES), np.split(start + 0.7 * together, _ends()), strict=True))
    expect(merged(made("pcb", {"density": density, "trim": trim, "scale": 0.7})), expected.get)


def _ends():
    return np.cumsum([np.prod(SHAPES[path]) for path in sorted(SHAPES)])[:-1]


LAYERS = (
    "layers/{}/dense/kernel",
    "model.layers.{}.mlp.weight",
    "h.{}.attn.weight",
    "encoder.block.{}.layer.0.SelfAttention.q.weight",
    "vision/blocks/{}/kernel",
)


@pytest.mark.parametrize("form", LAYERS)
def test_lines_grows_with_the_layer_and_is_alpha_elsewhere(form):
    paths = {form.format(layer): 0.2 + 0.9 * layer / 3 for layer in (0, 1, 2, 3)}
    # Another stack has its own length; tables, heads and leaves without a number are outside.
    paths |= {f"other/{form.format(layer)}": 0.2 + 0.9 * layer for layer in (0, 1)}
    paths |= dict.fromkeys(("embeddings/token/embedding", "classifier.3.weight", "norm.weight", "2_Dense/w"), 0.2)
    generator = np.random.default_rng(0)
    start, *vectors = generator.standard_normal((3, len(paths), 5)).astype(np.float32)
    models = [dict(zip(paths, leaves, strict=True)) for leaves in (start, *(start + own for own in vectors))]
    found = {}
    merge_leaves(
        Ingredients(
            ("a", "b"), dict.fromkeys(paths, (5,)), opened(models[0]), tuple(map(opened, models[1:])), "weights"
        ),
        dict.fromkeys(paths, made("lines", {"alpha": 0.2, "beta": 0.9})),
        lambda leaf, values: found.update({leaf.path: values}),
    )
    for path, factor in paths.items():
        own = models[0][path] + factor * (models[1][path] + models[2][path] - 2 * models[0][path])
        np.testing.assert_allclose(found[path], own, atol=1e-5, err_msg=path)


def test_lines_has_a_mean_where_beta_is_0():
    expect(merged(made("lines", {"beta": 0.0})), lambda path: weights_of(path).mean(axis=0))


@pytest.mark.parametrize("around", ["zero", "base"])
@pytest.mark.parametrize("scope", ["leaf", "output", "input"])
def test_nuslerp(scope, around):
    def arc(first, second, t):
        angle = np.arccos(np.clip(first @ second / np.linalg.norm(first) / np.linalg.norm(second), -1, 1))
        if np.sin(angle) < 1e-8:
            return (1 - t) * first + t * second
        return (np.sin((1 - t) * angle) * first + np.sin(t * angle) * second) / np.sin(angle)

    def reference(path):
        start = base(path) if around == "base" else 0
        first, second = (weights_of(path)[:2] - start).reshape(2, *SHAPES[path])
        if scope == "leaf" or first.ndim == 1:
            return start + arc(first.ravel(), second.ravel(), 0.25)
        # A row of a table is a vector of one unit; a column of a kernel [inputs, outputs] is.
        if path.endswith("kernel") == (scope == "output"):
            return start + np.stack([arc(a, b, 0.25) for a, b in zip(first.T, second.T, strict=True)], axis=1).ravel()
        return start + np.stack([arc(a, b, 0.25) for a, b in zip(first, second, strict=True)]).ravel()

    method = made("nuslerp", {"weights": (3.0, 1.0), "scope": scope, "around": around})
    expect(merged(method, population(MEMBERS[:2])), reference)


def test_nuslerp_of_opposite_vectors_is_the_straight_line_and_of_none_the_other():
    opposite = {path: 2 * BASE[path] - own for path, own in MEMBERS[0].items()}
    found = merged(made("nuslerp", {"weights": (3.0, 1.0)}), population([MEMBERS[0], opposite]))
    expect(found, lambda path: base(path) + 0.5 * tau(path)[0])
    found = merged(made("nuslerp", {}), population([MEMBERS[0], BASE]))
    expect(found, lambda path: base(path) + np.sqrt(0.5) * tau(path)[0])


def test_nearswap_moves_no_entry_further_than_t():
    def reference(path):
        return base(path) + np.clip(tau(path)[0], -0.1, 0.1)

    expect(merged(made("nearswap", {"t": 0.1}), population(MEMBERS[:1])), reference)


def test_arcee_fusion_takes_the_entries_of_the_largest_importance():
    def softmax(row):
        return np.exp(row) / np.exp(row).sum() + 1e-8

    def reference(path):
        member, start = (own.reshape(SHAPES[path]) for own in (weights_of(path)[0], base(path)))
        if path.endswith("kernel"):
            member, start = member.T, start.T
        importance = np.abs(member - start)
        for row, p, q in zip(*map(np.atleast_2d, (importance, member, start)), strict=True):
            row *= np.sum(softmax(p) * np.log(softmax(p) / softmax(q)))
        ordered = np.sort(importance.ravel())
        first, median, third = (ordered[int(q * (len(ordered) - 1))] for q in (0.25, 0.5, 0.75))
        fused = np.where(importance >= median + 1.5 * (third - first), member, start)
        return (fused.T if path.endswith("kernel") else fused).ravel()

    found = merged(made("arcee_fusion", {}), population(MEMBERS[:1]))
    expect(found, reference)
    assert 0 < np.mean(found["layer/kernel"] != BASE["layer/kernel"]) < 0.5


def test_passthrough_scales_a_copy():
    expect(merged(made("passthrough", {"scale": 0.7}), population(MEMBERS[:1])), lambda path: 0.7 * weights_of(path)[0])
    with pytest.raises(WsrError, match="passthrough merges exactly 1 member; found 3: a, b, c"):
        merged(made("passthrough", {}))
