"""The parameters of a two-mode mixture: construction, validation, and the maths of two modes."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from oracles import MATRIX, OTHER
from scipy.special import expit

from mixture_models import InputError, TwoMode, bhattacharyya, mahalanobis, responsibilities

FIELDS = ("old_logit", "old_mean", "new_mean", "scale", "new_scale")

#: One covariance in every form that states it, its dense matrix and the rank of the scale that is kept.
STRUCTURES = {
    "none": (None, np.eye(2), 0),
    "variance": (2.5, 2.5 * np.eye(2), 0),
    "diagonal": ([2.0, 0.5], np.diag([2.0, 0.5]), 1),
    "matrix": (MATRIX, MATRIX, 2),
}


def mixture(**changes):
    arguments = {"old_weight": 0.3, "old_mean": [0.2, -0.1], "new_mean": [1.7, 0.8]} | changes
    return TwoMode.create(**arguments)


def fields_of(value):
    return {name: getattr(value, name) for name in FIELDS}


def same_bits(a, b):
    return (a is None and b is None) or np.asarray(a).tobytes() == np.asarray(b).tobytes()


# Construction


def test_create_stores_the_arguments_as_float64():
    built = mixture(covariance=MATRIX, new_covariance=[1.0, 4.0])
    assert float(built.old_logit) == pytest.approx(np.log(0.3 / 0.7), rel=1e-15)
    np.testing.assert_array_equal(built.old_mean, [0.2, -0.1])
    np.testing.assert_array_equal(built.new_mean, [1.7, 0.8])
    np.testing.assert_allclose(built.scale @ built.scale.T, MATRIX, rtol=1e-14)
    np.testing.assert_array_equal(built.new_scale, [1.0, 2.0])
    assert all(np.asarray(value).dtype == np.float64 for value in fields_of(built).values())
    assert all(isinstance(value, np.ndarray) for name, value in fields_of(built).items() if name != "scale")
    assert built.dim == 2


@pytest.mark.parametrize("covariance", [2.0, np.float32(2.0), [2.0], [[2.0]]])
@pytest.mark.parametrize(("old", "new"), [(0.0, 3), ([0.0], [3.0]), (np.float32(0.0), [3])])
def test_one_dimension_takes_scalars_and_vectors(old, new, covariance):
    built = TwoMode.create(0.25, old, new, covariance)
    assert built.dim == 1
    assert built.old_mean.shape == built.new_mean.shape == (1,)
    assert float(built.separation) == pytest.approx(3.0 / np.sqrt(2.0), rel=1e-15)
    np.testing.assert_allclose(built.scale_tril, [[np.sqrt(2.0)]], rtol=1e-15)


def test_a_mean_of_jax_or_lower_precision_is_cast():
    built = TwoMode.create(0.5, jnp.zeros(2), np.ones(2, np.int32))
    assert built.old_mean.dtype == built.new_mean.dtype == np.float64
    assert isinstance(built.old_mean, np.ndarray)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_structure_of_a_covariance_is_kept(structure):
    given, matrix, rank = STRUCTURES[structure]
    built = mixture(covariance=given)
    assert np.ndim(built.scale) == rank
    assert built.scale_tril.shape == (2, 2)
    np.testing.assert_allclose(built.scale_tril @ built.scale_tril.T, matrix, rtol=1e-14)
    np.testing.assert_array_equal(np.triu(built.scale_tril, 1), 0.0)
    assert built.new_scale is None
    assert built.scales[0] is built.scales[1]


def test_equality_compares_the_numbers():
    assert mixture() == mixture()
    assert mixture() != mixture(old_weight=0.31)
    assert mixture() != mixture(new_covariance=1.0)
    assert mixture(new_covariance=2.0) == mixture(new_covariance=2.0)
    assert mixture() != "a mixture"


# Bad input

NAN, INF = float("nan"), float("inf")

BAD = {
    "weight 0": ({"old_weight": 0.0}, "old_weight must lie in (0, 1); got 0"),
    "weight 1": ({"old_weight": 1.0}, "old_weight must lie in (0, 1); got 1"),
    "weight negative": ({"old_weight": -0.2}, "old_weight must lie in (0, 1); got -0.2"),
    "weight above 1": ({"old_weight": 1.2}, "old_weight must lie in (0, 1); got 1.2"),
    "weight nan": ({"old_weight": NAN}, "old_weight must be finite; got nan"),
    "weight infinite": ({"old_weight": INF}, "old_weight must be finite; got inf"),
    "weight text": ({"old_weight": "half"}, "old_weight must be a number; got 'half'"),
    "weight array": ({"old_weight": [0.5, 0.5]}, "old_weight must be a number; got [0.5, 0.5]"),
    "logit nan": ({"old_weight": None, "old_logit": NAN}, "old_logit must be finite; got nan"),
    "logit infinite": ({"old_weight": None, "old_logit": -INF}, "old_logit must be finite; got -inf"),
    "both weights": ({"old_logit": 0.0}, "exactly one of old_weight and old_logit; got both"),
    "no weight": ({"old_weight": None}, "exactly one of old_weight and old_logit; got neither"),
    "mean missing": ({"new_mean": None}, "new_mean must be given"),
    "mean nan": ({"old_mean": [0.0, NAN]}, "old_mean must be finite; got [ 0. nan]"),
    "mean infinite": ({"new_mean": [INF, 0.0]}, "new_mean must be finite; got [inf  0.]"),
    "mean text": ({"old_mean": "here"}, "old_mean must be numeric"),
    "mean complex": ({"old_mean": 1j}, "old_mean must be numeric"),
    "mean ragged": ({"old_mean": [[1.0], [1.0, 2.0]]}, "old_mean must be numeric"),
    "mean empty": ({"old_mean": []}, "old_mean must be a scalar or of shape (d,); got shape (0,)"),
    "mean of rank 2": ({"old_mean": [[0.0, 1.0]]}, "old_mean must be a scalar or of shape (d,)"),
    "means of two shapes": ({"new_mean": [1.0]}, "must have one shape; got (2,) and (1,)"),
    "variance 0": ({"covariance": 0.0}, "covariance must be positive definite; got a variance of 0"),
    "variance negative": ({"covariance": [1.0, -2.0]}, "must be positive definite; got a variance of -2"),
    "variance nan": ({"covariance": [1.0, NAN]}, "covariance must be finite"),
    "variances too many": ({"covariance": [1.0, 1.0, 1.0]}, "2 variances or a 2 x 2 matrix; got shape (3,)"),
    "matrix of another shape": ({"covariance": np.eye(3)}, "2 x 2 matrix; got shape (3, 3)"),
    "matrix not square": ({"covariance": np.ones((2, 3))}, "2 x 2 matrix; got shape (2, 3)"),
    "matrix of rank 3": ({"covariance": np.ones((2, 2, 2))}, "got shape (2, 2, 2)"),
    "matrix asymmetric": ({"covariance": [[1.0, 0.5], [0.4, 1.0]]}, "covariance must be symmetric"),
    "matrix singular": ({"covariance": [[1.0, 1.0], [1.0, 1.0]]}, "must be positive definite"),
    "matrix indefinite": ({"covariance": [[1.0, 2.0], [2.0, 1.0]]}, "its lowest eigenvalue is -1"),
    "new variance": ({"new_covariance": -1.0}, "new_covariance must be positive definite"),
    "new matrix": ({"new_covariance": [[1.0, 2.0], [2.0, 1.0]]}, "new_covariance must be positive definite"),
}


def refuses(call, message):
    with pytest.raises(InputError) as caught:
        call()
    text = str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert message in text
    assert "\n" not in text
    assert not text.endswith(".")


@pytest.mark.parametrize("case", BAD)
def test_create_refuses(case):
    changes, message = BAD[case]
    refuses(lambda: mixture(**changes), message)


@pytest.mark.parametrize("case", BAD)
def test_replace_refuses_what_create_refuses(case):
    changes, message = BAD[case]
    both = {"old_weight": 0.5} if case == "both weights" else {}
    refuses(lambda: mixture().replace(**both, **changes), message)


def test_replace_refuses_an_unknown_argument_and_lists_the_known_ones():
    refuses(lambda: mixture().replace(weight=0.5, mean=1.0), "got mean, weight")
    refuses(lambda: mixture().replace(weight=0.5), "old_weight, old_logit, old_mean, new_mean, covariance")


def test_replace_of_the_dimension_needs_a_covariance_that_has_it():
    line = {"old_mean": 0.0, "new_mean": 1.0}
    refuses(lambda: mixture(covariance=MATRIX).replace(**line), "covariance must be given too")
    refuses(lambda: mixture(covariance=2.0).replace(old_mean=0.0), "must have one shape")
    assert mixture(covariance=2.0).replace(**line).dim == 1
    assert mixture(covariance=MATRIX).replace(**line, covariance=3.0).dim == 1


# Replacing


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        ({}, ()),
        ({"old_weight": 0.9}, ("old_logit",)),
        ({"old_logit": -3.0}, ("old_logit",)),
        ({"old_mean": [5.0, 6.0]}, ("old_mean",)),
        ({"new_mean": [5.0, 6.0]}, ("new_mean",)),
        ({"covariance": 3.0}, ("scale",)),
        ({"new_covariance": None}, ("new_scale",)),
        ({"new_covariance": 3.0, "old_weight": 0.5}, ("new_scale", "old_logit")),
    ],
)
def test_replace_keeps_the_other_fields_bit_for_bit(changes, changed):
    # Numbers whose square and logit do not round trip.
    before = mixture(old_weight=0.1234567, covariance=MATRIX / 3.0, new_covariance=OTHER / 7.0)
    after = before.replace(**changes)
    for name in FIELDS:
        assert same_bits(getattr(after, name), getattr(before, name)) == (name not in changed), name


def test_replace_leaves_the_original_alone():
    before = mixture()
    before.replace(old_weight=0.9, old_mean=[9.0, 9.0], covariance=7.0)
    assert before == mixture()


def test_replace_keeps_an_extreme_logit():
    assert float(mixture(old_weight=None, old_logit=-700.0).replace(new_mean=[1.0, 1.0]).old_logit) == -700.0


# Weights


@pytest.mark.parametrize("logit", [-700.0, -40.0, -1e-9, 0.0, 2.5, 40.0, 700.0])
def test_the_weight_is_right_relatively_at_any_logit(logit):
    built = mixture(old_weight=None, old_logit=logit)
    assert float(built.old_logit) == logit
    # e^φ / (1 + e^φ) in logarithms.
    assert np.log(float(built.old_weight)) == pytest.approx(-np.logaddexp(0.0, -logit), rel=1e-14, abs=1e-15)
    assert float(built.old_weight) > 0.0


# On an axis, and off it


def test_a_mixture_on_an_axis_is_the_one_written_out():
    built = TwoMode.on_axis(0.3, 2.5, 3)
    assert built == TwoMode.create(0.3, [0.0, 0.0, 0.0], [2.5, 0.0, 0.0])
    assert TwoMode.on_axis(0.3, 2.5) == TwoMode.create(0.3, 0.0, 2.5)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_displaced_means_are_off_toward_each_other_by_the_distances(structure):
    covariance, dense, _ = STRUCTURES[structure]
    target = mixture(covariance=covariance)
    start = target.displaced(0.9, old_drift=0.25, new_gap=0.75)
    across = [0.2, -0.1] - np.array([1.7, 0.8])
    apart = np.sqrt(across @ np.linalg.solve(dense, across))
    np.testing.assert_allclose(start.old_mean, [0.2, -0.1] - 0.25 / apart * across, rtol=1e-14)
    np.testing.assert_allclose(start.new_mean, [1.7, 0.8] + 0.75 / apart * across, rtol=1e-14)
    np.testing.assert_allclose(start.old_weight, 0.9, rtol=1e-15)
    assert same_bits(start.scale, target.scale)


def test_a_mean_that_is_not_displaced_stays_bit_for_bit():
    target = mixture(covariance=MATRIX)
    assert target.displaced(0.9) == target.replace(old_weight=0.9)
    assert same_bits(target.displaced(0.9, new_gap=0.1).old_mean, target.old_mean)
    assert same_bits(target.displaced(0.9, old_drift=0.1).new_mean, target.new_mean)


def test_modes_that_coincide_cannot_be_displaced():
    alike = TwoMode.create(0.5, [1.0, 2.0], [1.0, 2.0])
    with pytest.raises(InputError, match="means that differ can move toward each other; got separation 0"):
        alike.displaced(0.9, new_gap=0.1)


# Distances


@pytest.mark.parametrize("structure", STRUCTURES)
def test_mahalanobis_is_the_length_in_the_inverse_covariance(structure):
    given, matrix, _ = STRUCTURES[structure]
    a, b = np.array([[0.3, -2.0], [4.0, 1.0], [1.0, 1.0]]), np.array([1.0, 1.0])
    expected = [np.sqrt(x @ np.linalg.inv(matrix) @ x) for x in a - b]
    np.testing.assert_allclose(mahalanobis(a, b, given), expected, rtol=1e-13, atol=1e-15)
    assert float(mahalanobis(a[0], b, given)) == pytest.approx(expected[0], rel=1e-13)
    assert mahalanobis(a, b, given).dtype == np.float64
    built = mixture(old_mean=a[0], new_mean=b, covariance=given)
    assert float(built.separation) == pytest.approx(expected[0], rel=1e-13)


def test_mahalanobis_of_scalars():
    assert float(mahalanobis(1.0, 4.0, 4.0)) == 1.5
    assert float(mahalanobis(4.0, 1.0)) == 3.0


def test_separation_of_two_covariances_uses_their_mean():
    between = (MATRIX + OTHER) / 2.0
    difference = np.array([1.5, 0.9])
    expected = np.sqrt(difference @ np.linalg.inv(between) @ difference)
    assert float(mixture(covariance=MATRIX, new_covariance=OTHER).separation) == pytest.approx(expected)
    assert float(TwoMode.create(0.5, 0.0, 3.0, 1.0, 8.0).separation) == pytest.approx(3.0 / np.sqrt(4.5))
    mixed = mixture(covariance=2.0, new_covariance=OTHER)
    expected = np.sqrt(difference @ np.linalg.inv((2.0 * np.eye(2) + OTHER) / 2.0) @ difference)
    assert float(mixed.separation) == pytest.approx(expected)


@pytest.mark.parametrize("call", [mahalanobis, bhattacharyya])
def test_distances_refuse_bad_input(call):
    refuses(lambda: call([0.0, 1.0], [0.0, 1.0, 2.0]), "must have one dimension; got shapes (2,) and (3,)")
    refuses(lambda: call(0.0, NAN), "b must be finite")
    refuses(lambda: call([0.0, 0.0], [1.0, 1.0], [[1.0, 2.0], [2.0, 1.0]]), "covariance must be positive")
    refuses(lambda: call(0.0, 1.0, -1.0), "covariance must be positive definite")


OVERLAPS = {
    "equal 1-D": (0.3, 2.0, 0.7, None),
    "equal 2-D": ([0.0, 0.0], [1.5, -0.5], MATRIX, None),
    "equal, stated twice": ([0.0, 0.0], [1.5, -0.5], MATRIX, MATRIX),
    "unequal 1-D": (0.3, 2.0, 0.7, 3.0),
    "unequal diagonals": ([0.0, 0.0], [1.5, -0.5], [2.0, 0.5], [0.3, 1.0]),
    "unequal matrices": ([0.0, 0.0], [1.5, -0.5], MATRIX, OTHER),
    "a variance and a matrix": ([0.0, 0.0], [1.5, -0.5], 1.7, OTHER),
    "one mean": ([1.0, 1.0], [1.0, 1.0], MATRIX, OTHER),
}


@pytest.mark.parametrize("case", OVERLAPS)
def test_bhattacharyya_is_the_integral_of_the_geometric_mean(case):
    # Oracle: dense grid; relative error of the grid below 1e-11.
    a, b, one, two = OVERLAPS[case]
    exact = oracles.bhattacharyya(a, b, one, two)
    assert float(bhattacharyya(a, b, one, two)) == pytest.approx(exact, rel=1e-10)
    assert float(bhattacharyya(b, a, two if two is not None else one, one)) == pytest.approx(exact, rel=1e-10)


def test_bhattacharyya_of_many_pairs_at_once():
    a = np.array([[0.0, 0.0], [1.0, 2.0]])
    together = bhattacharyya(a, [1.0, 1.0], MATRIX, OTHER)
    np.testing.assert_allclose(together, [bhattacharyya(x, [1.0, 1.0], MATRIX, OTHER) for x in a], rtol=1e-14)


# Responsibilities

MIXTURES = {
    "1-D": oracles.Setting(0.3, 0.0, 2.0, 1.7),
    "1-D own scales": oracles.Setting(0.3, 0.0, 2.0, 1.7, 0.4),
    "2-D diagonal": oracles.Setting(0.6, [0.0, 0.5], [2.0, -1.0], [2.0, 0.5]),
    "2-D matrix": oracles.Setting(0.6, [0.0, 0.5], [2.0, -1.0], MATRIX),
    "2-D own matrices": oracles.Setting(0.6, [0.0, 0.5], [2.0, -1.0], MATRIX, OTHER),
    "2-D variance and matrix": oracles.Setting(0.6, [0.0, 0.5], [2.0, -1.0], 0.8, OTHER),
}


@pytest.mark.parametrize("case", MIXTURES)
def test_responsibilities_are_the_posterior_of_the_modes(case):
    # Oracle: SciPy densities, compared in logarithms, so relatively even where one is 1e-40.
    setting = MIXTURES[case]
    y = np.random.default_rng(1).normal(size=(4, 25, np.size(setting.old_mean))) * 4.0
    joint = oracles.log_joint(setting.mixture(), y)
    expected = joint - np.logaddexp(joint[0], joint[1])
    ours = responsibilities(TwoMode.create(*setting), y)
    np.testing.assert_allclose(np.log(ours[0]), expected[0], rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(np.log(ours[1]), expected[1], rtol=1e-11, atol=1e-14)
    assert ours[0].shape == ours[1].shape == (4, 25)
    assert ours[0].dtype == np.float64


@pytest.mark.parametrize("far", [8.0, 20.0, 36.0])
def test_a_tiny_responsibility_is_right_relatively(far):
    # At y = -far between modes 0 and 1 the log odds are ½ + far: r_n ~ e^-far, far below 1 - r_o's rounding.
    old, new = responsibilities(TwoMode.create(0.5, 0.0, 1.0), np.array([[-far], [1.0 + far]]))
    np.testing.assert_allclose(np.log(new[0]), -np.logaddexp(0.0, 0.5 + far), rtol=1e-14)
    np.testing.assert_allclose(np.log(old[1]), -np.logaddexp(0.0, 0.5 + far), rtol=1e-14)
    np.testing.assert_allclose(old + new, 1.0, rtol=1e-15)


def test_responsibilities_at_an_extreme_logit():
    old, new = responsibilities(TwoMode.create(None, 0.0, 2.0, old_logit=-700.0), np.array([[1.0], [0.0]]))
    np.testing.assert_allclose(old, [np.exp(-700.0), np.exp(-698.0)], rtol=1e-12)
    np.testing.assert_array_equal(new, 1.0)
    old, new = responsibilities(TwoMode.create(None, 0.0, 2.0, old_logit=40.0), np.array([[1.0]]))
    np.testing.assert_allclose(new, [np.exp(-40.0)], rtol=1e-12)


def test_responsibilities_of_one_sample_and_of_a_list():
    built = mixture()
    y = [0.4, 0.3]
    one = responsibilities(built, y)
    assert np.shape(one[0]) == ()
    assert float(one[0]) == float(responsibilities(built, np.array([y]))[0][0])


@pytest.mark.parametrize("shape", [(5,), (4, 3)])
@pytest.mark.parametrize("dim", [1, 2])
def test_responsibilities_refuse_samples_of_another_dimension(shape, dim):
    # A vector of five samples given to a 1-D mixture must not be broadcast and summed over.
    built = TwoMode.create(0.3, np.zeros(dim), np.ones(dim))
    with pytest.raises(InputError, match=rf"y must be of shape \(\.\.\., {dim}\)"):
        responsibilities(built, np.zeros(shape))


# Everything is affine invariant


def test_affine_invariance():
    rng = np.random.default_rng(3)
    linear, shift = rng.normal(size=(2, 2)), rng.normal(size=2)
    for own in (None, OTHER):
        before = oracles.Setting(0.3, np.array([0.0, 0.5]), np.array([2.0, -1.0]), MATRIX, own)
        after = oracles.Setting(
            0.3,
            linear @ before.old_mean + shift,
            linear @ before.new_mean + shift,
            linear @ MATRIX @ linear.T,
            own if own is None else linear @ own @ linear.T,
        )
        one, two = TwoMode.create(*before), TwoMode.create(*after)
        assert float(one.separation) == pytest.approx(float(two.separation), rel=1e-11)
        assert float(bhattacharyya(*before[1:])) == pytest.approx(float(bhattacharyya(*after[1:])), rel=1e-11)
        y = rng.normal(size=(20, 2))
        for a, b in zip(responsibilities(one, y), responsibilities(two, y @ linear.T + shift), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9)


# As a JAX pytree


def test_leaves_in_order_and_round_trip():
    built = mixture(covariance=MATRIX, new_covariance=2.0)
    leaves, structure = jax.tree.flatten(built)
    assert len(leaves) == 5
    assert jax.tree.unflatten(structure, leaves) == built
    assert len(jax.tree.leaves(mixture())) == 4


@pytest.mark.parametrize("own", [None, OTHER], ids=["shared", "own"])
def test_jit_and_vmap_pass_the_mixture_through(own):
    y = np.array([0.3, 0.4])
    members = [mixture(old_weight=w, covariance=MATRIX, new_covariance=own) for w in (0.1, 0.5, 0.9)]
    with jax.enable_x64(True):
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
        numbers = jax.jit(jax.vmap(lambda m: (m.old_weight, m.separation, responsibilities(m, y)[1])))(
            stacked
        )
    for i, member in enumerate(members):
        assert float(numbers[0][i]) == pytest.approx(float(member.old_weight), rel=1e-14)
        assert float(numbers[1][i]) == pytest.approx(float(member.separation), rel=1e-14)
        assert float(numbers[2][i]) == pytest.approx(float(responsibilities(member, y)[1]), rel=1e-13)


def test_gradients_flow_to_every_field():
    # Oracle: ∂ r_o/∂φ = r_o r_n.
    y = np.array([1.0, 0.2])
    built = mixture(covariance=MATRIX)
    with jax.enable_x64(True):
        gradient = jax.grad(lambda m: responsibilities(m, y)[0])(jax.tree.map(jnp.asarray, built))
    old, new = responsibilities(built, y)
    assert float(gradient.old_logit) == pytest.approx(float(old * new), rel=1e-12)
    assert all(np.all(np.asarray(leaf) != 0.0) for leaf in (gradient.old_mean, gradient.new_mean))


def test_exact_numbers_are_float64_whatever_the_caller_enabled():
    assert not jax.config.jax_enable_x64
    built = mixture(old_weight=0.1, covariance=MATRIX, new_covariance=OTHER)
    numbers = [
        built.old_weight,
        built.separation,
        built.scale_tril,
        mahalanobis([0.0, 0.1], [1.0, 2.0], MATRIX),
        bhattacharyya([0.0, 0.1], [1.0, 2.0], MATRIX, OTHER),
        *responsibilities(built, np.array([0.3, 0.4])),
    ]
    assert all(np.asarray(number).dtype == np.float64 for number in numbers)
    assert float(built.old_weight) == pytest.approx(0.1, rel=1e-15)
    assert expit(float(built.old_logit)) == pytest.approx(0.1, rel=1e-15)


def test_law_and_mode_law_are_the_stated_densities():
    setting = MIXTURES["2-D own matrices"]
    built, exact = TwoMode.create(*setting), setting.mixture()
    y = np.random.default_rng(5).normal(size=(30, 2)) * 2.0
    with jax.enable_x64(True):
        np.testing.assert_allclose(built.law().log_prob(y), oracles.log_density(exact, y), rtol=1e-12)
        for k, name in enumerate(("old", "new")):
            expected = oracles.log_density(oracles.mode(exact, k), y)
            np.testing.assert_allclose(built.mode_law(name).log_prob(y), expected, rtol=1e-12)


def test_a_mode_of_another_name_is_refused():
    with pytest.raises(InputError, match="mode must be one of old, new; got 'newer'"):
        TwoMode.create(0.3, 0.0, 1.0).mode_law("newer")


@pytest.mark.slow
def test_numpyro_is_whole_when_arviz_was_imported_first():
    code = (
        "import arviz; from mixture_models import TwoMode; import numpyro; numpyro.distributions.distribution"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
