"""Plans against brute force: losses on a dense grid, JAX's gradients, SciPy's root finder."""

import io
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm as jnorm
from marks import mostly_slow
from rich.console import Console
from scipy.optimize import brentq
from scipy.special import logit
from scipy.stats import norm

import inference
from analyses import plan
from analyses.core import outputs
from inference.exact.flow import gradient_flow
from mixture_models import Hyperparameter, InputError, Objective, Prediction, objectives
from mixture_models.mixture.two_mode import TwoMode
from mixture_models.objectives.registry import given_to
from mixture_models.theory import paths, predictions, weight_paths
from mixture_models.theory.paths import Setting
from mixture_models.theory.predictions import prediction

APART, ALPHA, START, STEPS, RATE = 2.5, 0.4, 0.7, 300, 0.05
SETTING = Setting(APART, ALPHA, START, STEPS, RATE)
LAG = 80

TTT, OAPL = "ttt_discover:eta=1.5", f"oapl:lag={LAG}"

# The brute force: losses as they are defined on a dense grid in float64, their gradients by JAX.
Y = np.linspace(-12.0, APART + 12.0, 1201)
DY = Y[1] - Y[0]
OLD, NEW = norm.pdf(Y), norm.pdf(Y, APART)
CLAIM = ALPHA * OLD / (ALPHA * OLD + (1.0 - ALPHA) * NEW)
GOAL, FIRST = ((logit(weight), 0.0, APART) for weight in (ALPHA, START))


def density(theta):
    phi, old, new = theta
    weight = jax.nn.sigmoid(phi)
    return weight * jnorm.pdf(Y, old) + (1.0 - weight) * jnorm.pdf(Y, new)


def divergence(p, q):
    return DY * jnp.sum(p * jnp.log(p / q))


def sft_loss(theta, _, replay):
    return divergence((1.0 - replay) * NEW + replay * OLD, density(theta))


def reverse_loss(theta, *_):
    return divergence(density(theta), density(GOAL))


def sdft_loss(theta, teacher, _):
    return divergence(density(theta), density(teacher))


def ttt_loss(theta, _, kl_weight, eta=1.5):
    tilted = DY * jnp.sum(density(theta) * jnp.exp(eta * (1.0 - CLAIM)))
    return kl_weight * divergence(density(theta), density(FIRST)) - jnp.log(tilted)


def oapl_loss(theta, lagged, beta):
    law = density(lagged)
    best = beta * jnp.log(DY * jnp.sum(law * jnp.exp((1.0 - CLAIM) / beta)))
    return DY * jnp.sum(law * (beta * jnp.log(density(theta) / law) - (1.0 - CLAIM) + best) ** 2)


def stays(beside, theta, step, value):
    return beside


def teaches(teacher, theta, step, anchor, ema=0.05):
    return teacher + ema * ((1.0 - anchor) * theta + anchor * jnp.asarray(GOAL) - teacher)


def syncs(lagged, theta, step, beta):
    return jnp.where((step + 1) % LAG == 0, theta, lagged)


def brute_force(loss, beside):
    """Return where the steps of a training lead, by value: weight, retention, drift, then the learner."""

    @jax.jit
    def descend(value):
        def step(at, state):
            theta, other = state
            theta = theta - RATE * jax.grad(loss)(theta, other, value)
            return theta, beside(other, theta, at, value)

        theta, _ = jax.lax.fori_loop(0, STEPS, step, (jnp.asarray(FIRST), jnp.asarray(FIRST)))
        kept, old, new = (DY * jnp.sum(law * CLAIM) for law in (density(theta), OLD, NEW))
        seen = jnp.stack([jax.nn.sigmoid(theta[0]), (kept - new) / (old - new), jnp.abs(theta[1])])
        return jnp.concatenate([seen, theta])

    def end(value):
        with jax.enable_x64(True):
            return np.asarray(descend(float(value)))

    return end


ENDS = {
    "sft": brute_force(sft_loss, stays),
    "reverse_kl": brute_force(reverse_loss, stays),
    "sdft": brute_force(sdft_loss, teaches),
    "ttt_discover": brute_force(ttt_loss, stays),
    "oapl": brute_force(oapl_loss, syncs),
}

CASES = {
    "sft": (lambda value: weight_paths.sft(SETTING, value), (0.0, 0.3)),
    "reverse_kl": (lambda value: weight_paths.reverse_kl(SETTING, value), (0.0,)),
    "sdft": (lambda value: weight_paths.sdft(SETTING, value, 0.05), (0.0, 0.2, 1.0)),
    "ttt_discover": (lambda value: weight_paths.ttt_discover(SETTING, value, 1.5), (0.0, 0.5, 5.0)),
    "oapl": (lambda value: weight_paths.oapl(SETTING, value, LAG), (0.05, 0.2, 1.0, 3.0)),
}


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


def planned(objectives=(), **settings):
    return plan.run(plan.Settings(objectives=objectives, **settings))


@pytest.fixture(scope="module")
def tree():
    begin = time.perf_counter()
    result = planned(
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


def retained(name, value):
    return ENDS[name](value)[1]


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


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"keep": 0.0}, r"keep must lie in \(0, 1.42857\); got 0"),
        (
            {"objectives": ["sft:replay=0.96875"]},
            r"replay of sft:replay=0.96875 must lie in \[0, 0.95\]; got 0.96",
        ),
        (
            {"objectives": ["ttt_discover:kl_weight=30"]},
            r"kl_weight of ttt_discover\S* at learning_rate 0.05 must lie in \[0, 20\]; got",
        ),
        (
            {"objectives": ["oapl:beta1=4,beta2=4"]},
            r"beta1 = beta2 of \S* at learning_rate 0.05 must lie in \[0.01, 3.16228\]",
        ),
    ],
)
def test_bad_input_is_refused(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        planned(**arguments)


def test_rewards_count_by_their_gap():
    """η Δ and Δ/τ are what the equations know of a reward: halve one, double the other."""
    by = {"separation": 3.0, "num_steps": 100}
    gaps = ["ttt_discover:reward=mode_reward(1,3),eta=0.5", "ttt_discover"]
    weights = planned(gaps, **by)["plan"]["final_old_weight"].to_numpy()
    assert weights[0] == pytest.approx(weights[1], rel=1e-9)
    follow = [prediction(objectives.parse(f"oapl:reward=mode_reward({r})")).follow for r in ("0,1", "-1,1")]
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
    assert all(prediction(objectives.parse(text)) is None for text in uncovered)
    answers = planned(["oapl:lag=5", "oapl:lag=500"], num_steps=5010)["plan"]["answer"].to_numpy()
    assert answers[0] == "no prediction beyond 5000 steps"
    assert answers[1].startswith("none: beta1 = beta2 ")


@pytest.fixture
def dummies():
    """Two objectives that are only registry entries: one without a prediction, one with its own."""
    parts = objectives.reverse_kl()

    def model(start, target):
        parts.model(start, target)

    def foreseen_model(start, target):
        parts.model(start, target)

    @objectives.register
    def dummy() -> Objective:
        return Objective("", model, parts.guide, parts.loss, "the target")

    @objectives.register
    @objectives.variant(strength=0.4)
    def foreseen(strength: float = 0.2) -> Objective:
        return Objective("", foreseen_model, parts.guide, parts.loss, "the target")

    @predictions.predicts
    def rule(objective: Objective) -> Prediction | None:
        if objective.model is not foreseen_model:
            return None
        strength = given_to(objective).get("strength", 0.2)
        return Prediction(weight_paths.sft, strength, Hyperparameter("strength", lambda setting: 0.9))

    yield
    predictions._RULES.remove(rule)
    del objectives.registry["dummy"], objectives.registry["foreseen"]


@pytest.mark.slow
def test_a_registry_entry_is_planned(dummies, tmp_path):
    tree = planned(num_steps=100)
    frame = plan.summary(tree).set_index("objective")
    assert list(frame.index)[-3:] == ["dummy", "foreseen", "foreseen:strength=0.4"]
    assert frame.loc["dummy", "answer"] == "no prediction"
    assert np.isnan(frame.loc["dummy", "final_old_weight"])
    assert frame.loc["foreseen", "knob"] == "strength"
    ends = frame.loc[["foreseen", "sft:replay=0.2"], "final_old_weight"]
    np.testing.assert_allclose(*ends, rtol=1e-6)
    assert np.isclose(frame.loc["foreseen", "smallest_knob"], frame.loc["sft", "smallest_knob"], rtol=1e-3)
    outputs.write_analysis(plan, tree, tmp_path)
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
    code, printed, _ = massdrift("plan", *arguments, "--keep=0.95", "--check", "--full")
    assert code == 0
    assert "retain 0.95 of it" in printed
    assert "replay 0.5" in printed
    assert "Trained: mean and " in " ".join(printed.split())
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


@pytest.mark.slow
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
