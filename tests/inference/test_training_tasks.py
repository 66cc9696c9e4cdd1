"""Training of several named tasks: the mean gradient of batches is the population's, two are two modes."""

import jax
import numpy as np
import optax
import pytest
from numpyro.infer import SVI

from inference import population, results, train
from mixture_models import InputError, Mixture, TwoMode, objectives, rewards

MEANS = {"math": [0.0, 0.2], "code": [2.5, 1.0], "chat": [-1.0, 2.5]}
TARGET = Mixture.create(MEANS, {"math": 0.4, "code": 0.35, "chat": 0.25}, [[1.0, 0.3], [0.3, 0.8]])
START = TARGET.replace(
    weights={"math": 0.5, "code": 0.3, "chat": 0.2}, means={"code": [2.0, 1.4], "chat": [-0.4, 1.8]}
)
EARNED = rewards.task_reward({"chat": 1.0, "code": 0.3})
RATE = 0.01


def of_one_step(objective, batch_size, num_replicates):
    """Return the mean gradient by the scaled logits and means of one step, and its standard errors."""
    tree = train(
        objective,
        START,
        TARGET,
        num_steps=1,
        batch_size=batch_size,
        learning_rate=RATE,
        num_replicates=num_replicates,
        seed=4,
        progress=False,
    )
    data = tree["trajectory"].to_dataset().isel(objective=0, chain=0)
    moved = [(data[name][:, 1] - data[name][:, 0]).to_numpy() for name in ("task_logit", "task_mean")]
    # φ moves by half of its derivative.
    parts = [-2.0 * moved[0] / RATE, -moved[1].reshape(num_replicates, -1) / RATE]
    drawn = np.concatenate(parts, axis=1)
    return drawn.mean(axis=0), drawn.std(axis=0, ddof=1) / np.sqrt(num_replicates)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "batch_size"),
    [
        pytest.param(
            objectives.sft(task="chat", replay={"math": 0.2, "code": 0.1}), 64, marks=pytest.mark.slow
        ),
        (objectives.reverse_kl(replay={"math": 0.15, "chat": 0.25}), 64),
        pytest.param(objectives.sft(task="chat"), 64, marks=pytest.mark.slow),
        pytest.param(objectives.reverse_kl(tasks=("math", "code")), 64, marks=pytest.mark.slow),
        pytest.param(
            objectives.reverse_kl(replay={"code": 0.2}, estimator="pathwise"), 64, marks=pytest.mark.slow
        ),
        # Biased by a share of one over the batch.
        pytest.param(objectives.ttt_discover(reward=EARNED, kl_weight=0.3), 4096, marks=pytest.mark.slow),
        pytest.param(objectives.oapl(reward=EARNED), 4096, marks=pytest.mark.slow),
    ],
    ids=lambda value: value.name if hasattr(value, "name") else "",
)
def test_the_mean_gradient_of_batches_is_the_populations(objective, batch_size):
    """A replayed sample that is not weighted, or a share of another task, is off by 0.1, many errors."""
    exact = population(objective, START, TARGET).gradient
    wanted = np.concatenate([exact.logits, np.ravel(exact.means)])
    mean, error = of_one_step(objective, batch_size, 1024 if batch_size == 64 else 96)
    assert error.max() < 0.03
    assert np.max(np.abs(wanted)) > 20.0 * error.max()
    np.testing.assert_array_less(np.abs(mean - wanted), 5.0 * error + 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda two: objectives.reverse_kl(replay=0.2 if two else {"old": 0.2}),
        pytest.param(lambda two: objectives.sft(**({} if two else {"task": "new"})), marks=pytest.mark.slow),
        pytest.param(lambda two: objectives.sft(replay=0.3 if two else {"old": 0.3}), marks=pytest.mark.slow),
        pytest.param(
            lambda two: objectives.oapl(
                reward=rewards.mode_reward(0.1, 1.0) if two else rewards.task_reward({"old": 0.1, "new": 1.0})
            ),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["reverse_kl", "sft", "sft with replay", "oapl"],
)
def test_two_named_tasks_train_as_two_modes(make):
    """Sample by sample: without halved updates the logit would move twice as fast."""
    two = TwoMode.create(0.5, [0.0, 0.0], [2.5, 0.5])
    start = two.replace(old_weight=0.8, new_mean=[2.0, 1.0])
    named, named_start = (
        Mixture.create(
            {"old": m.old_mean, "new": m.new_mean}, {"old": m.old_weight, "new": 1.0 - m.old_weight}
        )
        for m in (two, start)
    )
    settings = dict(
        num_steps=25,
        batch_size=32,
        learning_rate=0.2,
        num_replicates=3,
        seed=2,
        record_every=5,
        progress=False,
    )
    wanted = train(make(True), start, two, **settings)["trajectory"].to_dataset()
    found = train(make(False), named_start, named, **settings)["trajectory"].to_dataset()
    np.testing.assert_allclose(found["weight"][..., 0], wanted["old_weight"], rtol=1e-9)
    np.testing.assert_allclose(found["task_mean"][..., 1, :], wanted["new_mean"], atol=1e-9)
    np.testing.assert_allclose(found["task_drift"][..., 0], wanted["old_drift"], atol=1e-8)
    np.testing.assert_allclose(found["task_retention"][..., 0], wanted["retention"], atol=2e-7)
    np.testing.assert_allclose(found["task_coverage"][..., 0], wanted["old_coverage"], atol=1e-9)
    np.testing.assert_allclose(found["loss"], wanted["loss"], rtol=1e-7, atol=1e-9)


def test_plain_numpyro_trains_an_objective_of_tasks():
    sft = objectives.sft(task="chat", replay={"math": 0.3, "code": 0.3})
    with jax.enable_x64(True):
        svi = SVI(sft.model, sft.guide, optax.sgd(0.1), sft.loss)
        params = svi.run(jax.random.key(0), 200, START, TARGET, progress_bar=False).params
        weights = np.asarray(START.at(params).weights)
    assert set(params) == {"scaled_logits", "task_mean"}
    np.testing.assert_allclose(weights, [0.3, 0.3, 0.4], atol=0.1)


@pytest.mark.slow
def test_a_result_keeps_the_tasks_and_both_mixtures():
    tree = train(
        objectives.reverse_kl(),
        START,
        TARGET,
        num_steps=2,
        batch_size=8,
        learning_rate=0.1,
        num_replicates=2,
        seed=0,
        progress=False,
    )
    assert tree["final"]["weight"].dims == ("objective", "chain", "draw", "task")
    assert tree["final"]["task_mean"].dims == ("objective", "chain", "draw", "task", "feature")
    assert list(tree["final"]["task"].to_numpy()) == ["math", "code", "chat"]
    assert results.task_mixture(tree, "start") == START
    assert results.task_mixture(tree, "target") == TARGET


@pytest.mark.parametrize(
    ("objective", "start", "message"),
    [
        (objectives.sft(), START, "task must be one of math, code, chat; got 'new'"),
        (objectives.sft(task="art"), START, "task must be one of math, code, chat; got 'art'"),
        (objectives.reverse_kl(replay=0.2), START, "replay must map names of tasks to shares"),
        (objectives.reverse_kl(replay={"art": 0.2}), START, "must be one of math, code, chat; got 'art'"),
        (objectives.oapl(), START, "mode_reward must have a target of the tasks old and new"),
        (
            objectives.ttt_discover(reward=rewards.task_reward({"art": 1.0})),
            START,
            "task must be one of math, code, chat; got 'art'",
        ),
        (
            objectives.reverse_kl(),
            Mixture.create({"math": [0.0, 0.0], "code": [1.0, 0.0]}),
            "start must have the target's tasks math, code, chat",
        ),
        (
            objectives.reverse_kl(),
            Mixture.create({k: 0.0 for k in MEANS}),
            "must have one dimension; got 1 and 2",
        ),
    ],
)
def test_what_is_not_there_is_refused_in_one_sentence(objective, start, message):
    with pytest.raises(InputError, match=message):
        train(
            objective,
            start,
            TARGET,
            num_steps=2,
            batch_size=8,
            learning_rate=0.1,
            num_replicates=2,
            seed=0,
            progress=False,
        )
