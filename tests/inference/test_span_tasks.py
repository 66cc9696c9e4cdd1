"""Several named tasks in the span of the means: coefficients, the law beside it, and that of trainings."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import two_samples
from scipy import stats
from span_bugs import BUGS, planted
from test_span import drawn_of, held_noise

from inference import sequence_flow, stages_of, train, train_sequence
from mixture_models import InputError, Mixture, TwoMode, objectives, rewards
from mixture_models.losses.loss import law_of
from mixture_models.mixture.shifted_law import ShiftedLaw
from mixture_models.objectives import parse

NAMES = ("chat", "math", "code")
VARIANCE, DIM, BATCH = 0.7, 8, 6
EARNED = rewards.task_reward({"code": 1.0, "math": 0.3})
CHOSEN = [
    objectives.sft(task="code", replay={"chat": 0.2, "math": 0.1}),
    objectives.reverse_kl(replay={"math": 0.3}, estimator="pathwise"),
    objectives.reverse_kl(tasks=("chat", "code")),
    objectives.sdft(ema=0.5),
    objectives.ttt_discover(reward=EARNED),
    objectives.oapl(reward=EARNED, lag=2),
]


def walk(*quick):
    """Return every objective as a parameter of a test, all but some of them in the slow tests."""
    return [
        pytest.param(o, id=o.name, marks=() if i in quick else pytest.mark.slow) for i, o in enumerate(CHOSEN)
    ]


def mixtures(dim=DIM):
    """Return a start and a target of three tasks whose means span four dimensions, turned."""
    points = np.zeros((5, dim))
    points[:, :4] = [
        [0.1, 0, 0, 0],
        [2, 0, 0, 0],
        [0.3, 1.9, 0, 0],
        [1.5, -0.2, 0.5, 0],
        [0.3, 1.2, 0.1, 0.4],
    ]
    means = points @ np.linalg.qr(np.random.default_rng(7).normal(size=(dim, dim)))[0]
    target = Mixture.create(
        dict(zip(NAMES, means[:3], strict=True)), {"chat": 0.4, "math": 0.3, "code": 0.3}, VARIANCE
    )
    weights = {"chat": 0.6, "math": 0.2, "code": 0.2}
    return target.replace(weights=weights, means={"math": means[3], "code": means[4]}), target


@pytest.mark.parametrize("objective", walk(1))
def test_coefficients_are_what_brute_force_finds(objective, monkeypatch):
    """By linearity: the gradient beside the span for the noise of one sample alone, one by one."""
    held = held_noise(monkeypatch)
    rng = np.random.default_rng(1)
    # Of learner and companion: nothing lies in the last coordinate.
    learner_means, companion_means = rng.normal(size=(2, 3, 7)) * [1, 1, 1, 1, 0.5, 0.5, 0]
    target = Mixture.create(
        dict(zip(NAMES, np.eye(3, 7) * 2.0, strict=True)), {"chat": 0.4, "math": 0.3, "code": 0.3}, VARIANCE
    )
    with jax.enable_x64(True):
        logits = jnp.asarray([0.4, -0.3, -0.1])
        learner = {"scaled_logits": logits, "task_mean": jnp.asarray(learner_means)}
        companion = {"scaled_logits": -logits, "task_mean": jnp.asarray(companion_means)}
        extra = {"companion": companion} if objective.companion else {}
        law = law_of(objective.model, {}, target, target, **extra)
        divergence = objective.loss.with_samples(BATCH)
        z = jnp.asarray(rng.normal(size=(BATCH, 7)))

        def loss(params, shifts, beside):
            held["z"] = z.at[:, -1].set(beside)
            q = law_of(objective.guide, params, target, target)
            q = q if shifts is None else ShiftedLaw(q, shifts)
            return divergence.between(jax.random.key(3), law, q, (target, target))

        gradient = jax.grad(loss)
        noise = jnp.asarray(rng.normal(size=BATCH))
        # Nothing beside the span, one sample's noise alone, and all noise.
        each = jnp.stack([jnp.zeros(BATCH), *jnp.eye(BATCH), noise])
        found = jax.jit(jax.vmap(lambda beside: gradient(learner, None, beside)["task_mean"]))(each)
        c = jax.jit(jax.grad(loss, argnums=1))(learner, jnp.zeros((3, BATCH)), noise)
    (none, *alone, together), c = np.asarray(found), np.asarray(c)
    one_by_one = np.stack(alone, axis=-1)[:, -1]
    assert np.abs(one_by_one).max() > 1e-3
    assert np.abs(none[:, -1]).max() < 1e-13
    # In the span nothing depends on what is beside it; beside it the gradient is linear in it.
    assert np.allclose(together[:, :-1], none[:, :-1], rtol=0, atol=1e-12)
    assert np.allclose(together[:, -1], one_by_one @ np.asarray(noise), rtol=0, atol=1e-12)
    assert np.allclose(c / np.sqrt(VARIANCE), one_by_one, rtol=0, atol=1e-12)


C = np.random.default_rng(2).normal(size=(3, 5)) + 0.5


def compared(c, directions, more=0):
    """Compare the factors of what is drawn, in some directions more, with Bartlett's for the coefficients C.

    Returns the least p value of an entry, and the largest |z| of a product of two, which are independent.
    """
    lower = np.linalg.cholesky(C @ C.T)
    factors = np.linalg.solve(lower, drawn_of(c, directions + more))
    assert np.allclose(np.triu(factors, 1), 0.0, atol=1e-10)
    ps = []
    for i in range(3):
        for j in range(min(i, directions)):
            ps.append(stats.kstest(factors[:, i, j], stats.norm.cdf).pvalue)
        if i < directions:
            ps.append(stats.kstest(factors[:, i, i] ** 2, stats.chi2(directions - i).cdf).pvalue)
        assert not factors[:, i, directions:].any() or np.abs(factors[:, i, directions:]).max() < 1e-10
    entries = [factors[:, i, j] for i in range(3) for j in range(min(i, directions))]
    z = [(a * b).mean() / (a * b).std() * len(a) ** 0.5 for k, a in enumerate(entries) for b in entries[:k]]
    return min(ps), max(np.abs(z))


@pytest.mark.parametrize("directions", [1, 2, 3, 37])
def test_three_vectors_beside_the_span_are_wishart(directions):
    p, z = compared(C, directions)
    assert p > 1e-3
    assert z < 5.0
    if directions > 2:
        lost = np.pad(np.linalg.cholesky(np.diag(np.diag(C @ C.T))), ((0, 0), (0, 2)))
        assert compared(lost, directions)[0] < 1e-12
        assert compared(C, directions, more=1)[0] < 1e-12


@pytest.mark.parametrize("c", [np.ones((3, 5)), np.eye(3, 5) * [[1], [0], [1]], np.zeros((3, 5))])
def test_coefficients_that_depend_on_each_other(c):
    """No NaN, and second moments within five standard errors."""
    w = (vectors := drawn_of(c, 4)) @ vectors.swapaxes(1, 2)
    error = w.std(axis=0) / np.sqrt(len(w))
    assert np.all(np.abs(w.mean(axis=0) - 4 * c @ c.T) <= 5 * error + 1e-12)


@pytest.mark.slow
def test_two_named_tasks_are_two_modes():
    """The same random numbers, to rounding, in 20 dimensions."""
    target = TwoMode.create(0.4, [0.0, 0.1], [2.0, 0.3], covariance=VARIANCE)
    start = target.replace(old_weight=0.7, new_mean=[1.5, -0.2])
    both = [
        Mixture.create(
            {"old": m.old_mean, "new": m.new_mean},
            {"old": float(m.old_weight), "new": 1.0 - float(m.old_weight)},
            VARIANCE,
        )
        for m in (start, target)
    ]
    settings = dict(num_steps=5, batch_size=8, learning_rate=0.2, num_replicates=3, seed=4, progress=False)
    chosen = objectives.sft(task="new", replay={"old": 0.2})
    two = train(chosen, start, target, dimension=20, **settings)["trajectory"]
    named = train(chosen, *both, dimension=20, **settings)["trajectory"]
    for name, of_two in (
        ("weight", "old_weight"),
        ("task_drift", "old_drift"),
        ("task_retention", "retention"),
    ):
        np.testing.assert_allclose(named[name][..., 0], two[of_two], rtol=0, atol=1e-7, err_msg=name)
    np.testing.assert_allclose(named["task_drift"][..., 1], two["new_gap"], rtol=0, atol=1e-10)
    assert np.ptp(named["task_drift"][..., -1, 1].to_numpy()) > 1e-3


def ends(objective, seed, replicates, dim=DIM, num_steps=4, learning_rate=0.4, **extra):
    """Return what a training of three tasks records at its end; of shares that sum to 1 all but the last."""
    tree = train(
        objective,
        *mixtures(dim),
        num_steps=num_steps,
        batch_size=BATCH,
        learning_rate=learning_rate,
        num_replicates=replicates,
        seed=seed,
        record_every=num_steps,
        progress=False,
        **extra,
    )
    final = tree["final"].to_dataset().isel(objective=0, chain=0)
    found = [final["task_drift"], final["loss"]]
    found += [final[name][:, :-1] for name in ("task_logit", "task_retention")]
    found = np.concatenate([values.to_numpy().reshape(replicates, -1) for values in found], axis=1)
    stayed = np.isfinite(found).all(axis=1)
    assert stayed.mean() > 0.995
    return found[stayed]


@pytest.mark.slow
@pytest.mark.parametrize("objective", walk())
def test_the_law_is_that_of_the_training_in_all_coordinates(objective):
    """Means, variances, covariances within five standard errors, and KS tests of variables and of pairs."""
    z, p = two_samples.compared(ends(objective, 1, 4_000), ends(objective, 2, 4_000, dimension=DIM))
    assert z < 5.0
    assert p > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS)
def test_the_comparison_sees_bugs(bug, monkeypatch):
    """Its power: covariances of the three gradients that are lost, or two directions too many.

    Steps are as large as the whole way, in 40 dimensions: what lies beside the span is then most of a step.
    """
    with planted(bug, 2.0, monkeypatch):
        large = {"learning_rate": 1.5, "num_steps": 2, "dim": 40}
        everywhere = ends(CHOSEN[0], 1, 8_000, **large)
        z, p = two_samples.compared(everywhere, ends(CHOSEN[0], 2, 8_000, dimension=40, **large))
    if bug == "none":
        assert z < 5.0
        assert p > 1e-4
    else:
        assert max(z / 6.0, np.log(p) / np.log(1e-8)) > 1.0


# Sequences


def sequence(text, seed, replicates, num_steps=2, **extra):
    start, target = mixtures()
    stages = stages_of(parse(text), start, target, NAMES[1:], num_steps=num_steps)
    settings = dict(batch_size=BATCH, learning_rate=0.5, record_every=num_steps, progress=False)
    return train_sequence(stages, start, num_replicates=replicates, seed=seed, **(settings | extra))


@pytest.mark.slow
@pytest.mark.parametrize("text", ["sft:replay=0.2", "oapl:lag=1"])
def test_the_law_of_a_sequence_in_the_span(text):
    """After both stages; where a stage took the first one's coordinates for its own, drifts would be off."""

    def of(**changes):
        stages = sequence(text, replicates=4_000, **changes)["stages"].to_dataset().isel(chain=0)
        after = [stages.isel(stage=s) for s in (1, 2)]
        found = [data["task_drift"] for data in after] + [data["weight"][:, :-1] for data in after]
        return np.concatenate([values.to_numpy() for values in found], axis=1)

    z, p = two_samples.compared(of(seed=1), of(seed=2, dimension=DIM))
    assert z < 5.0
    assert p > 1e-4


@pytest.mark.slow
def test_a_sequence_in_the_span_records_what_does_not_depend_on_coordinates():
    tree = sequence("sft:replay=0.2", 0, 3, dimension=1_000)
    start, target = mixtures()
    assert set(tree["stages"].data_vars) == {
        "weight", "task_logit", "task_retention", "task_coverage", "task_drift", "task_performance",
    }  # fmt: skip
    at_start = tree["stages"].to_dataset().isel(chain=0, draw=0, stage=0)
    np.testing.assert_allclose(at_start["weight"], start.weights, rtol=1e-12)
    # Drifts are from the stage's target, in which code is still where it is at the start.
    apart = np.linalg.norm(start.means - target.means, axis=1) / np.sqrt(VARIANCE)
    np.testing.assert_allclose(at_start["task_drift"], apart * [1, 1, 0], atol=1e-12)
    assert tree.attrs["dimension"] == 1_000
    assert np.isfinite(tree["forgetting"]["plasticity"]).all()


@pytest.mark.slow
def test_the_flow_of_a_sequence_does_not_know_the_dimension():
    """Three tasks on a line, as they are and turned in eight dimensions: exact flows agree to 1e-10."""
    direction = np.random.default_rng(3).normal(size=DIM)
    direction /= np.linalg.norm(direction)
    line = Mixture.create({"chat": [0.0], "math": [3.0], "code": [-4.0]}, covariance=VARIANCE)
    begin = line.replace(
        means={"math": [2.2], "code": [-3.5]}, weights=dict(zip(NAMES, (0.8, 0.1, 0.1), strict=True))
    )
    found = []
    for turn in (np.ones(1), direction):
        start, target = (m.moved(list(m.means * turn), m.scale) for m in (begin, line))
        stages = stages_of(objectives.reverse_kl(), start, target, NAMES[1:], num_steps=20)
        found.append(sequence_flow(stages, start, learning_rate=0.1, num_records=3, rtol=1e-11, atol=1e-13))
    for name in ("weight", "task_retention", "task_drift"):
        one, many = (tree["stages"][name].to_numpy() for tree in found)
        np.testing.assert_allclose(many, one, rtol=0, atol=1e-10, err_msg=name)
        assert np.abs(np.diff(one, axis=0)).max() > 1e-3


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"covariance": [1.0] * 7 + [2.0]}, "one covariance, a multiple of the identity; got another"),
        ({"dimension": 7}, "dimension must be at least 8; got 7"),
        ({"optimizer": optax.adam(0.1)}, "optimizer must be None for dimension to be given"),
    ],
)
def test_what_has_no_such_form_is_refused(change, sentence):
    start, target = mixtures()
    if "covariance" in change:
        start, target = (m.replace(covariance=change["covariance"]) for m in (start, target))
    extra = {"dimension": 9} | {name: value for name, value in change.items() if name != "covariance"}
    stages = stages_of(objectives.sft(), start, target, NAMES[1:], num_steps=1)
    settings = dict(batch_size=4, learning_rate=0.1, num_replicates=1, seed=0, progress=False)
    with pytest.raises(InputError, match=sentence):
        train_sequence(stages, start, **settings, **extra)
    with pytest.raises(InputError, match=sentence):
        train(stages[0].objective, start, target, num_steps=1, **settings, **extra)
