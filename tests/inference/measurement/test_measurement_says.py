"""What a measurement says of itself, and what must not change it."""

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pytest
from marks import mostly_slow

import analyses
from inference import measure

FAST = {"progress": False, "method": "laplace", "num_draws": 400}


def two_modes(rng, num, weight, d=3, separation=4.0):
    mean = separation * np.eye(d)[0]
    return rng.normal(size=(num, d)) + np.where(rng.uniform(size=(num, 1)) < weight, 0.0, mean)


def referenced(seed=0, num=300, d=3, separation=4.0):
    rng = np.random.default_rng(seed)
    return rng, two_modes(rng, num, 1.0, d, separation), two_modes(rng, num, 0.0, d, separation)


def words_of(tree, name="words"):
    return tree["sample_stats"][name].item()


@pytest.mark.slow
def test_resolution_of_what_all_samples_show_is_theirs_however_little_is_old():
    """In 64 features with 10 old samples of 500: √((1/490 + 1/500) χ²₆₄(0.95)), about 0.59."""
    found = []
    for seed in range(6):
        rng, old, new = referenced(seed, 500, 64, 6.0)
        stats = measure(two_modes(rng, 500, 0.02, 64, 6.0), old, new, **FAST)["sample_stats"]
        found.append((stats["new_resolution"].item(), stats["old_resolution"].item()))
    new, old = np.array(found).T
    np.testing.assert_allclose(new, 0.59, rtol=0.1)
    # Of 10 samples a mean has this noise, and fewer are as likely as more.
    assert np.all(old < 10.0)


def assert_unchanged(one, other):
    for name in ("old_weight", "old_drift"):
        means = [tree["posterior"][name].mean(["chain", "draw"]).values for tree in (one, other)]
        np.testing.assert_allclose(*means, rtol=0.0, atol=1e-6, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "covariance", mostly_slow(["auto", "shared", "axis", "proportional", "unequal"], "auto", "shared")
)
def test_no_affine_map_and_no_order_of_reference_rows_changes_what_is_measured(covariance):
    rng, old, new = referenced(num=200)
    old = old * [1.0, 1.2, 0.8]
    y = two_modes(rng, 400, 0.4) + np.array([0.0, 0.2, 0.0])
    mix, origin = rng.normal(size=(3, 3)) + 2.0 * np.eye(3), 10.0 * rng.normal(size=3)
    plain = measure(y, old, new, covariance=covariance, **FAST)
    turned = measure(*(a @ mix.T + origin for a in (y, old, new)), covariance=covariance, **FAST)
    assert_unchanged(plain, turned)
    assert_unchanged(
        plain, measure(y, rng.permutation(old), rng.permutation(new), covariance=covariance, **FAST)
    )


@pytest.mark.slow
@pytest.mark.parametrize("d", [16, 64])
def test_no_affine_map_of_many_features_changes_what_is_measured(d):
    rng, old, new = referenced(num=400, d=d)
    y = two_modes(rng, 600, 0.4, d)
    mix = rng.normal(size=(d, d)) + 2.0 * np.sqrt(d) * np.eye(d)
    plain = measure(y, old, new, **FAST)
    assert_unchanged(plain, measure(*(a @ mix.T + 3.0 for a in (y, old, new)), **FAST))
    assert_unchanged(plain, measure(y, rng.permutation(old), rng.permutation(new), **FAST))


@pytest.mark.slow
def test_no_scale_of_a_feature_changes_what_is_measured_of_a_projection():
    rng, old, new = referenced(num=400, d=100)
    y = two_modes(rng, 600, 0.4, 100)
    scale = np.exp(2.0 * rng.normal(size=100))
    plain = measure(y, old, new, max_features=20, **FAST)
    assert_unchanged(plain, measure(y * scale, old * scale, new * scale, max_features=20, **FAST))
    shuffled = measure(y, rng.permutation(old), rng.permutation(new), max_features=20, **FAST)
    assert_unchanged(plain, shuffled)


@pytest.mark.parametrize("max_features", [1, 2])
def test_few_features_are_projected_to_one_or_two(max_features):
    rng, old, new = referenced()
    tree = measure(two_modes(rng, 500, 0.3), old, new, max_features=max_features, **FAST)
    assert tree["posterior"].sizes["feature"] == max_features
    weight = tree["posterior"]["old_weight"]
    assert abs(float(weight.mean()) - 0.3) < 5.0 * float(weight.std())


def test_samples_that_are_not_independent_are_said():
    rng, old, new = referenced()
    y = two_modes(rng, 1000, 0.5)
    assert words_of(measure(y, old, new, **FAST)) == "good"
    repeated = measure(np.concatenate([y[:970], y[:30]]), old, new, **FAST)
    assert repeated["sample_stats"]["num_repeated"].item() == 30
    for name in ("words", "weight_words", "drift_words"):
        assert words_of(repeated, name).startswith("not to be trusted"), name
        assert "3 % of them stand there more than once" in words_of(repeated, name), name
    # Five answers to each of 200 prompts that hardly differ, in their order and in none.
    answers = np.repeat(y[:200], 5, axis=0) + 1e-3 * rng.normal(size=(1000, 3))
    for rows in (answers, rng.permutation(answers)):
        found = measure(rows, old, new, **FAST)
        assert found["sample_stats"]["num_repeated"].item() == 0
        assert words_of(found).startswith("not to be trusted")
        assert "samples are not independent" in words_of(found)


def test_neighbours_in_the_file_that_are_alike_are_said():
    """A chain whose neighbours are correlated by 0.6: nobody is near anybody, and order alone tells."""
    rng, old, new = referenced()
    noise = rng.normal(size=(1000, 3))
    for i in range(1, 1000):
        noise[i] = 0.6 * noise[i - 1] + 0.8 * noise[i]
    y = noise + np.where(rng.uniform(size=(1000, 1)) < 0.5, 0.0, [4.0, 0.0, 0.0])
    found = measure(y, old, new, **FAST)
    assert found["sample_stats"]["lag_correlation"].item() == pytest.approx(0.6, abs=0.12)
    assert "neighbours in the file are correlated" in words_of(found)
    assert words_of(measure(rng.permutation(y), old, new, **FAST)) == "good"


@pytest.mark.slow
def test_a_mode_that_lies_as_far_as_the_other_reference_may_be_another_behaviour():
    # The new mode lies beyond its reference by the distance of the references: no check of shape sees it.
    rng, old, new = referenced(d=2)
    y = two_modes(rng, 600, 0.6, d=2)
    assert words_of(measure(y, old, new, **FAST), "weight_words") == "good"
    y[y[:, 0] > 2.0] += [4.0, 0.0]
    tree = measure(y, old, new, **FAST)
    assert tree["sample_stats"]["new_along_axis"].item() == pytest.approx(-4.0, abs=0.5)
    assert "what is taken for the new mode" in words_of(tree, "weight_words")


@pytest.mark.slow
def test_copies_of_reference_rows_count_once_and_are_said():
    rng, old, new = referenced(1, num=150)
    y = two_modes(rng, 400, 0.4)
    plain = measure(y, old, new, **FAST)
    doubled = measure(y, np.repeat(old, 2, axis=0), np.concatenate([new, new[:50]]), **FAST)
    assert (plain.attrs["num_reference_copies"], doubled.attrs["num_reference_copies"]) == (0, 200)
    assert_unchanged(plain, doubled)
    assert "200 reference rows are copies of others" in analyses.measure.table(doubled).renderables[0].caption
    # Few values a feature: rows are equal without being copies.
    coarse = measure(*(np.round(array) for array in (y, old, new)), **FAST)
    assert coarse.attrs["num_reference_copies"] == 0


def test_references_that_are_hardly_apart_are_never_good():
    for seed in range(4):
        rng, old, new = referenced(seed, 2000, 2, 0.12)
        found = measure(two_modes(rng, 500, 0.5, 2, 0.12), old, new, **FAST)
        for name in ("words", "weight_words", "drift_words"):
            assert words_of(found, name) != "good"
        assert "hardly apart" in words_of(found)


def test_arviz_reads_one_checkpoint_and_what_is_predicted():
    rng, old, new = referenced()
    runs = {0: two_modes(rng, 300, 0.9), 100: two_modes(rng, 300, 0.2)}
    tree = measure(runs, old, new, num_log_likelihood_rows=100, **FAST)
    estimates = [az.loo(tree.sel(checkpoint=name)) for name in runs]
    assert all(e.n_data_points == 100 for e in estimates)
    # All rows' entropies differ by chance alone; a checkpoint that is not selected has 200 rows.
    assert estimates[0].elpd != estimates[1].elpd
    one = tree.sel(checkpoint=100)
    for plot in (az.plot_ppc_dist, az.plot_ppc_tstat):
        plot(one, backend="matplotlib")
        plt.close("all")
