"""Companions: their motion by hand, where they start, and how `train` carries them."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import oracles
import pytest
from numpyro import handlers

from inference import population_descent, population_value_and_grad, train
from inference.training import replicates
from mixture_models import InputError, TwoMode, TwoModeLearner, objectives, two_mode_learner
from mixture_models.losses.loss import law_of
from mixture_models.objectives import constructors
from mixture_models.objectives.companions import Lagged, Learner, Reference, Teacher, companion_law, params_at

TARGET = TwoMode.create(0.4, 0.0, 3.0)
START = TARGET.replace(old_weight=0.8, old_mean=0.3, new_mean=2.0)
SHOWN = TARGET.replace(old_weight=0.01, new_mean=4.0)


def numbers(params):
    return {name: np.asarray(value).tolist() for name, value in params.items()}


def moved(companion, state, learner, step=1, guide=two_mode_learner):
    with jax.enable_x64(True):
        state, learner = ({n: jnp.asarray(v) for n, v in p.items()} for p in (state, learner))
        return numbers(companion.after_step(state, Learner(learner, guide, START, TARGET), step))


# By hand


def test_the_teacher_moves_by_ema_toward_the_student_and_the_demonstrations():
    # λ = 0.25, a = 0.5. Old mean: ω = 1, θ = 3, ω_demo = 0: toward 0.75·3 + 0.25·0 = 2.25, half way: 1.625.
    # New mean: ω = 2, θ = 2, ω_demo = 4: toward 0.75·2 + 0.25·4 = 2.5, half way: 2.25.
    # Logit: ω = 0, θ = 1, ω_demo = logit(1/2) = 0: toward 0.75, half way: 0.375.
    teacher = Teacher(0.25, 0.5, TARGET.replace(old_weight=0.5, new_mean=4.0))
    omega = {"old_logit": 0.0, "old_mean": [1.0], "new_mean": [2.0]}
    theta = {"old_logit": 1.0, "old_mean": [3.0], "new_mean": [2.0]}
    expected = {"old_logit": 0.375, "old_mean": [1.625], "new_mean": [2.25]}
    assert moved(teacher, omega, theta) == expected
    # Without demonstrations the target's are taken: old weight 0.4, new mean 3, toward 0.75·2 + 0.25·3.
    plain = moved(Teacher(0.25, 0.5), omega, theta)
    assert plain["new_mean"] == [2.125]
    assert plain["old_logit"] == pytest.approx(0.5 * (0.75 + 0.25 * np.log(0.4 / 0.6)), rel=1e-14)
    # The two ends: no average, and no anchor.
    assert moved(Teacher(0.0, 1.0), omega, theta) == theta
    assert moved(Teacher(0.7, 0.0), omega, theta) == omega
    assert moved(Teacher(1.0, 1.0, START), omega, theta)["old_mean"] == pytest.approx([0.3])


def test_the_lagged_policy_jumps_onto_the_learner_every_lag_steps():
    omega = {"old_logit": 0.0, "old_mean": [1.0], "new_mean": [2.0]}
    theta = {"old_logit": 1.0, "old_mean": [3.0], "new_mean": [5.0]}
    jumps = [moved(Lagged(3), omega, theta, step) == theta for step in range(1, 10)]
    assert jumps == [False, False, True] * 3
    assert moved(Lagged(3), omega, theta, 2) == omega
    assert moved(Reference(), omega, theta, 3) == omega


def test_every_companion_starts_as_the_learner():
    for companion in (Teacher(0.1, 0.05, SHOWN), Reference(), Lagged(50)):
        with jax.enable_x64(True):
            state = numbers(companion.initial(two_mode_learner, START, TARGET))
        assert state == {"old_logit": float(START.old_logit), "old_mean": [0.3], "new_mean": [2.0]}


def test_the_velocity_is_a_step_a_learning_rate():
    # dω/dt = (ω_{k+1} - ω_k)/η for the same place; the others rest between their jumps.
    omega, theta = (
        {"old_logit": a, "old_mean": np.array([b]), "new_mean": np.array([c])}
        for a, b, c in ((0.0, 1.0, 2.0), (1.0, 3.0, 5.0))
    )
    learner = Learner(theta, two_mode_learner, START, TARGET)
    with jax.enable_x64(True):
        teacher = Teacher(0.2, 0.05, SHOWN)
        velocity = numbers(teacher.velocity(omega, learner, 0.1))
        after = numbers(teacher.after_step(omega, learner, 1))
        for companion in (Reference(), Lagged(50)):
            assert all(np.all(v == 0.0) for v in companion.velocity(omega, learner, 0.1).values())
    for name, value in velocity.items():
        np.testing.assert_allclose(value, (np.array(after[name]) - omega[name]) / 0.1, rtol=1e-13)
    assert [c.sync_interval(0.1) for c in (teacher, Reference(), Lagged(50))] == [np.inf, np.inf, 5.0]


# The law


def test_the_companions_law_is_the_learners_at_its_params_and_leaks_no_site():
    params = {"old_logit": jnp.array(0.2), "old_mean": jnp.array([1.0]), "new_mean": jnp.array([5.0])}
    model = partial(companion_law, two_mode_learner)
    trace = handlers.trace(handlers.seed(model, jax.random.key(0))).get_trace(START, TARGET, companion=params)
    assert list(trace) == ["y"]
    np.testing.assert_array_equal(trace["y"]["fn"].means, [[1.0], [5.0]])
    # The learner's params, which NumPyro substitutes into every model, do not reach it.
    law = law_of(partial(model, companion=params), jax.tree.map(lambda p: p + 1.0, params), START, TARGET)
    np.testing.assert_array_equal(law.means, [[1.0], [5.0]])
    at_start = law_of(model, params, START, TARGET)
    np.testing.assert_allclose(at_start.means, [[0.3], [2.0]], rtol=1e-6)


def test_params_at_leaves_no_trace():
    with handlers.trace() as trace:
        params = params_at(two_mode_learner, START, TARGET)
    assert not trace
    assert set(params) == {"old_logit", "old_mean", "new_mean"}
    scaled = params_at(TwoModeLearner(train_scales=True), START, TARGET)
    assert set(scaled) == {*params, "scale"}


# Carried by `train`

FROZEN = dict.fromkeys(("old_logit", "old_mean", "new_mean"), 0.0)


@pytest.mark.slow
def test_train_moves_the_teacher_after_every_step():
    # A frozen student: the teacher is ω_k = ω* + (1-a)^k (θ - ω*), ω* = (1-λ) θ + λ ω_demo, and the loss at
    # step k is KL(student ‖ teacher_k). One step early or late would be off by 20 standard errors.
    shown = TwoMode.create(0.1, 0.0, 3.5)
    tree = train(
        objectives.sdft(anchor=0.5, ema=0.2, demonstrations=shown),
        START,
        TARGET,
        num_steps=4,
        batch_size=64,
        learning_rate=0.1,
        num_replicates=2000,
        seed=0,
        learning_rate_factors=FROZEN,
        progress=False,
    )
    losses = tree["trajectory"]["loss"].isel(objective=0, chain=0).to_numpy()
    np.testing.assert_array_equal(losses[:, 0], 0.0)
    student = np.array([float(START.old_logit), 0.3, 2.0])
    rest = 0.5 * student + 0.5 * np.array([np.log(0.1 / 0.9), 0.0, 3.5])

    def divergence(k):
        logit, old, new = rest + 0.8**k * (student - rest)
        teacher = oracles.two_modes(1.0 / (1.0 + np.exp(-logit)), old, new)
        return oracles.kl(oracles.two_modes(0.8, 0.3, 2.0), teacher)

    for k in range(1, 5):
        mean, se = oracles.spread(losses[:, k])
        assert abs(mean - divergence(k)) < 5.0 * se
        assert abs(divergence(k) - divergence(k - 1)) > 20.0 * se


def noisy_walk(lag, num_steps=7):
    tree = train(
        objectives.oapl(lag=lag),
        START,
        TARGET,
        num_steps=num_steps,
        batch_size=8,
        learning_rate=0.3,
        num_replicates=3,
        seed=1,
        progress=False,
    )
    return tree["trajectory"].to_dataset().isel(objective=0, chain=0)


def test_train_syncs_the_lagged_policy_after_every_lag_steps():
    # Before the first sync the lag makes no difference, after it, it does.
    three, five, never = (noisy_walk(lag)["old_logit"].to_numpy() for lag in (3, 5, 1000))
    np.testing.assert_array_equal(three[:, :4], never[:, :4])
    assert np.all(three[:, 4] != never[:, 4])
    np.testing.assert_array_equal(five[:, :6], never[:, :6])
    assert np.all(five[:, 6] != never[:, 6])


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["place"])
@dataclass(frozen=True)
class Placed(Reference):
    """A companion that after every step is at the start or at the target that it is told."""

    place: str

    def after_step(self, companion, learner, step):
        """Return the guide's params there."""
        return params_at(learner.guide, getattr(learner, self.place), learner.target)


@pytest.mark.parametrize(("place", "moves"), [("start", False), ("target", True)])
def test_a_companion_is_told_start_and_target_apart(place, moves):
    # A learner that hardly moves: its divergence from the companion stays nothing where that is at the start.
    objective = replace(objectives.sdft(), companion=Placed(place))
    settings = {"num_steps": 3, "learning_rate": 1e-9}
    steps = {"batch_size": 8, "num_replicates": 1, "seed": 0, "progress": False}
    descent = population_descent(objective, START, TARGET, **settings)["population"]
    training = train(objective, START, TARGET, **settings, **steps)["trajectory"]
    for found in (descent, training):
        losses = np.abs(found["loss"].to_numpy().ravel())
        assert losses[0] < 1e-6
        assert bool(losses[-1] > 1e-3) is moves


def single_normal(start, target):
    numpyro.sample(
        "y", dist.Normal(numpyro.param("m", 0.7 * start.old_mean + 0.3 * start.new_mean), 1.0).to_event(1)
    )


def test_a_companion_goes_with_any_guide():
    with jax.enable_x64(True):
        state = Teacher(0.5, 1.0).after_step(
            {"m": jnp.array([0.0])}, Learner({"m": jnp.array([1.0])}, single_normal, START, TARGET), 1
        )
        np.testing.assert_allclose(state["m"], [0.5 * 1.0 + 0.5 * 0.9])
        objective = objectives.sdft(learner=single_normal)
        loss = objective.loss.loss(
            jax.random.key(0),
            {"m": jnp.array([2.0])},
            partial(objective.model, companion={"m": jnp.array([2.0])}),
            objective.guide,
            START,
            TARGET,
        )
    assert float(loss) == 0.0


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"anchor": -0.1}, "anchor must lie in [0, 1]; got -0.1"),
        ({"anchor": 1.1}, "anchor must lie in [0, 1]"),
        ({"ema": 2.0}, "ema must lie in [0, 1]; got 2"),
        ({"ema": np.nan}, "ema must be finite"),
        ({"demonstrations": [0.0]}, "demonstrations must be a TwoMode, a Mixture or None; got list"),
        (
            {"divergence": "both"},
            f"divergence must be {', '.join(constructors._DIVERGENCES)} or a number in (0, 1); got 'both'",
        ),
        ({"divergence": 1.0}, "divergence must lie in (0, 1); got 1"),
    ],
)
def test_sdft_refuses_in_one_sentence(arguments, message):
    with pytest.raises(InputError) as caught:
        objectives.sdft(**arguments)
    assert message in str(caught.value)


def test_demonstrations_of_another_dimension_are_refused_before_anything_is_computed(monkeypatch):
    def forbidden(*arguments):
        raise AssertionError("something was computed")

    monkeypatch.setattr(replicates, "run", forbidden)
    flat = TwoMode.create(0.5, [0.0, 0.0], [1.0, 1.0])
    with pytest.raises(
        InputError, match=r"demonstrations must have params of shapes .*\(1,\).* got .*\(2,\)"
    ):
        train(
            [objectives.sft(), objectives.sdft(demonstrations=flat)],
            START,
            TARGET,
            num_steps=2,
            batch_size=8,
            learning_rate=0.1,
            num_replicates=2,
            seed=0,
            progress=False,
        )


def test_the_exact_population_takes_the_companion_by_its_name():
    value, _ = population_value_and_grad(objectives.sdft(), START, TARGET)
    assert value == pytest.approx(0.0, abs=1e-14)  # left out, the teacher is the learner
    value, _ = population_value_and_grad(objectives.sdft(), START, TARGET, teacher=TARGET)
    plain, _ = population_value_and_grad(objectives.reverse_kl(), START, TARGET)
    assert value == pytest.approx(plain, rel=1e-12)
    with pytest.raises(InputError, match="companion of sdft must be teacher; got lagged"):
        population_value_and_grad(objectives.sdft(), START, TARGET, lagged=TARGET)


def test_neither_a_law_nor_params_are_found_by_drawing(monkeypatch):
    """Drawing would be traced into every program; a site in a plate, and one with a key, are found too."""

    def drawn(*_, **__):
        raise AssertionError("a sample was drawn")

    monkeypatch.setattr(dist.Normal, "sample", drawn)

    def guide(start, target):
        mean = numpyro.param("mean", jnp.asarray(start.old_mean))
        numpyro.prng_key()
        with numpyro.plate("feature", 1):
            numpyro.sample("y", dist.Normal(mean, 1.0))

    assert numbers(params_at(guide, START, TARGET)) == {"mean": [pytest.approx(0.3)]}
    law = law_of(guide, {"mean": jnp.asarray([2.0])}, START, TARGET)
    assert law.batch_shape == (1,)
    assert float(law.mean[0]) == 2.0
