"""What is planted is flagged, for its own reason, and nothing else is."""

import numpy as np
import pytest
from test_membership import DIMENSION, draw_world, population

from wsr.region.outliers import flags, length_z


def kinds(vectors, datasets):
    return [[flag.kind for flag in own] for own in flags(population(vectors, datasets))]


def test_sound_members_are_not_flagged():
    for seed in range(20):
        vectors, datasets, *_ = draw_world(np.random.default_rng(seed), members=3)
        assert kinds(vectors, datasets) == [[]] * 12


@pytest.mark.parametrize(
    ("plant", "kind"),
    [
        (lambda own, noise: 4 * own, "long"),
        (lambda own, noise: own / 4, "short"),
        (lambda own, noise: 1e-5 * own, "unmoved"),
        (lambda own, noise: 0 * own, "unmoved"),
        (lambda own, noise: noise, "apart"),
    ],
    ids=["long", "short", "nearly the base", "the base", "a random direction"],
)
def test_a_planted_outlier_is_flagged_and_the_others_are_not(plant, kind):
    generator = np.random.default_rng(0)
    vectors, datasets, *_ = draw_world(generator)
    vectors[5] = plant(vectors[5], generator.normal(size=DIMENSION) / DIMENSION**0.5)
    found = kinds(vectors, datasets)
    assert found[5][0] == kind
    assert not any(found[:5] + found[6:])


def test_a_copy_is_flagged_once():
    vectors, datasets, *_ = draw_world(np.random.default_rng(1))
    vectors[7] = vectors[2]
    found = flags(population(vectors, datasets))
    assert [flag.told for flag in found[7] if flag.kind == "twin"] == ["it is the same model as m2"]
    assert not found[2]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_copy_rounded_to_16_bits_is_a_twin_and_a_sibling_is_not(tiny, dtype):
    """A sibling may be as near, but it differs in a direction that its task vector has too."""
    import jax
    import jax.numpy as jnp

    from wsr.region.region import from_params
    from wsr.region.standing import Population

    draw = np.random.default_rng(0)
    rounding = 0.0015 * np.sqrt(sum(np.vdot(leaf, leaf) for leaf in jax.tree.leaves(tiny.params)))
    size = sum(leaf.size for leaf in jax.tree.leaves(tiny.params))

    def moved(params, by):
        scale = by * rounding / size**0.5
        return jax.tree.map(lambda leaf: np.float32(leaf + scale * draw.standard_normal(leaf.shape)), params)

    common = moved(tiny.params, 4)
    model = moved(common, 4)
    later = jax.tree.map(lambda start, end: np.float32(start + 1.15 * (end - start)), tiny.params, model)
    copy = jax.tree.map(lambda leaf: np.asarray(jnp.asarray(leaf, dtype), np.float32), model)
    members = {"model": model, "a": moved(common, 4), "b": moved(common, 4), "later": later, "copy": copy}
    found = flags(Population.of(from_params(tiny.model, tiny.params, members)))
    assert [[flag.kind for flag in own] for own in found] == [[], [], [], [], ["twin"]]
    assert found[-1][0].told == "it is the same model as model, up to rounding to 16 bits"


def test_a_lone_member_is_flagged_only_where_it_is_like_nobody_at_all():
    """Without others of its dataset only a random direction can be told from a member that is merely different."""
    generator = np.random.default_rng(2)
    dimension = 40_000
    common = generator.normal(size=dimension)
    vectors = common + 2 * generator.normal(size=(5, dimension))
    vectors[4] = np.linalg.norm(vectors[3]) * generator.normal(size=dimension) / dimension**0.5
    own = population(vectors, [""] * 5, entries=dimension)
    assert [[flag.kind for flag in one] for one in flags(own)] == [[], [], [], [], ["alone"]]
    assert flags(population(vectors, [""] * 5, entries=0)) == [()] * 5  # of a matrix nobody knows the dimension


def test_of_a_pair_that_is_apart_both_are_in_doubt():
    generator = np.random.default_rng(3)
    vectors, datasets, *_ = draw_world(generator, members=2)
    vectors[0] = generator.normal(size=DIMENSION) / DIMENSION**0.5
    found = flags(population(vectors, datasets))
    assert [flag.kind for flag in found[0]] == [flag.kind for flag in found[1]] == ["apart"]
    assert "or the other is the odd one" in found[1][0].told


@pytest.mark.parametrize("members", [1, 2, 3])
def test_few_members_are_no_measure_of_length(members):
    vectors = np.eye(members, 8) * np.array([[1.0], [30.0], [1.0]])[:members] + 0.1
    assert not any("long" in own or "short" in own for own in kinds(vectors, ["d"] * members))


def test_the_z_score_is_of_the_other_lengths():
    lengths = np.array([1.0, 2.0, 4.0, 8.0, 1000.0])
    logs = np.log(lengths[:4])
    deviation = 1.4826 * np.median(np.abs(logs - np.median(logs)))
    assert length_z(lengths, 4) == pytest.approx((np.log(1000) - np.median(logs)) / deviation)
    # Lengths that are all alike still leave room.
    assert length_z(np.array([1.0, 1.0, 1.0, 1.0, 2.0]), 4) == pytest.approx(np.log(2) / np.log(1.25))
