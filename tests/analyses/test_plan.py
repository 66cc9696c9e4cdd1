"""Plans against brute force: losses on a dense grid, JAX's gradients, SciPy's root finder."""

import io

import numpy as np
import pytest
from marks import mostly_slow
from plan_oracles import (
    ALPHA,
    APART,
    CASES,
    DY,
    ENDS,
    LAG,
    OAPL,
    OLD,
    RATE,
    SETTING,
    START,
    STEPS,
    TTT,
    density,
    planned,
    retained,
)
from rich.console import Console
from scipy.optimize import brentq

from analyses import plan
from analyses.core import outputs
from inference.exact.flow import gradient_flow
from mixture_models import objectives
from mixture_models.mixture.two_mode import TwoMode
from mixture_models.theory import paths, weight_paths


@pytest.mark.parametrize("name", CASES)
def test_ends_of_the_descent(name):
    """A wrong sign, a lost factor, swapped modes, held means, a teacher for a student: off by 1e-3."""
    path_of, values = CASES[name]
    path = path_of(values)
    reached = np.stack([path.old_weight[:, -1], path.retention[:, -1], path.old_drift[:, -1]], axis=-1)
    np.testing.assert_allclose(reached, [ENDS[name](value)[:3] for value in values], atol=1e-8)
    np.testing.assert_allclose(path.old_weight[:, 0], START, rtol=1e-12)
    np.testing.assert_allclose(path.retention[:, 0], START, rtol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("name", mostly_slow(CASES, "sft", "oapl"))
def test_long_trainings_follow_the_flow(name, monkeypatch):
    """Against the exact flow of `gradient_flow`, which has its own integrals and solver."""
    path_of, values = CASES[name]
    monkeypatch.setattr(paths, "MOST_STEPS", 10)
    path = path_of(values[-1:])
    value = {
        "sft": "replay",
        "reverse_kl": "",
        "sdft": "anchor",
        "ttt_discover": "eta=1.5,kl_weight",
        "oapl": "",
    }
    text = f"{name}:{value[name]}={values[-1]}" if value[name] else name
    objective = objectives.parse(f"oapl:beta1=3,beta2=3,lag={LAG}" if name == "oapl" else text)
    target = TwoMode.create(ALPHA, 0.0, APART)
    start = target.replace(old_weight=START)
    flow = gradient_flow(objective, start, target, times=path.time[[50, -1]], learning_rate=RATE)
    flow = flow["population"].to_dataset().isel(objective=0)
    for field in ("old_weight", "retention", "old_drift"):
        np.testing.assert_allclose(getattr(path, field)[0, [50, -1]], flow[field], atol=1e-5)


def test_what_overshoots_has_no_end():
    """Steps far beyond where they lead, at one value of two; the other is as if alone."""
    setting = SETTING._replace(learning_rate=3.0)
    both = weight_paths.ttt_discover(setting, [0.0, 10.0], 1.0)
    alone = weight_paths.ttt_discover(setting, [0.0], 1.0)
    assert np.isnan(both.retention[1, -1])
    np.testing.assert_allclose(both.retention[0], alone.retention[0], atol=1e-7)
    answers = planned(["sft", "reverse_kl"], learning_rate=10.0, num_steps=50)["plan"]["answer"]
    assert answers[0] == "no prediction: steps of rate 10 diverge"


@pytest.fixture(scope="module")
def tree():
    return planned(
        ["sft", "sft:replay=0.1", "reverse_kl", "reverse_kl:replay=0.1", "sdft", TTT, OAPL],
        separation=APART,
        old_weight=ALPHA,
        start_old_weight=START,
        num_steps=STEPS,
        learning_rate=RATE,
        batch_size=16,
        keep=0.8,
    )


def test_smallest_hyperparameters_are_roots_of_the_brute_force(tree):
    frame = plan.summary(tree).set_index("knob")
    wanted = 0.8 * START
    share = brentq(lambda value: retained("sft", value) - wanted, 0.0, 0.95)
    np.testing.assert_allclose(frame.loc["replay", "smallest_knob"], share, rtol=1e-5)
    weight = brentq(lambda value: retained("ttt_discover", value) - wanted, 0.1, 20.0)
    assert frame.loc["kl_weight", "smallest_knob"] == pytest.approx(weight, rel=1e-5)
    # A stronger anchor pulls to the target, which holds less.
    most = brentq(lambda value: retained("sdft", value) - wanted, 0.0, 1.0)
    assert frame.loc["anchor", "smallest_knob"] == 0.0
    assert frame.loc["anchor", "knob_crossing"] == pytest.approx(most, rel=1e-5)
    assert frame.loc["", "answer"].str.startswith("none: no setting moves its end").all()
    assert frame.loc["", "smallest_knob"].isna().all()


NAMED = {"replay": "sft", "anchor": "sdft", "kl_weight": "ttt_discover", "beta1 = beta2": "oapl"}


def test_what_is_recommended_retains_what_is_wanted(tree):
    """Also as it is written, to three digits."""
    frame, wanted = plan.summary(tree), 0.8 * START
    turned = frame[frame["knob"] != ""].drop_duplicates("knob")
    assert set(turned["knob"]) == set(NAMED)
    for row in turned.to_dict("records"):
        name = NAMED[row["knob"]]
        ends = ENDS[name](row["smallest_knob"])
        assert ends[1] >= wanted - 1e-7
        np.testing.assert_allclose([row["planned_old_weight"], row["planned_retention"]], ends[:2], atol=1e-7)
        assert ends[0] > ends[1] - 1e-9  # of a mode called old that has moved
        written = [
            float(word)
            for word in row["answer"].replace(row["knob"], "").replace(";", "").split()
            if word not in ("not", "above", "is", "enough")
        ]
        assert min(retained(name, value) for value in written) >= wanted
        edge = retained(name, row["knob_crossing"])
        assert edge == pytest.approx(wanted, abs=1e-6)


def test_a_plan_for_the_weight_would_not_retain():
    """At δ = 2.5 what carries OAPL's old weight has moved; where nothing retains it, the answer says so."""
    named = {"separation": 2.5, "old_weight": 0.28, "start_old_weight": 0.681, "learning_rate": 0.02}
    frame = plan.summary(planned(["oapl", "reverse_kl"], **named, batch_size=128, keep=0.618))
    assert frame.loc[0, "knob_crossing"] == pytest.approx(0.156, abs=1e-3)  # 0.337 keeps the weight
    assert frame.loc[1, "answer"].startswith("none: no setting moves its end")
    frame = plan.summary(planned(["oapl:lag=1"], separation=1.0, num_steps=2000, learning_rate=0.2, keep=1.2))
    assert frame.loc[0, "answer"].startswith("none: beta1 = beta2 up to 1.58 retains -0.22")
    assert frame.loc[0, ["smallest_knob", "knob_crossing", "planned_retention"]].isna().all()


def test_batches(tree):
    frame = plan.summary(tree).set_index("objective")
    assert frame.loc["sft", "starvation_ever"] == 1.0
    assert frame.loc["sft:replay=0.1", "starvation"] == pytest.approx(0.9**16)
    assert frame.loc["sft:replay=0.1", "starvation_ever"] == pytest.approx(1.0 - (1.0 - 0.9**16) ** STEPS)
    end = frame.loc["reverse_kl", "final_old_weight"]
    assert frame.loc["reverse_kl", "starvation_largest"] == pytest.approx((1.0 - end) ** 16)
    replayed = frame.loc["reverse_kl:replay=0.1"]
    assert replayed["starvation_largest"] == pytest.approx((0.9 * (1.0 - end)) ** 16)
    q = np.asarray(density(ENDS["reverse_kl"](0.0)[3:]))
    fraction = 1.0 / (DY * np.sum(q**2 / (0.9 * q + 0.1 * OLD)))
    assert replayed["effective_fraction"] == pytest.approx(fraction, rel=1e-6)  # it falls


def test_table_figure_and_layout(tree, tmp_path):
    for name in ("plan", "path", "curve"):
        dataset = tree[name].to_dataset()
        assert set(dataset.dims) <= set(dataset.coords)
        assert all({"long_name", "units"} <= set(v.attrs) for v in dataset.variables.values()), name
    outputs.write_analysis(plan, tree, tmp_path)
    names = {"results.zarr", "summary.csv", "plan.png", "plan.svg"}
    assert {path.name for path in tmp_path.iterdir()} == names
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(plan.table(tree))
    text = console.export_text()
    assert "…" not in text
    assert "nan" not in text


@pytest.mark.slow
def test_trainings_agree():
    """With free means, and modes that overlap: what is trained is the descent but for noise."""
    tree = planned(separation=3.0, num_steps=200, batch_size=256, check=True)
    frame = plan.summary(tree)
    simulated = tree["simulated"].to_dataset()
    for name in ("old_weight", "retention"):
        error = simulated[name].std(["chain", "draw"]).to_numpy() / np.sqrt(simulated.sizes["draw"])
        assert np.all(np.abs(frame[f"simulated_{name}"] - frame[f"final_{name}"]) < 5.0 * error + 0.01)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(plan.table(tree))
    assert "…" not in console.export_text()
