"""Plans against brute force: equations written again on a dense grid, SciPy's integrator and root finder.

A wrong sign, swapped modes, a weight for a logit, a lost factor of 2 or a teacher for a student is off by
more than 1 %, against tolerances of 1e-5.
"""

import io
import subprocess
import sys
import time

import numpy as np
import pytest
from rich.console import Console
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import norm

import inference
from analyses import plan
from inference.flow import gradient_flow
from mixture_models import InputError, Knob, Objective, Prediction, objectives
from mixture_models.theory import weight_paths
from mixture_models.theory.paths import Setting
from mixture_models.two_mode import TwoMode

APART, ALPHA, START, STEPS, RATE = 2.5, 0.4, 0.7, 300, 0.05
SETTING = Setting(APART, ALPHA, START, STEPS, RATE)
LAG = 80

TTT, OAPL = "ttt_discover:eta=1.5", f"oapl:lag={LAG}"

Y = np.linspace(-9.0, APART + 9.0, 2001)
DY = Y[1] - Y[0]
OLD, NEW = norm.pdf(Y), norm.pdf(Y, APART)


def mixture(phi):
    return expit(phi) * OLD + expit(-phi) * NEW


def score(phi):
    """Return ∂ log q/∂φ = r_o - β."""
    return expit(phi) * OLD / mixture(phi) - expit(phi)


def reverse_slope(phi, law):
    return DY * np.sum(mixture(phi) * score(phi) * np.log(mixture(phi) / law))


EARNED = (1.0 - ALPHA) * NEW / (ALPHA * OLD + (1.0 - ALPHA) * NEW)


def sft_end(replay):
    data = (1.0 - replay) * NEW + replay * OLD
    return follow(lambda phi: DY * np.sum(data * score(phi)))


def reverse_end(_):
    return follow(lambda phi: -reverse_slope(phi, mixture(logit(ALPHA))))


def sdft_end(anchor, ema=0.05):
    def velocity(_, state):
        phi, psi = state
        teacher = (1.0 - anchor) * phi + anchor * logit(ALPHA)
        return [-reverse_slope(phi, mixture(psi)), ema / RATE * (teacher - psi)]

    first = [logit(START)] * 2
    return expit(solve_ivp(velocity, (0.0, STEPS * RATE), first, rtol=1e-9, atol=1e-10).y[0, -1])


def ttt_end(kl_weight, eta=1.5):
    def velocity(phi):
        tilted = mixture(phi) * np.exp(eta * EARNED)
        gain = np.sum(tilted * score(phi)) / np.sum(tilted)
        return gain - kl_weight * reverse_slope(phi, mixture(logit(START)))

    return follow(velocity)


def oapl_end(beta):
    phi = logit(START)
    for steps in (*[LAG] * (STEPS // LAG), STEPS % LAG):
        law = mixture(phi)
        value = beta * np.log(DY * np.sum(law * np.exp(EARNED / beta)))

        def velocity(now, law=law, value=value):
            residual = beta * np.log(mixture(now) / law) - EARNED + value
            return -2.0 * beta * DY * np.sum(law * residual * score(now))

        phi = logit(follow(velocity, phi, steps * RATE))
    return expit(phi)


def follow(velocity, start=None, end=STEPS * RATE):
    start = logit(START) if start is None else start
    solved = solve_ivp(lambda _, phi: [velocity(phi[0])], (0.0, end), [start], rtol=1e-9, atol=1e-10)
    return expit(solved.y[0, -1])


CASES = {
    "sft": (lambda knob: weight_paths.sft(SETTING, knob), sft_end, (0.0, 0.3)),
    "reverse_kl": (lambda knob: weight_paths.reverse_kl(SETTING, knob), reverse_end, (0.0,)),
    "sdft": (lambda knob: weight_paths.sdft(SETTING, knob, 0.05), sdft_end, (0.0, 0.2, 1.0)),
    "ttt_discover": (lambda knob: weight_paths.ttt_discover(SETTING, knob, 1.5), ttt_end, (0.0, 0.5, 5.0)),
    "oapl": (lambda knob: weight_paths.oapl(SETTING, knob, LAG), oapl_end, (0.2, 1.0, 3.0)),
}


@pytest.mark.parametrize("name", CASES)
def test_final_weights(name):
    path_of, end_of, knobs = CASES[name]
    path = path_of(knobs)
    np.testing.assert_allclose(path.old_weight[:, -1], [end_of(knob) for knob in knobs], atol=1e-5)
    np.testing.assert_allclose(path.old_weight[:, 0], START, rtol=1e-12)


@pytest.fixture(scope="module")
def tree():
    begin = time.perf_counter()
    result = plan.run(
        ["sft", "sft:replay=0.1", "reverse_kl", "reverse_kl:replay=0.1", "sdft", TTT, OAPL],
        separation=APART,
        old_weight=ALPHA,
        start_old_weight=START,
        num_steps=STEPS,
        learning_rate=RATE,
        batch_size=16,
        keep=0.8,
    )
    print(f"planned in {time.perf_counter() - begin:.2f} s")
    return result


def test_smallest_knobs_are_roots_of_the_brute_force(tree):
    frame = plan.summary(tree).set_index("knob")
    wanted = 0.8 * START
    share = brentq(lambda knob: sft_end(knob) - wanted, 0.0, 0.95)
    np.testing.assert_allclose(frame.loc["replay", "smallest_knob"], share, rtol=1e-4)
    weight = brentq(lambda knob: ttt_end(knob) - wanted, 0.1, 20.0)
    assert frame.loc["kl_weight", "smallest_knob"] == pytest.approx(weight, rel=1e-4)
    # A stronger anchor pulls to the target, which holds less.
    most = brentq(lambda knob: sdft_end(knob) - wanted, 0.0, 1.0)
    assert frame.loc["anchor", "smallest_knob"] == 0.0
    assert frame.loc["anchor", "knob_crossing"] == pytest.approx(most, rel=1e-4)
    assert frame.loc["", "answer"].str.startswith("none: no setting moves its end").all()
    assert frame.loc["", "smallest_knob"].isna().all()


def test_batches(tree):
    frame = plan.summary(tree).set_index("objective")
    assert frame.loc["sft", "starvation_ever"] == 1.0
    assert frame.loc["sft:replay=0.1", "starvation"] == pytest.approx(0.9**16)
    assert frame.loc["sft:replay=0.1", "starvation_ever"] == pytest.approx(1.0 - (1.0 - 0.9**16) ** STEPS)
    end = frame.loc["reverse_kl", "final_old_weight"]
    assert frame.loc["reverse_kl", "starvation_largest"] == pytest.approx((1.0 - end) ** 16)
    replayed = frame.loc["reverse_kl:replay=0.1"]
    assert replayed["starvation_largest"] == pytest.approx((0.9 * (1.0 - end)) ** 16)
    weights = tree["path"]["old_weight"].sel(objective="reverse_kl:replay=0.1").to_numpy()
    fractions = []
    for weight in weights[::20]:
        q = weight * OLD + (1.0 - weight) * NEW
        fractions.append(1.0 / (DY * np.sum(q**2 / (0.9 * q + 0.1 * OLD))))
    assert replayed["effective_fraction"] == pytest.approx(min(fractions), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sft", "sft:replay=0.1", "reverse_kl", "sdft", "ttt_discover", "oapl"])
def test_drift_is_that_of_the_flow_to_first_order(name):
    """With free means at δ = 7, where the overlap's second order is below 10 %."""
    setting = Setting(7.0, 0.5, 0.7, 500, 0.05)
    path = {
        "sft": lambda: weight_paths.sft(setting, 0.0),
        "sft:replay=0.1": lambda: weight_paths.sft(setting, 0.1),
        "reverse_kl": lambda: weight_paths.reverse_kl(setting, 0.0),
        "sdft": lambda: weight_paths.sdft(setting, 0.1, 0.05),
        "ttt_discover": lambda: weight_paths.ttt_discover(setting, 0.1, 1.0),
        "oapl": lambda: weight_paths.oapl(setting, 1.0, 50),
    }[name]()
    target = TwoMode.create(0.5, 0.0, 7.0)
    times = np.linspace(0.0, 25.0, 101)
    flow = gradient_flow(
        [objectives.parse(name)], target.replace(old_weight=0.7), target, times=times, learning_rate=0.05
    )
    peak = float(flow["population"]["old_drift"].max())
    assert path.old_drift.max() == pytest.approx(peak, rel=0.1)


def test_table_figure_and_layout(tree, tmp_path):
    for name in ("plan", "path", "curve"):
        dataset = tree[name].to_dataset()
        assert set(dataset.dims) <= set(dataset.coords)
        assert all({"long_name", "units"} <= set(v.attrs) for v in dataset.variables.values()), name
    plan.write(tree, tmp_path)
    names = {"results.zarr", "summary.csv", "plan.png", "plan.svg"}
    assert {path.name for path in tmp_path.iterdir()} == names
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(plan.table(tree))
    text = console.export_text()
    assert "…" not in text
    assert "nan" not in text


@pytest.mark.slow
def test_trainings_agree():
    """At δ = 8 the means hardly move: the trained weights are the flow's but for noise and steps."""
    tree = plan.run(separation=8.0, num_steps=200, batch_size=256, check=True)
    frame = plan.summary(tree)
    simulated = tree["simulated"].to_dataset()["old_weight"]
    error = simulated.std(["chain", "draw"]).to_numpy() / np.sqrt(simulated.sizes["draw"])
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(plan.table(tree))
    assert "…" not in console.export_text()
    assert np.all(np.abs(frame["simulated_old_weight"] - frame["final_old_weight"]) < 5.0 * error + 0.01)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"separation": 0.0}, r"separation must lie in \[0.1, 26\]; got 0"),
        ({"start_old_weight": 1.0}, r"start_old_weight must lie in \(0, 1\); got 1"),
        ({"old_weight": 0.0}, r"old_weight must lie in \(0, 1\); got 0"),
        ({"keep": 0.0}, r"keep must lie in \(0, 1.42857\); got 0"),
        (
            {"chosen": ["sft:replay=0.96875"]},
            r"replay of sft:replay=0.96875 must lie in \[0, 0.95\]; got 0.96",
        ),
        (
            {"chosen": ["ttt_discover:kl_weight=30"]},
            r"kl_weight of ttt_discover\S* must lie in \[0, 20\]; got",
        ),
        ({"chosen": ["oapl:beta1=4,beta2=4"]}, r"beta1 = beta2 of \S* must lie in \[0.01, 3.16228\]; got 4"),
        ({"chosen": ["sft", "sft"]}, "objectives must have different names; got sft, sft"),
        ({"batch_size": 1}, "batch_size must be at least 2; got 1"),
    ],
)
def test_bad_input_is_refused(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        plan.run(**arguments)


def test_rewards_count_by_their_gap():
    """η Δ and Δ/τ are what the equations know of a reward: halve one, double the other."""
    by = {"separation": 3.0, "num_steps": 100}
    gaps = ["ttt_discover:reward=mode_reward(1,3),eta=0.5", "ttt_discover"]
    weights = plan.run(gaps, **by)["plan"]["final_old_weight"].to_numpy()
    assert weights[0] == pytest.approx(weights[1], rel=1e-9)
    follow = [objectives.parse(f"oapl:reward=mode_reward({r})").prediction.follow for r in ("0,1", "-1,1")]
    setting = Setting(3.0, 0.5, 0.7, 100, 0.05)
    # Twice the reward at twice the temperature is four times the loss: the same flow four times as fast.
    slow = follow[0](setting._replace(num_steps=25, learning_rate=0.8), [1.0])
    fast = follow[1](setting._replace(num_steps=25, learning_rate=0.2), [2.0])
    np.testing.assert_allclose(fast.old_weight[0, -1], slow.old_weight[0, -1], rtol=1e-5)


def test_what_theory_does_not_cover_has_no_prediction():
    uncovered = [
        "sft:learner=single_mode",
        "sdft:divergence=forward",
        "ttt_discover:eta=adaptive",
        "ttt_discover:reward=linear_reward(1)",
        "oapl:reward=log_ratio_reward",
    ]
    assert all(objectives.parse(text).prediction is None for text in uncovered)
    answers = plan.run(["oapl:lag=5", "oapl:lag=6"], num_steps=510)["plan"]["answer"].to_numpy()
    assert answers[0] == "no prediction beyond 500 steps"
    assert answers[1].startswith("beta1 = beta2 ")


@pytest.fixture
def dummies():
    """Two objectives that are only registry entries: one without a prediction, one with its own."""
    parts = objectives.reverse_kl()

    @objectives.register
    def dummy() -> Objective:
        return Objective("", parts.model, parts.guide, parts.divergence, "the target")

    @objectives.register
    @objectives.variant(strength=0.4)
    def foreseen(strength: float = 0.2) -> Objective:
        own = Prediction(weight_paths.sft, strength, Knob("strength", lambda setting: 0.9))
        return Objective("", parts.model, parts.guide, parts.divergence, "the target", prediction=own)

    yield
    del objectives.registry["dummy"], objectives.registry["foreseen"]


def test_a_registry_entry_is_planned(dummies, tmp_path):
    tree = plan.run(num_steps=100)
    frame = plan.summary(tree).set_index("objective")
    assert list(frame.index)[-3:] == ["dummy", "foreseen", "foreseen:strength=0.4"]
    assert frame.loc["dummy", "answer"] == "no prediction"
    assert np.isnan(frame.loc["dummy", "final_old_weight"])
    assert frame.loc["foreseen", "knob"] == "strength"
    ends = frame.loc[["foreseen", "sft:replay=0.2"], "final_old_weight"]
    np.testing.assert_allclose(*ends, rtol=1e-6)
    assert np.isclose(frame.loc["foreseen", "smallest_knob"], frame.loc["sft", "smallest_knob"], rtol=1e-3)
    plan.write(tree, tmp_path)
    assert (tmp_path / "plan.png").stat().st_size > 1000


def samples(num, mean, seed):
    """Return samples with correlated features, whose modes at 0 and at (3, 0, 0) are 3.7 apart."""
    scale = np.linalg.cholesky([[1.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 1.0]])
    return np.random.default_rng(seed).normal(size=(num, 3)) @ scale.T + [mean, 0.0, 0.0]


def test_a_plan_from_samples(tmp_path, massdrift):
    for name, rows in {
        "old": samples(400, 0.0, 0),
        "new": samples(300, 3.0, 1),
        "now": np.concatenate([samples(160, 0.0, 2), samples(40, 3.0, 3)]),
    }.items():
        np.save(tmp_path / f"{name}.npy", rows)
    given = [f"--{who}-samples={tmp_path / name}.npy" for who, name in (("old", "old"), ("new", "new"))]
    given += [f"--learner-samples={tmp_path / 'now.npy'}", "--num-steps=100", "--quiet"]
    code, printed, _ = massdrift("plan", "sft", "reverse_kl", *given, "--out", tmp_path / "out")
    assert code == 0
    said = " ".join(printed.split())
    assert "Estimated from 400 old and 300 new samples in 3 features: separation 3." in said
    assert "200 samples of the learner" in said
    tree = inference.open(tmp_path / "out" / "results.zarr")
    estimated = tree["estimated"].to_dataset()
    correlated = np.array([[1.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 1.0]])
    truth = np.sqrt(9.0 * np.linalg.inv(correlated)[0, 0])
    low, high = estimated["separation_interval"].to_numpy()
    assert low - 0.2 < truth < high + 0.2  # its coverage is tested in test_separation.py
    assert float(estimated["separation"]) < float(estimated["plug_in_separation"])
    np.testing.assert_allclose(estimated["covariance"], correlated, atol=0.15)
    assert float(estimated["start_old_weight"]) == pytest.approx(0.8, abs=0.1)
    planned = tree["plan"].to_dataset().sel(objective="sft")
    assert planned["final_old_weight_lower"] < planned["final_old_weight"] < planned["final_old_weight_upper"]
    assert all({"long_name", "units"} <= set(v.attrs) for v in estimated.variables.values())


def test_the_command_plans_and_checks(massdrift):
    arguments = ["sft", "--separation=5", "--num-steps=20", "--batch-size=16", "--quiet"]
    code, printed, _ = massdrift("plan", *arguments, "--keep=0.95", "--check")
    assert code == 0
    assert "keep 0.95 of it" in printed
    assert "replay 0.5" in printed
    assert "In brackets: trained with free means" in " ".join(printed.split())
    assert "nan" not in printed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--keep=2"], "keep must lie in (0, 1.42857); got 2"),
        (["dpo"], "objective must be one of sft, reverse_kl, sdft, ttt_discover, oapl; got 'dpo'"),
        (["--old-samples=here.npy"], "needs those of the old and of the new task; got one of them"),
        (["--old-samples=no.npy", "--new-samples=no.npy"], "no.npy"),
    ],
)
def test_bad_input_of_the_command_is_one_sentence(massdrift, tmp_path, arguments, sentence):
    code, printed, error = massdrift("plan", *arguments, "--quiet", "--out", tmp_path / "out")
    assert code == 2
    assert sentence in error
    assert len(error.strip().splitlines()) == 1
    assert printed == ""
    assert list(tmp_path.iterdir()) == []


def test_a_plan_loads_only_what_it_needs():
    program = (
        "import sys\n"
        "from analyses import cli\n"
        "light = [name for name in ('pandas', 'xarray') if name in sys.modules]\n"
        "sys.argv = ['massdrift', 'plan', 'sft', '--num-steps=20', '--quiet']\n"
        "try:\n"
        "    cli.main()\n"
        "except SystemExit:\n"
        "    heavy = ('matplotlib', 'diffrax', 'arviz', 'arviz_stats', 'optax', 'sklearn', 'zarr')\n"
        "    print('LOADED', light, [name for name in heavy if name in sys.modules])\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "LOADED [] []" in ran.stdout
