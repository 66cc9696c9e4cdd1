"""`massdrift digits`: the likelihood, the objectives on a network, the count, and what a folder refuses."""

import itertools
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from analyses import cli
from analyses.digits import data, judges, objectives, report, run, training
from analyses.digits.laws import ImagesLaw, NetworkLaw, TiltedLaw
from analyses.digits.settings import Settings, Store
from analyses.digits.transformer import Transformer
from inference import results
from mixture_models.validation import InputError

# Every image of three pixels with three levels.
EVERY = jnp.array(list(itertools.product(range(3), repeat=3)))


@pytest.fixture(scope="module")
def network():
    return Transformer(num_pixels=3, num_levels=3, width=8, num_blocks=2, num_heads=2, key=jax.random.key(0))


@pytest.fixture(scope="module")
def log_probs(network):
    return jax.jit(NetworkLaw(network).log_prob)(EVERY)


def test_the_likelihood_sums_to_one(log_probs):
    np.testing.assert_allclose(jnp.exp(log_probs).sum(), 1.0, rtol=1e-5)
    # An untrained network is no uniform law: the sum would be 1 for that too.
    assert float(log_probs.std()) > 0.05


def test_samples_with_the_cache_follow_the_likelihood(network, log_probs):
    count = 20_000
    images = jax.jit(lambda key: NetworkLaw(network).sample(key, (count,)))(jax.random.key(1))
    shares = np.bincount(np.asarray(images) @ np.array([9, 3, 1]), minlength=27) / count
    exact = np.exp(np.asarray(log_probs, np.float64))
    standard_error = np.sqrt(exact * (1.0 - exact) / count)
    # Of 27 images; a cache that is off by one pixel shifts shares by tens of standard errors.
    assert np.all(np.abs(shares - exact) < 4.5 * standard_error)


def test_the_empirical_law_counts_equal_images_together():
    law = ImagesLaw(jnp.array([[0, 1], [0, 1], [2, 2]]), jnp.log(jnp.array([1.0, 1.0, 2.0])))
    log_prob = law.log_prob(jnp.array([[0, 1], [2, 2], [1, 1]]))
    np.testing.assert_allclose(jnp.exp(log_prob), [0.5, 0.5, 0.0], rtol=1e-6)


def test_a_task_holds_the_old_images_with_its_share(network):
    task = objectives.Task(EVERY[:3], EVERY[3:5], jnp.log(0.25 / 0.75), network, judges.Perceptron)
    np.testing.assert_allclose(
        jnp.exp(task.law().log_prob(EVERY[:5])), [*[0.25 / 3] * 3, *[0.75 / 2] * 2], rtol=1e-5
    )


def test_params_and_network_are_the_same_arrays(network):
    params = objectives.params_of(network)
    assert len(params) == len(jax.tree.leaves(network))
    again = objectives.network_of({n: v + 1.0 for n, v in params.items()}, network)
    for one, other in zip(jax.tree.leaves(network), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one + 1.0, other)


def test_the_tilted_law_is_the_reference_times_the_reward(network, log_probs):
    def reward(y, task, reference):
        return y[:, 0].astype(float)

    law = TiltedLaw(NetworkLaw(network), reward, None, 0.5)
    np.testing.assert_allclose(law.log_prob(EVERY), log_probs + 2.0 * EVERY[:, 0], rtol=1e-5)


def test_predictions_are_those_of_the_theory():
    chosen = objectives.choices(
        old_weight=0.4,
        kl_weight=0.5,
        anchor=0.1,
        ema=0.05,
        utility_kl_weight=0.5,
        beta=2.0,
        lag=10,
        num_steps=35,
    )
    start = np.array([0.9, 0.5])
    odds = start / (1.0 - start)
    expected = {
        "sft": [0.0, 0.0],
        "sft_replay": [0.4, 0.4],
        "rl": 1.0 / (1.0 + np.exp(2.0) / odds),
        "sdft": [0.4, 0.4],
        "oapl": 1.0 / (1.0 + np.exp(1.5) / odds),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(chosen[name].predicted(start), values, rtol=1e-5, err_msg=name)
    assert np.all(chosen["ttt_discover"].predicted(start) < start)


def test_a_count_allows_for_the_errors_of_the_classifier():
    # 62 % of images called old by a classifier with rates 0.9 and 0.2: (0.62 - 0.2)/0.7 = 0.6.
    count = judges.Count(6200, 10_000, 9000, 10_000, 2000, 10_000)
    draws = count.draws(4000, np.random.default_rng(0))
    assert draws.mean() == pytest.approx(0.6, abs=0.01)
    assert 0.005 < draws.std() < 0.015


def test_a_panel_counts_real_digits_whose_share_is_known():
    digits = data.load(num_levels=5, seed=0)
    panel = judges.Panel(digits.judges, digits.networks, num_levels=5, seed=0)
    mixed = np.concatenate([digits.networks.old[:420], digits.networks.new[:180]])
    draws = judges.panel_draws(panel.count(mixed), 900, np.random.default_rng(0))
    assert draws.shape == (3, 900)
    # Every kind by itself; with labels swapped it is off by 0.4.
    np.testing.assert_allclose(draws.mean(axis=1), 0.7, atol=0.02)


def test_the_parts_of_the_data_are_disjoint_and_hold_every_digit():
    digits = data.load(num_levels=5, seed=0)
    assert len(digits.networks.digits) + len(digits.judges.digits) == 1797
    assert set(np.unique(digits.judges.digits)) == set(range(10))
    assert (digits.networks.pixels.min(), digits.networks.pixels.max()) == (0, 4)
    assert set(digits.networks.digits[digits.networks.is_old]) == set(data.OLD_DIGITS)


def test_a_part_is_computed_once_and_a_failed_one_leaves_nothing(tmp_path):
    store = Store(tmp_path / "run", Settings.quick())

    def failing():
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.arrays("part", failing)
    first = store.arrays("part", lambda: {"x": np.arange(3)})
    again = Store(tmp_path / "run", Settings.quick()).arrays("part", failing)
    np.testing.assert_array_equal(first["x"], again["x"])


def test_a_folder_of_other_settings_is_refused(tmp_path):
    Store(tmp_path / "run", Settings.quick())
    with pytest.raises(InputError, match=r"beta is 1\.0 there and 2\.0 here"):
        Store(tmp_path / "run", replace(Settings.quick(), beta=2.0))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="must be a new folder"):
        Store(tmp_path / "other", Settings.quick())
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    "arguments", [["--num-seeds=0"], ["--num-samples=10"], ["--seed=-1"]], ids=["seeds", "samples", "seed"]
)
def test_bad_input_is_one_sentence_and_writes_nothing(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["massdrift", "digits", "--out", str(tmp_path / "run"), *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.startswith("massdrift: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_checkpoints_between_change_no_number():
    small = Transformer(3, 3, width=4, num_blocks=1, num_heads=1, key=jax.random.key(0))
    one = jax.tree.map(lambda leaf: leaf[None], small)
    task = objectives.Task(
        EVERY[:9], EVERY[9:], jnp.zeros(()), one, judges.Perceptron(3, 3, jax.random.key(1))
    )
    # Its lagged policy jumps at step 2: what a part of a training must not begin anew.
    oapl = objectives.choices(
        old_weight=0.5,
        kl_weight=0.5,
        anchor=0.1,
        ema=0.05,
        utility_kl_weight=0.5,
        beta=1.0,
        lag=2,
        num_steps=3,
    )["oapl"].objective
    last = []
    for steps in ((0, 1, 3), (0, 3)):
        trained = training.post_train(
            oapl, task, task, steps, batch_size=4, learning_rate=0.01, key=jax.random.key(0)
        )
        last.append(list(trained)[-1].networks)
    for a, b, first in zip(*map(jax.tree.leaves, (*last, one)), strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.any(a != first)


TINY = {
    "width": 8,
    "num_blocks": 1,
    "num_heads": 2,
    "pretraining_steps": 60,
    "steps": (0, 1, 2),
    "batch_size": 8,
    "num_seeds": 2,
    "num_samples": 60,
}


@pytest.mark.slow
def test_a_run_that_was_interrupted_equals_one_that_was_not(tmp_path, monkeypatch):
    settings, whole = Settings(**TINY), run.training.post_train
    uninterrupted = run.run(settings, tmp_path / "whole", progress=False)
    for failing_call, kept in ((3, 2), (None, 6)):
        calls = []

        def interrupted(*args, calls=calls, failing_call=failing_call, **kwargs):
            calls.append(args)
            for checkpoint in whole(*args, **kwargs):
                yield checkpoint
                if len(calls) == failing_call and checkpoint.step == 1:
                    raise KeyboardInterrupt

        monkeypatch.setattr(run.training, "post_train", interrupted)
        if failing_call:
            with pytest.raises(KeyboardInterrupt):
                run.run(settings, tmp_path / "parts", progress=False)
        else:
            resumed = run.run(settings, tmp_path / "parts", progress=False)
        stored = [path for path in (tmp_path / "parts" / "parts").glob("*.npz") if path.stem != "pretraining"]
        assert len(stored) == kept
    assert len(calls) == 4  # two of six were not trained again
    for group in ("posterior", "count", "theory", "comparison", "shown"):
        xr.testing.assert_identical(uninterrupted[group].to_dataset(), resumed[group].to_dataset())


@pytest.mark.slow
def test_the_quick_run_measures_what_is_counted(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["massdrift", "digits", "--quick", "--quiet", "--out", str(tmp_path / "run")]
    )
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    printed = capsys.readouterr().out
    assert "The lens orders" in printed
    # The tables fit a terminal of 80 columns: nothing of them is cut off.
    assert "…" not in printed
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"results.zarr", "summary.csv", "images.png", "training.png", "lens.png"} <= names
    tree = results.open(tmp_path / "run" / "results.zarr")
    agree, total = report.agreements(tree)
    assert total == 2 * (1 + 6 * 2)
    assert agree >= 0.8 * total
    assert np.sum(~tree["count"]["distinct"].to_numpy()) == 2 * 5
    # Supervised fine-tuning on new digits alone loses the most: a training that does not move is seen here.
    weights = report.final(tree)["old_weight"]
    assert weights.idxmin() == "sft"
    assert weights["sft"] < 0.6 * weights["sdft"]
