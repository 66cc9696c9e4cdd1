"""Maps of the near-on-policy methods: every value at its place, theory by brute force, and both side by side.

A map with its axes swapped, or an objective with two settings swapped, is off by order 0.1 at the pairs that
are looked at: their settings are as different as the axes allow.
"""

import io
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from ink import colours
from rich.console import Console
from scipy.integrate import solve_ivp
from scipy.special import expit, logit

import inference
from analyses import near_on_policy
from analyses.core import outputs
from analyses.near_on_policy import near_on_policy as parts
from analyses.near_on_policy.maps import NAMES, maps
from analyses.near_on_policy.settings import Settings
from inference import population_descent, train
from mixture_models import InputError, TwoMode, objectives, theory
from mixture_models.rewards import mode_reward

SETTINGS = Settings(
    separation=3.0,
    old_weight=0.4,
    start_old_weight=0.8,
    start_new_gap=0.5,
    reward_gap=1.5,
    num_steps=50,
    learning_rate=0.2,
    anchor=0.4,
    ema=0.3,
    batch_size=16,
    num_replicates=3,
    seed=4,
    num_points=4,
    num_trained=3,
)


def mixtures(dimension):
    """Return start and target, written anew."""
    new, start = np.zeros(dimension), np.zeros(dimension)
    new[0], start[0] = 3.0, 2.5
    target = TwoMode.create(0.4, np.zeros(dimension), new)
    return TwoMode.create(0.8, np.zeros(dimension), start), target


def direct(name, target, ordinate, abscissa):
    """Return the objective of a pair, written anew."""
    reward = mode_reward(0.0, 1.5)
    away = np.eye(target.dim)[0]
    return {
        "sdft": lambda: objectives.sdft(anchor=abscissa, ema=ordinate, demonstrations=target),
        "demonstrations": lambda: objectives.sdft(
            anchor=0.4,
            ema=0.3,
            demonstrations=TwoMode.create(abscissa, ordinate * away, target.new_mean),
        ),
        "ttt_discover": lambda: objectives.ttt_discover(reward, kl_weight=abscissa, eta=ordinate),
        "oapl": lambda: objectives.oapl(reward, beta1=ordinate, beta2=ordinate, lag=int(abscissa)),
    }[name]()


def check_places(name):
    crossed = maps(SETTINGS)[name]
    exact = parts._exact(crossed, SETTINGS)
    trained = parts._trained_over(crossed, SETTINGS)
    ordinate, abscissa = crossed.axes
    assert exact["old_weight"].dims == (ordinate, abscissa)
    assert trained["old_weight"].dims == (ordinate, abscissa, "chain", "draw")
    for first, second in ((0, -1), (-1, 1)):
        place = {ordinate: exact[ordinate].values[first], abscissa: exact[abscissa].values[second]}
        start, target = mixtures(1)
        steps = {"num_steps": 50, "learning_rate": 0.2}
        found = population_descent(direct(name, target, *place.values()), start, target, **steps)
        for measure in ("old_weight", "retention", "old_drift", "new_gap"):
            here = float(found["population"][measure][0, -1])
            assert float(exact[measure].sel(place)) == pytest.approx(here, abs=1e-12)
        if place[abscissa] not in trained[abscissa]:
            continue
        start, target = mixtures(2)
        runs = train(
            direct(name, target, *place.values()),
            start,
            target,
            **steps,
            batch_size=16,
            num_replicates=3,
            seed=4,
            record_every=50,
            progress=False,
        )
        final = runs["final"].to_dataset().isel(objective=0)
        np.testing.assert_array_equal(trained["old_drift"].sel(place), final["old_drift"])
        displacement = np.linalg.norm(final["old_mean"].isel(chain=0).mean("draw"))
        assert float(trained["mean_displacement"].sel(place)) == pytest.approx(displacement, rel=1e-12)
    return exact


@pytest.mark.slow
def test_demonstrations_at_their_places():
    exact = check_places("demonstrations")
    # What is demonstrated is what is kept. The weight alone would not say so: shown next to no old mass, the
    # old mode also walks to the new one.
    assert np.all(np.diff(exact["retention"].values, axis=1) > 0.0)
    assert float(exact["old_weight"][0, 0]) > float(exact["old_weight"][0, 1])
    assert float(exact["old_drift"][0, 0]) > 1.0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sdft", "ttt_discover", "oapl"])
def test_other_maps_at_their_places(name):
    check_places(name)


def oapl_by_hand(beta, lag):
    """Follow the flow of a round's loss b ρ_o² + (1-b) ρ_n² for 50 steps, by differences of the loss."""
    phi, step = logit(0.8), 0
    while step < 50:
        taken = min(lag, 50 - step)
        share = expit(phi)
        best = beta * np.log(share + (1.0 - share) * np.exp(1.5 / beta))

        def loss(x, share=share, best=best):
            of_old = beta * np.log(expit(x) / share) + best
            of_new = beta * np.log(expit(-x) / (1.0 - share)) - 1.5 + best
            return share * of_old**2 + (1.0 - share) * of_new**2

        def field(t, x, loss=loss):
            return -(loss(x + 1e-5) - loss(x - 1e-5)) / 2e-5

        phi = solve_ivp(field, (0.0, 0.2 * taken), [phi], rtol=1e-9, atol=1e-10).y[0, -1]
        step += taken
    return expit(phi)


def test_theory_over_the_maps():
    chosen = {name: crossed.theory_over() for name, crossed in maps(SETTINGS).items()}

    sdft = chosen["sdft"].isel(ema=-1, anchor=1)
    anchor, ema = float(sdft["anchor"]), float(sdft["ema"])
    rate = theory.sdft_local_rate(0.4, 3.0, anchor=anchor, teacher_rate=ema / 0.2)
    left = (logit(sdft["old_weight"]) - logit(0.4)) / (logit(0.8) - logit(0.4))
    assert float(left) == pytest.approx(np.exp(-10.0 * rate), rel=1e-9)
    assert float(sdft["resting_old_weight"]) == 0.4
    # Without an anchor nothing moves, and nothing holds.
    free = chosen["sdft"].isel(anchor=0)
    np.testing.assert_array_equal(free["old_weight"], 0.8)
    assert not free["retains"].any()

    shown = chosen["demonstrations"].isel(demonstrated_drift=2, demonstrated_weight=1)
    assert float(shown["old_weight"]) == float(shown["demonstrated_weight"])
    assert float(shown["old_drift"]) == float(shown["demonstrated_drift"])

    ttt = chosen["ttt_discover"].isel(eta=-1, kl_weight=2)
    phi, gain = logit(float(ttt["old_weight"])), 1.0 - np.exp(-1.5 * float(ttt["eta"]))
    pull = -gain / (1.0 - expit(phi) * gain) / float(ttt["kl_weight"])
    assert phi - logit(0.8) == pytest.approx(pull, rel=1e-9)
    np.testing.assert_array_equal(
        chosen["ttt_discover"]["retains"].isel(kl_weight=0), [False] * 4
    )  # without an anchor

    # The lags 5, 11, 23 and 50: the third leaves a round of four steps.
    oapl = chosen["oapl"].isel(beta=1, lag=2)
    assert 50 % int(oapl["lag"]) > 0
    by_hand = oapl_by_hand(float(oapl["beta"]), int(oapl["lag"]))
    assert float(oapl["old_weight"]) == pytest.approx(by_hand, rel=1e-5)
    assert not chosen["oapl"]["retains"].any()


def test_axes_end_where_steps_would_overshoot():
    fast = maps(replace(SETTINGS, learning_rate=1.0, reward_gap=-4.0, num_points=5))
    assert fast["ttt_discover"].axes["kl_weight"][-1] == 1.0
    beta = fast["oapl"].axes["beta"]
    assert 2.0 * beta[-1] ** 2 * 1.0 <= 1.01
    assert np.all(np.diff(beta) > 0.0)
    # Values of two digits may coincide on a fine grid.
    for crossed in maps(replace(SETTINGS, num_points=41)).values():
        assert all(np.all(np.diff(values) > 0.0) for values in crossed.axes.values())
    # Temperatures are in units of the reward.
    assert fast["ttt_discover"].axes["eta"][-1] * 4.0 == pytest.approx(5.0, rel=0.05)


def test_a_pair_that_cannot_be_followed_is_left_out(monkeypatch):
    def reached(chosen, start, target, settings):
        if any("ema 1 " in objective.name for objective in chosen):
            raise InputError("the integrals must be accurate")
        values = {measure: ("objective", [0.5] * len(chosen)) for measure in parts._MEASURES}
        return xr.Dataset(values, {"objective": [objective.name for objective in chosen]})

    monkeypatch.setattr(parts, "_reached", reached)
    found = parts._exact(maps(replace(SETTINGS, num_points=3))["sdft"], SETTINGS)["retention"]
    assert found["ema"].values.tolist() == [0.002, 0.045, 1.0]
    np.testing.assert_array_equal(found.isnull().all("anchor"), [False, False, True])
    np.testing.assert_array_equal(found.isnull().any("anchor"), [False, False, True])


@pytest.fixture(scope="module")
def tree():
    return near_on_policy.run(
        near_on_policy.Settings(
            separation=8.0,
            num_steps=400,
            learning_rate=0.1,
            num_points=5,
            num_trained=3,
            num_replicates=24,
            batch_size=128,
        )
    )


@pytest.mark.slow
def test_exact_theory_and_trainings_agree_for_modes_apart(tree):
    frame = near_on_policy.summary(tree)
    held = frame[frame["map"] != "adaptive"]
    # Means stay where theory holds them, so that weights are theirs; what is left is the batch's own bias.
    assert (held["num_diverged"] == 0).all()
    error = 0.5 * (held["old_weight_upper"] - held["old_weight_lower"]) / np.sqrt(24)
    assert (abs(held["old_weight"] - held["exact_old_weight"]) < 5.0 * error + 0.01).all()
    oapl = held[held["map"] == "oapl"]
    np.testing.assert_allclose(oapl["theory_old_weight"], oapl["exact_old_weight"], atol=0.01)
    assert (oapl["theory_old_weight"].max() > 0.4) & (oapl["theory_old_weight"].min() < 0.02)
    # At rest by now where the anchor is strong.
    ttt = held[(held["map"] == "ttt_discover") & (held["kl_weight"] == 5.0)]
    np.testing.assert_allclose(ttt["theory_old_weight"], ttt["exact_old_weight"], atol=1e-3)
    sdft = held[held["map"] == "sdft"]
    np.testing.assert_allclose(sdft["theory_old_weight"], sdft["exact_old_weight"], atol=0.03)
    # Demonstrations that hold next to nothing: forgotten. Those that hold most: kept.
    shown = held[(held["map"] == "demonstrations") & (held["demonstrated_drift"] == 0.0)]
    assert shown["exact_retention"].iloc[0] < 0.1
    assert shown["exact_retention"].iloc[-1] > 0.8


@pytest.mark.slow
def test_table_figure_and_layout(tree, tmp_path):
    assert tuple(tree.children) == (*NAMES, "adaptive")
    for name, group in tree.children.items():
        for part in group.children.values():
            dataset = part.to_dataset()
            assert set(dataset.dims) <= set(dataset.coords), name
            assert all({"long_name", "units"} <= set(v.attrs) for v in dataset.variables.values()), name
    outputs.write_analysis(near_on_policy, tree, tmp_path)
    names = {"results.zarr", "summary.csv"}
    names |= {f"near_on_policy_{name}.{form}" for name in NAMES for form in ("png", "svg")}
    assert {path.name for path in tmp_path.iterdir()} == names
    # The order of a file's groups is another; tables and figures are the same.
    again = inference.open(tmp_path / "results.zarr")
    xr.testing.assert_identical(again["oapl/trained"].to_dataset(), tree["oapl/trained"].to_dataset())
    near_on_policy.plot(again)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(near_on_policy.table(again))
    text = console.export_text()
    assert "…" not in text
    assert "nan" not in text
    assert "not held" in text


@pytest.mark.slow
def test_a_reward_for_the_old_mode_and_no_anchor_are_drawn_too(tmp_path):
    settings = near_on_policy.Settings(
        num_steps=20, num_points=3, num_trained=2, num_replicates=2, reward_gap=-2.0, anchor=0.0
    )
    tree = near_on_policy.run(settings)
    outputs.write_analysis(near_on_policy, tree, tmp_path)
    for name in NAMES:
        maps_and_curves = colours(tmp_path / f"near_on_policy_{name}")[:4]
        # The old mode of SDFT without an anchor rests: its drift, zero, has no place on the log axis.
        assert [bool(inside) for inside in maps_and_curves] == [True] * 3 + [name != "demonstrations"], name
        assert len(set.union(*maps_and_curves)) >= 4, name
    frame = near_on_policy.summary(tree)
    assert frame.loc[frame["map"] == "oapl", "retains"].all()
