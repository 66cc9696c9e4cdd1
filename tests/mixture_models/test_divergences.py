"""The divergences as plain NumPyro ELBOs: under NumPyro's own SVI, their invariants and their errors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import oracles
import pytest
from marks import mostly_slow
from numpyro.infer import SVI

from mixture_models import ForwardKL, InputError, MixtureLaw, MonteCarlo, ReverseKL, TwoMode, objectives
from mixture_models.learners import two_mode_learner
from mixture_models.losses.loss import leave_one_out
from mixture_models.objectives import true_target

VARIANTS = (
    "sft",
    "sft:replay=0.3",
    "reverse_kl",
    "reverse_kl:replay=0.3",
    "reverse_kl:estimator=pathwise",
    "reverse_kl:replay=0.3,estimator=pathwise",
)

MATRIX = np.array([[1.0, 0.5], [0.5, 0.8]])
LEARNER = oracles.Setting(0.7, np.array([0.3, -0.2]), np.array([1.6, 1.2]), MATRIX)
TARGET = oracles.Setting(0.4, np.array([0.0, 0.0]), np.array([2.4, 0.6]), MATRIX)


# Under NumPyro alone. That the loss is the divergence in nats is checked in test_estimators.py, on the same
# runs as the gradients.


@pytest.mark.parametrize(
    "name", mostly_slow(VARIANTS, "sft", "reverse_kl:replay=0.3", "reverse_kl:estimator=pathwise")
)
def test_the_plain_svi_call(name):
    # Exactly the call of the documentation: in float32, with the default progress bar, no warning.
    target = TwoMode.create(old_weight=0.5, old_mean=[0.0, 0.0], new_mean=[4.0, 0.0])
    start = target.replace(old_weight=0.9, new_mean=[2.5, 1.0])
    objective, key = objectives.parse(name), jax.random.key(0)
    result = SVI(objective.model, objective.guide, optax.sgd(0.05), objective.loss).run(
        key, 500, start, target
    )
    weight = float(jax.nn.sigmoid(result.params["old_logit"]))
    old, new = (np.asarray(result.params[n]) for n in ("old_mean", "new_mean"))
    assert np.all(np.isfinite(result.losses))
    assert np.mean(result.losses[-50:]) < 0.7 * np.mean(result.losses[:10])
    # Training lasts 25 units of time: SFT forgets like β ~ 1/t; the others reach their optimum but for noise.
    if name == "sft":
        assert 0.005 < weight < 0.1
    else:
        assert weight == pytest.approx(0.3 if "sft" in name else 0.5, abs=0.08)
        np.testing.assert_allclose(old, [0.0, 0.0], atol=0.3)
    np.testing.assert_allclose(new, [4.0, 0.0], atol=0.3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", mostly_slow(VARIANTS, "sft:replay=0.3", "reverse_kl:replay=0.3,estimator=pathwise")
)
def test_start_and_target_may_be_given_by_name(name):
    target = TwoMode.create(old_weight=0.5, old_mean=[0.0, 0.0], new_mean=[4.0, 0.0])
    start = target.replace(old_weight=0.9, new_mean=[2.5, 1.0])
    objective, key = objectives.parse(name), jax.random.key(0)
    svi = SVI(objective.model, objective.guide, optax.sgd(0.05), objective.loss)
    plain = svi.run(key, 3, start, target, progress_bar=False)
    for args, kwargs in (((), {"target": target, "start": start}), ((start,), {"target": target})):
        named = svi.run(key, 3, *args, progress_bar=False, **kwargs)
        np.testing.assert_array_equal(named.losses, plain.losses)
        for param, value in plain.params.items():
            np.testing.assert_array_equal(named.params[param], value)


def test_programs_of_plain_numpyro_distributions():
    # KL(N(m, 1) ‖ N(0, 1)) = KL(N(0, 1) ‖ N(m, 1)) = m²/2, gradient m.
    def model():
        numpyro.sample("y", dist.Normal(0.0, 1.0).expand([1]).to_event(1))

    def guide():
        numpyro.sample("y", dist.Normal(numpyro.param("m", 0.8), 1.0).expand([1]).to_event(1))

    with jax.enable_x64(True):
        for divergence in (ForwardKL(MonteCarlo(4)), ReverseKL(expectation=MonteCarlo(4))):

            def loss(m, key, divergence=divergence):
                return divergence.loss(key, {"m": m}, model, guide)

            keys = jax.random.split(jax.random.key(0), 20_000)
            values, slopes = jax.jit(jax.vmap(jax.value_and_grad(loss), in_axes=(None, 0)))(0.8, keys)
            for estimates, exact in ((values, 0.32), (slopes, 0.8)):
                mean, se = oracles.spread(np.asarray(estimates))
                assert abs(mean - exact) < 5.0 * se < 0.1 * exact


# Replay and the baseline


def losses(divergence, model, num_keys, start=None, target=None):
    """Return the estimates of many keys, in float64."""
    args = start or TwoMode.create(*LEARNER), target or TwoMode.create(*TARGET)
    with jax.enable_x64(True):
        return np.asarray(each_loss(divergence, model, jax.random.split(jax.random.key(3), num_keys), *args))


@partial(jax.jit, static_argnames="model")
def each_loss(divergence, model, keys, *args):
    return jax.vmap(lambda key: divergence.loss(key, {}, model, two_mode_learner, *args))(keys)


class Shifted(MixtureLaw):
    """A law whose log density is off by a constant."""

    shift = 7.0

    def log_prob(self, value, intermediates=None):
        """Return the log density minus the constant."""
        return super().log_prob(value) - self.shift


def shifted(law):
    return Shifted(law.log_weights, law.means, law.scales)


def learner_itself_shifted(start, target):
    numpyro.sample("y", shifted(start.law()))


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["score", "pathwise"])
@pytest.mark.parametrize("replay", [0.05, 0.3, 0.7])
def test_replay_weights_are_bounded_and_have_mean_one(replay, estimator):
    # With log q - log p = 7 everywhere the loss is 7 times the batch's mean weight.
    n = 2 if estimator == "score" else 4
    divergence = ReverseKL(estimator, replay, MonteCarlo(n))
    weights = losses(divergence, learner_itself_shifted, 20_000) / Shifted.shift
    mean, se = oracles.spread(weights)
    assert abs(mean - 1.0) < 5.0 * se < 0.1
    assert np.all(weights >= 0.0)
    if estimator == "score":
        assert weights.max() <= 1.0 / (1.0 - replay) + 1e-12
        assert weights.max() > 0.5 / (1.0 - replay)  # the bound is not idle
        assert weights.min() < 1.0


def test_replayed_samples_are_the_targets_old_mode():
    # The learner has forgotten: q vanishes on replayed samples, their weight is 0, and they are λ of the
    # draws. Both samples of a batch are replayed with probability 0.09, se 0.002.
    target = TwoMode.create(0.4, [0.0, 0.0], [30.0, 0.0])
    start = TwoMode.create(None, [60.0, 0.0], [30.0, 0.0], old_logit=-50.0)
    weights = losses(ReverseKL("score", 0.3, MonteCarlo(2)), learner_itself_shifted, 20_000, start, target)
    assert np.mean(weights < 1e-6) == pytest.approx(0.3**2, abs=5 * 0.002)


@pytest.mark.slow
@pytest.mark.parametrize("replay", [None, 0.3])
def test_the_score_gradient_ignores_a_constant_in_the_log_ratio(replay):
    divergence = ReverseKL(replay=replay, expectation=MonteCarlo(8))

    def moved_target(start, target):
        numpyro.sample("y", shifted(target.law()))

    with jax.enable_x64(True):
        start, target = TwoMode.create(*LEARNER), TwoMode.create(*TARGET)
        params = {name: jnp.asarray(getattr(start, name)) for name in ("old_logit", "old_mean", "new_mean")}

        def gradient(model):
            def loss(p):
                return divergence.loss(jax.random.key(1), p, model, two_mode_learner, start, target)

            return jax.jit(jax.grad(loss))(params)

        plain, moved = gradient(true_target), gradient(moved_target)
    for name, value in plain.items():
        assert np.any(np.asarray(value) != 0.0)
        np.testing.assert_allclose(moved[name], value, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("weights", [np.ones(5), np.array([0.2, 1.4, 0.9, 0.0, 3.0]), np.array([1.0, 0.3])])
def test_leave_one_out_is_the_weighted_mean_of_the_others(weights):
    values = np.random.default_rng(0).normal(size=len(weights)) * 10.0
    expected = []
    for i in range(len(weights)):
        others = [j for j in range(len(weights)) if j != i]
        expected.append(np.sum(weights[others] * values[others]) / np.sum(weights[others]))
    with jax.enable_x64(True):
        np.testing.assert_allclose(
            leave_one_out(jnp.asarray(values), jnp.asarray(weights)), expected, rtol=1e-12
        )


def test_leave_one_out_stays_finite_when_one_sample_has_all_the_weight():
    with jax.enable_x64(True):
        baseline = leave_one_out(jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0, 0.0, 0.0]))
    assert np.all(np.isfinite(baseline))


# Shapes of an ELBO


def test_a_divergence_is_a_pytree_whose_leaves_are_numbers():
    leaves, structure = jax.tree.flatten(ReverseKL(replay=0.3))
    assert leaves == [0.3]
    assert structure == jax.tree.structure(ReverseKL(replay=0.4))
    assert structure != jax.tree.structure(ReverseKL("pathwise", 0.4))
    assert structure != jax.tree.structure(ReverseKL(replay=0.4).with_samples(7))
    assert jax.tree.leaves(ForwardKL()) == []
    rebuilt = jax.tree.unflatten(structure, [0.7])
    assert isinstance(rebuilt, ReverseKL)
    assert rebuilt.replay == 0.7


def test_with_samples_keeps_everything_else():
    before = ReverseKL("pathwise", 0.2)
    after = before.with_samples(12)
    assert (after.estimator, after.replay, after.expectation) == ("pathwise", 0.2, MonteCarlo(12))
    assert before.expectation == MonteCarlo(256)
    assert ForwardKL().with_samples(3).expectation == MonteCarlo(3)


# Errors


def loss_of(divergence, model=true_target, guide=two_mode_learner, args=None):
    start, target = TwoMode.create(*LEARNER), TwoMode.create(*TARGET)
    return divergence.loss(jax.random.key(0), {}, model, guide, *((start, target) if args is None else args))


def test_the_score_estimator_needs_two_samples():
    with pytest.raises(InputError, match="at least 2; got 1"):
        ReverseKL(expectation=MonteCarlo(1))
    with pytest.raises(InputError, match="at least 2; got 1"):
        ReverseKL().with_samples(1)
    assert ReverseKL().with_samples(2).expectation == MonteCarlo(2)
    assert ForwardKL().with_samples(1).expectation == MonteCarlo(1)


@pytest.mark.parametrize(("replay", "least"), [(None, 2), (0.3, 3)])
def test_the_pathwise_estimator_needs_a_sample_for_every_mode(replay, least):
    with pytest.raises(InputError, match=f"each of {least} modes; got a batch of {least - 1}"):
        loss_of(ReverseKL("pathwise", replay, MonteCarlo(least - 1)))


def test_an_unknown_estimator_is_refused_and_the_known_ones_are_listed():
    with pytest.raises(InputError, match="estimator must be one of score, pathwise; got 'reinforce'"):
        ReverseKL(estimator="reinforce")


@pytest.mark.parametrize("number", [0, -3, 2.5, "many", None])
def test_a_batch_must_be_a_whole_number(number):
    with pytest.raises(InputError, match="num_samples must be"):
        MonteCarlo(number)


@pytest.mark.parametrize("replay", [1.0, 1.5, -0.1, float("nan")])
def test_a_replayed_share_outside_the_unit_interval_is_refused(replay):
    for constructor in (objectives.sft, objectives.reverse_kl):
        with pytest.raises(InputError, match="replay must"):
            constructor(replay=replay)


@pytest.mark.parametrize("replay", [1.0, 1.5, -0.1, float("nan")])
def test_a_divergence_refuses_such_a_share_too(replay):
    with pytest.raises(InputError, match="replay must"):
        ReverseKL(replay=replay)


def without_y(start, target):
    numpyro.sample("x", target.law())


def with_two_sites(start, target):
    numpyro.sample("y", target.law())
    numpyro.sample("temperature", dist.Normal(0.0, 1.0))


def without_any(start, target):
    pass


@pytest.mark.parametrize("program", [without_y, with_two_sites, without_any])
@pytest.mark.parametrize("divergence", [ForwardKL(), ReverseKL()], ids=["forward", "reverse"])
def test_a_program_with_other_sites_is_refused(program, divergence):
    with pytest.raises(InputError, match="must have the one sample site 'y'"):
        loss_of(divergence, model=program)
    with pytest.raises(InputError, match="must have the one sample site 'y'"):
        loss_of(divergence, guide=program)


def normal_learner(start, target):
    numpyro.sample("y", dist.MultivariateNormal(start.old_mean, jnp.eye(2)))


def test_what_needs_modes_says_so():
    with pytest.raises(InputError, match="pathwise estimator needs a learner whose law is a MixtureLaw"):
        loss_of(ReverseKL("pathwise"), guide=normal_learner)
    with pytest.raises(InputError, match="replay needs a learner whose law is a MixtureLaw"):
        loss_of(ReverseKL(replay=0.3), guide=normal_learner)

    def model():
        numpyro.sample("y", TwoMode.create(*TARGET).law())

    with pytest.raises(InputError, match="a TwoMode target as the model's last argument"):
        loss_of(ReverseKL(replay=0.3), model=model, guide=model, args=())
