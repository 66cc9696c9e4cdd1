"""`massdrift digits`: the likelihood, the objectives on a network, the count, and what a folder refuses."""

import itertools
import sys
from dataclasses import replace

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr
from small_runs import SMALL_DIGITS

from analyses import cli
from analyses.digits import data, digits, evals_layout, evaluation, judges, objectives, report, training
from analyses.digits.choices import choices
from analyses.digits.laws import ImagesLaw, NetworkLaw, TiltedLaw
from analyses.digits.settings import NetworkSettings, Settings
from analyses.digits.store import Store
from analyses.digits.transformer import Transformer
from benchmarks import digits_coverage as coverage
from inference import results
from inference.measurement.evals.pairing import pair
from inference.measurement.evals.readers import read
from inference.storage import kept
from mixture_models.validation import InputError

# Every image of three pixels with three levels.
EVERY = jnp.array(list(itertools.product(range(3), repeat=3)))


@pytest.fixture(scope="module")
def network():
    return Transformer(num_pixels=3, num_levels=3, width=8, num_blocks=2, num_heads=2, key=jax.random.key(0))


@pytest.fixture(scope="module")
def log_probs(network):
    return jax.jit(NetworkLaw(network).log_prob)(EVERY)


@pytest.mark.slow
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


@pytest.mark.slow
def test_completions_follow_the_likelihood_given_what_is_given(network, log_probs):
    given, count = jnp.array([[2], [0]]), 20_000
    networks = jax.tree.map(lambda leaf: leaf[None], network)
    drawn = np.asarray(training.complete(networks, given, jax.random.key(2), count))[0]
    joint = np.exp(np.asarray(log_probs, np.float64)).reshape(3, 9)
    for first, of_item in zip((2, 0), drawn, strict=True):
        exact = joint[first] / joint[first].sum()
        shares = np.bincount(of_item @ np.array([3, 1]), minlength=9) / count
        standard_error = np.sqrt(exact * (1.0 - exact) / count)
        # Of 9 images; those of the other first pixel are 10 standard errors away and more.
        assert np.all(np.abs(shares - exact) < 4.5 * standard_error)
    apart = np.abs(joint[0] / joint[0].sum() - joint[2] / joint[2].sum())
    assert apart.max() > 10 * np.sqrt(0.25 / count)


@pytest.fixture(scope="module")
def asked():
    digits = data.load(num_levels=5, seed=0)
    return evaluation.evaluation(digits, 5, 3, jax.random.key(0))


def test_items_are_unseen_and_real_ones_are_right(asked):
    seen = {image.tobytes() for image in data.load(num_levels=5, seed=0).networks.pixels}
    assert not seen & {image.tobytes() for image in asked.items.pixels}
    np.testing.assert_array_equal(np.bincount(asked.items.digits), np.full(10, 3))
    assert asked.right(asked.items.pixels[:, None, 32:]).mean() >= 0.9
    # The lower half of another digit is not right.
    assert asked.right(np.roll(asked.items.pixels, 15, axis=0)[:, None, 32:]).mean() < 0.6


@pytest.mark.slow
def test_logs_are_read_as_they_were_graded(asked, tmp_path):
    small = jax.vmap(lambda key: Transformer(64, 5, width=8, num_blocks=1, num_heads=1, key=key))
    networks = small(jax.random.split(jax.random.key(0), 3))
    drawn = asked.completions(networks, 4, jax.random.key(1))
    names = ["base", "sft/checkpoint-20", "sft/checkpoint-40"]
    for name, completions in zip(names, drawn, strict=True):
        evaluation.write_log(asked, completions, tmp_path / name, evaluation.now(), {"network": 0})
    answers = read(tmp_path, progress=False)
    paired = pair(answers)
    assert len(paired.runs) == 2 * len(evaluation.TASKS)
    assert not len(paired.left_out)
    right = asked.right(drawn).sum(axis=-1)
    assert 0 < right.sum() < drawn[..., 0].size  # an untrained network is right now and then
    for number, row in paired.runs.iterrows():
        place, cells = names.index(f"{row['arm']}/checkpoint-{row['checkpoint']}"), paired.repeats
        cells = cells[cells["run"] == number]
        found = np.repeat(cells[["right_base", "right_run"]].to_numpy(int), cells["num_items"], axis=0)
        expected = right[[0, place]][:, asked.of_task(row["task"])].T
        np.testing.assert_array_equal(
            found[np.lexsort(found.T)], expected[np.lexsort(expected.T)], err_msg=str(row["task"])
        )
        assert set(cells["num_base"]) == set(cells["num_run"]) == {4}


def test_brute_force_brackets_what_is_lost_and_won(asked):
    rng, num = np.random.default_rng(0), evaluation.NUM_TRUTH // 4
    before = np.full(30, 0.5)
    for shift in (0.0, -0.2, 0.03):
        chances = np.stack([before, before + shift])
        right = rng.binomial(num, chances[:, None], (2, 4, 30))
        counted = xr.DataArray(
            right[None, None],
            {"objective": ["x"], "seed": [0], "checkpoint": [0, 5]},
            ("objective", "seed", "checkpoint", "batch", "item"),
        )
        truth = evals_layout._truth(counted, asked).squeeze()
        error = np.sqrt(2 * 0.25 / (4 * num) / asked.of_task("digits_5_to_9").sum())
        of_new = truth.sel(task="digits_5_to_9")
        assert abs(float(of_new["accuracy_change"]) - shift) < 4 * error
        for name, exact in (("lost", max(-shift, 0.0)), ("won", max(shift, 0.0))):
            reach = float(of_new[f"{name}_uncertainty"]) + 4 * error
            assert abs(float(of_new[name]) - exact) < reach
        # Where nothing is lost, the mean of max(p - q, 0) alone is 0.4 of an item's noise; the middle half.
        assert float(of_new["lost_uncertainty"]) < 0.3 * np.sqrt(2 * 0.25 / (4 * num))


def test_simulated_evaluations_pair_each_item_with_itself():
    rng = np.random.default_rng(0)
    base = [rng.uniform(size=40) for _ in evaluation.TASKS]
    # The first run is the base again with certainty at each item, the second never right.
    base = [np.round(chances) for chances in base]
    runs = [np.stack([chances, np.zeros(40)]) for chances in base]
    paired = coverage.evaluated(base, runs, 8, rng)
    same, none = (paired.repeats[paired.repeats["run"] % 2 == place] for place in (0, 1))
    assert (same["right_base"] == same["right_run"]).all()
    assert (none["right_run"] == 0).all()
    assert paired.repeats.groupby("run")["num_items"].sum().tolist() == [40] * 6
    true = coverage.truths(base, runs)
    np.testing.assert_allclose(true["lost"][:, 1], [chances.mean() for chances in base])
    np.testing.assert_array_equal(true["lost"][:, 0], 0.0)


def test_columns_of_the_answers_have_intervals_of_the_kind_that_is_set():
    rng = np.random.default_rng(4)
    names, dims = ("accuracy_change", "lost", "won", "old_weight"), ["seed", "chain", "draw"]
    shape = (len(evaluation.TASKS), 2, 2, 1, 200)
    evals = {name: (("task", "checkpoint", *dims), rng.exponential(size=shape)) for name in names}
    weights = {"old_weight": (("checkpoint", *dims), rng.exponential(size=shape[1:]))}
    coords = {"task": list(evaluation.TASKS)}
    tree = xr.DataTree.from_dict(
        {"/evals": xr.Dataset(evals, coords), "/posterior": xr.Dataset(weights)},
    )
    old = [task for task in evaluation.TASKS if task not in evaluation.NEW_TASKS]
    lost = tree["evals"]["lost"].sel(task=old).mean("task").isel(checkpoint=1).to_numpy().ravel()
    for kind, compute in (("eti", az.eti), ("hdi", az.hdi)):
        with az.rc_context({"stats.ci_kind": kind, "stats.ci_prob": 0.5}):
            found = evals_layout.columns(tree, dims)
        ends = [float(found[f"answers_lost_{bound}"].isel(checkpoint=1)) for bound in ("lower", "upper")]
        assert ends == pytest.approx(compute(lost, prob=0.5))
        assert float(found["answers_lost"].isel(checkpoint=1)) == pytest.approx(lost.mean())


def test_the_empirical_law_counts_equal_images_together():
    law = ImagesLaw(jnp.array([[0, 1], [0, 1], [2, 2]]), jnp.log(jnp.array([1.0, 1.0, 2.0])))
    log_prob = law.log_prob(jnp.array([[0, 1], [2, 2], [1, 1]]))
    np.testing.assert_allclose(jnp.exp(log_prob), [0.5, 0.5, 0.0], rtol=1e-6)


def test_a_task_holds_the_old_images_with_its_share(network):
    task = objectives.DigitsTask(EVERY[:3], EVERY[3:5], jnp.log(0.25 / 0.75), network, judges.Perceptron)
    np.testing.assert_allclose(
        jnp.exp(task.law().log_prob(EVERY[:5])), [*[0.25 / 3] * 3, *[0.75 / 2] * 2], rtol=1e-5
    )


def test_params_and_network_are_the_same_arrays(network):
    params = objectives.params_of(network)
    assert len(params) == len(jax.tree.leaves(network))
    again = objectives.network_of({n: v + 1.0 for n, v in params.items()}, network)
    for one, other in zip(jax.tree.leaves(network), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one + 1.0, other)


@pytest.mark.slow
def test_the_tilted_law_is_the_reference_times_the_reward(network, log_probs):
    def reward(y, task, reference):
        return y[:, 0].astype(float)

    law = TiltedLaw(NetworkLaw(network), reward, None, 0.5)
    np.testing.assert_allclose(law.log_prob(EVERY), log_probs + 2.0 * EVERY[:, 0], rtol=1e-5)


def test_predictions_are_those_of_the_theory():
    chosen = choices(NetworkSettings(kl_weight=0.5, beta=2.0, lag=10), replay=0.4, num_steps=35)
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
    count = judges.Count(np.array([6200, 3800]), np.array([[9000, 1000], [2000, 8000]]))
    draws = count.draws(4000, np.random.default_rng(0))[:, 0]
    assert draws.mean() == pytest.approx(0.6, abs=0.01)
    assert 0.005 < draws.std() < 0.015


@pytest.mark.slow
def test_a_panel_counts_real_digits_whose_share_is_known():
    digits = data.load(num_levels=5, seed=0)
    panel = judges.Panel(digits.judges, digits.networks, num_levels=5, seed=0)
    mixed = np.concatenate([digits.networks.old[:420], digits.networks.new[:180]])
    draws = judges.panel_draws(panel.count(mixed), 900, np.random.default_rng(0))
    assert draws.shape == (3, 900, 2)
    # Every kind by itself; with labels swapped it is off by 0.4.
    np.testing.assert_allclose(draws[..., 0].mean(axis=1), 0.7, atol=0.02)


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


def test_a_part_of_other_versions_is_computed_again(tmp_path, monkeypatch):
    store = Store(tmp_path / "run", Settings.quick())
    store.arrays("part", lambda: {"x": np.arange(3)})
    monkeypatch.setattr(kept, "version_of", lambda package: "9.9")
    assert store.arrays("part", lambda: {"x": np.arange(4)})["x"].size == 4


def test_a_folder_of_other_settings_is_refused(tmp_path):
    Store(tmp_path / "run", Settings.quick())
    with pytest.raises(InputError, match=r"beta is 1\.0 there and 2\.0 here"):
        Store(tmp_path / "run", replace(Settings.quick(), beta=2.0))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="must be a new folder"):
        Store(tmp_path / "other", Settings.quick())
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.txt"]


@pytest.mark.slow
def test_checkpoints_between_change_no_number():
    small = Transformer(3, 3, width=4, num_blocks=1, num_heads=1, key=jax.random.key(0))
    one = jax.tree.map(lambda leaf: leaf[None], small)
    task = objectives.DigitsTask(
        EVERY[:9], EVERY[9:], jnp.zeros(()), one, judges.Perceptron(3, 3, jax.random.key(1))
    )
    # Its lagged policy jumps at step 2: what a part of a training must not begin anew.
    oapl = choices(NetworkSettings(lag=2), replay=0.5, num_steps=3)["oapl"].objective
    last = []
    for steps in ((0, 1, 3), (0, 3)):
        trained = training.checkpoints(
            oapl, task, task, steps, batch_size=4, optimizer=optax.adam(0.01), key=jax.random.key(0)
        )
        last.append(list(trained)[-1].networks)
    for a, b, first in zip(*map(jax.tree.leaves, (*last, one)), strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.any(a != first)


TINY = SMALL_DIGITS | {"pretraining_steps": 60}


@pytest.mark.slow
def test_a_run_that_was_interrupted_equals_one_that_was_not(tmp_path, monkeypatch):
    settings, whole = Settings(**TINY), training.checkpoints
    uninterrupted = digits.run(settings, out=tmp_path / "whole", progress=False)
    # The first call pre-trains.
    for failing_call, num_kept in ((4, 2), (None, 6)):
        calls = []

        def interrupted(*args, calls=calls, failing_call=failing_call, **kwargs):
            calls.append(args)
            for checkpoint in whole(*args, **kwargs):
                yield checkpoint
                if len(calls) == failing_call and checkpoint.step == 1:
                    raise KeyboardInterrupt

        monkeypatch.setattr(training, "checkpoints", interrupted)
        if failing_call:
            with pytest.raises(KeyboardInterrupt):
                digits.run(settings, out=tmp_path / "parts", progress=False)
        else:
            resumed = digits.run(settings, out=tmp_path / "parts", progress=False)
        stored = {path.stem.rpartition("-")[0] for path in (tmp_path / "parts" / "parts").glob("*.npz")}
        assert len(stored & set(uninterrupted["posterior"]["objective"].to_numpy())) == num_kept
    assert len(calls) == 4  # two of six were not trained again
    for group in ("posterior", "count", "theory", "comparison", "shown", "evals", "evals_stats"):
        xr.testing.assert_identical(uninterrupted[group].to_dataset(), resumed[group].to_dataset())


@pytest.mark.slow
def test_the_quick_run_measures_what_is_counted(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["massdrift", "digits", "--quick", "--quiet", "--truth", "--out", str(tmp_path / "run")]
    )
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    printed = capsys.readouterr().out
    assert "The lens orders" in printed
    # The tables fit a terminal of 80 columns: nothing of them is cut off.
    assert "…" not in printed
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"results.zarr", "summary.csv", "images.png", "training.png", "lens.png", "answers.png"} <= names
    tree = results.open(tmp_path / "run" / "results.zarr")
    agree, total = report.agreements(tree)
    assert total == 2 * (1 + 6 * 2)
    assert agree >= 0.8 * total
    assert np.sum(~tree["count"]["distinct"].to_numpy()) == 2 * 5
    # Supervised fine-tuning on new digits alone loses the most: a training that does not move is seen here.
    weights = report.final(tree)["old_weight"]
    assert weights.idxmin() == "sft"
    assert weights["sft"] < 0.6 * weights["sdft"]
    # Of 36 intervals each, of two networks: 89 % and more, as the truth is that of the log's own items.
    assert "Brute force (1,000 completions an item)" in printed
    found = evals_layout.coverage(tree)
    for name in evals_layout.KNOWN:
        assert found[name].size == 2 * 6 * 3
        assert float(found[name].mean()) >= 0.8, name
    # It is told apart from a run that has kept all: the truth itself is not 0.
    lost = tree["evals_truth"]["lost"].sel(task="digits_0_to_2").mean(["seed", "checkpoint"])
    assert str(lost.idxmax("objective").item()) == "sft"
    # Logs of a run are logs as any others.
    again = read(tmp_path / "run" / "evals" / "network-0", progress=False)
    assert set(again["arm"].unique()) == {"base", *weights.index}
