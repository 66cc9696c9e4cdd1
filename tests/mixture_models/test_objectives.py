"""The registry of objectives: names, parsing, and what every entry offers."""

import inspect

import jax
import numpy as np
import optax
import pytest
from jax.tree_util import Partial
from marks import mostly_slow
from numpyro.infer import SVI

from inference import population_descent, train
from inference.engine.programs import program_of
from mixture_models import (
    ForwardKL,
    InputError,
    Objective,
    ReverseKL,
    SingleModeLearner,
    TwoMode,
    TwoModeLearner,
    learners,
    objectives,
    rewards,
    single_mode_learner,
    two_mode_learner,
)
from mixture_models.losses.entropic import EntropicUtility
from mixture_models.losses.jensen_shannon import JensenShannon, OnPolicyForwardKL
from mixture_models.losses.sampling import NotStated
from mixture_models.objectives import new_data, parse, register, registry
from mixture_models.objectives.companions import Lagged

# The shapes of `training_runs`: in one session the two share their programs.
TARGET = TwoMode.create(old_weight=0.5, old_mean=0.0, new_mean=3.0)
START = TARGET.replace(old_weight=0.9, new_mean=2.0)


# Names


@pytest.mark.parametrize(
    ("built", "name"),
    [
        (lambda: objectives.sft(), "sft"),
        (lambda: objectives.sft(replay=0.0), "sft"),
        (lambda: objectives.sft(replay=0), "sft"),
        (lambda: objectives.sft(0.2), "sft:replay=0.2"),
        (lambda: objectives.sft(replay=np.float64(0.2)), "sft:replay=0.2"),
        (lambda: objectives.sft(learner="single_mode"), "sft:learner=single_mode"),
        (lambda: objectives.reverse_kl(), "reverse_kl"),
        (lambda: objectives.reverse_kl(estimator="score"), "reverse_kl"),
        (
            lambda: objectives.reverse_kl(estimator="pathwise", replay=0.2),
            "reverse_kl:replay=0.2,estimator=pathwise",
        ),
        (lambda: objectives.sdft(), "sdft"),
        (lambda: objectives.sdft(0.1, 0.05, "reverse"), "sdft"),
        (lambda: objectives.sdft(anchor=0, divergence=0.5), "sdft:anchor=0,divergence=0.5"),
        (
            lambda: objectives.sdft(demonstrations=TwoMode.create(0.01, [0.0, 0.5], [4.0, 0.0])),
            "sdft:demonstrations=TwoMode(0.01,[0,0.5],[4,0])",
        ),
        (lambda: objectives.ttt_discover(reward=rewards.mode_reward()), "ttt_discover"),
        (
            lambda: objectives.ttt_discover(kl_weight=0.0, eta="adaptive"),
            "ttt_discover:kl_weight=0.0,eta=adaptive",
        ),
        (
            lambda: objectives.ttt_discover(reward=rewards.mode_reward(0, 2.5)),
            "ttt_discover:reward=mode_reward(0.0,2.5)",
        ),
        (lambda: objectives.oapl(lag=7, beta1=2, beta2=2), "oapl:beta1=2,beta2=2,lag=7"),
        (lambda: objectives.oapl("log_ratio_reward"), "oapl:reward=log_ratio_reward"),
        (lambda: objectives.oapl(rewards.linear_reward(0.5)), "oapl:reward=linear_reward(0.5)"),
    ],
)
def test_an_objective_is_named_after_what_differs_from_the_defaults(built, name):
    assert built().name == name
    assert parse(built().name).name == name


# Parsing


def test_a_users_own_reward_gives_its_name():
    def brevity(y):
        return -abs(y[:, 0])

    assert objectives.oapl(reward=brevity, lag=10).name == "oapl:reward=brevity,lag=10"


def test_parse_builds_rewards_and_demonstrations():
    tilted = parse("ttt_discover:reward=mode_reward(old=-1,new=2),eta=3,kl_weight=0")
    assert jax.tree.leaves(tilted.loss) == [-1.0, 2.0, 0.0, 3.0]
    assert isinstance(parse("ttt_discover:eta=adaptive,kl_budget=0.5").loss, EntropicUtility)
    assert parse("oapl:reward=log_ratio_reward()").loss.reward == rewards.log_ratio_reward()
    assert parse("oapl:lag=7").companion == Lagged(7)
    shown = parse("sdft:anchor=0.2,demonstrations=TwoMode(0.25,[0,1],[4,0]),ema=0.5").companion
    assert (shown.anchor, shown.ema) == (0.2, 0.5)
    assert shown.demonstrations == TwoMode.create(0.25, [0.0, 1.0], [4.0, 0.0])
    assert isinstance(parse("sdft:divergence=0.25").loss, JensenShannon)
    assert isinstance(parse("sdft:divergence=forward").loss, OnPolicyForwardKL)


def test_parse_builds_what_the_constructors_build():
    assert isinstance(parse("sft").loss, ForwardKL)
    assert jax.tree.leaves(parse("sft").model) == []
    assert jax.tree.leaves(parse("sft:replay=0.25").model) == [0.25]
    reverse = parse("reverse_kl:replay=0.25,estimator=pathwise")
    assert isinstance(reverse.loss, ReverseKL)
    assert (reverse.loss.replay, reverse.loss.estimator) == (0.25, "pathwise")
    assert parse("reverse_kl").loss.replay is None
    assert parse("sft:learner=single_mode").guide is single_mode_learner
    assert parse("sft").guide is two_mode_learner


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (" sft ", "sft"),
        ("sft:", "sft"),
        ("sft: replay = 0.2 ", "sft:replay=0.2"),
        ("reverse_kl: estimator=pathwise , replay=0.2,", "reverse_kl:replay=0.2,estimator=pathwise"),
        ("sft:replay=2e-1", "sft:replay=0.2"),
    ],
)
def test_parse_forgives_spaces_and_order(text, name):
    assert parse(text).name.replace(" ", "") in (name, "reverse_kl:estimator=pathwise,replay=0.2")


KNOWN = {
    "an unknown objective": ("dpo", f"objective must be one of {', '.join(objectives.registry)}; got 'dpo'"),
    "another case": ("SFT", "objective must be one of sft, reverse_kl"),
    "nothing": ("", "objective must be one of sft, reverse_kl"),
    "an unknown reward": ("oapl:reward=best(1)", "a call must be one of mode_reward, log_ratio_reward"),
    "a reward without its number": ("oapl:reward=linear_reward(1,2)", "a call with arguments that it takes"),
    "a call of a name": ("oapl:reward=mode_reward(old,new)", "reward must be one of mode_reward"),
    "an open bracket": ("oapl:reward=mode_reward(0,1", "brackets must be closed"),
    "demonstrations of no weight": ("sdft:demonstrations=TwoMode(2,0,4)", "old_weight must lie in (0, 1)"),
    "an unknown argument": (
        "sft:temperature=1",
        "the argument of sft must be one of replay, learner, task; got 'temp",
    ),
    "another objective's argument": (
        "sft:estimator=score",
        "must be one of replay, learner, task; got 'estimator'",
    ),
    "no value": ("sft:replay", "must be written replay=VALUE; got 'replay'"),
    "only a value": ("sft:0.2", "the argument of sft must be one of replay, learner, task; got '0.2'"),
    "replay of 1": ("sft:replay=1", "replay must lie in [0, 1); got 1"),
    "negative replay": ("reverse_kl:replay=-0.1", "replay must lie in [0, 1); got -0.1"),
    "nan": ("sft:replay=nan", "replay must be a number; got 'nan'"),
    "text": ("sft:replay=some", "replay must be a number; got 'some'"),
    "empty": ("sft:replay=", "replay must be a number; got ''"),
    "an unknown estimator": (
        "reverse_kl:estimator=best",
        "estimator must be one of score, pathwise; got 'best'",
    ),
    "an unknown learner": (
        "sft:learner=big",
        f"learner must be one of {', '.join(learners._BY_NAME)}; got 'big'",
    ),
    "an argument given twice": ("sft:replay=0.1,replay=0.2", "replay"),
}


def test_what_is_registered_can_be_called():
    for name, constructor in objectives.registry.items():
        assert getattr(objectives, name) is constructor
        assert name in objectives.__all__


@pytest.mark.parametrize("case", KNOWN)
def test_parse_refuses_in_one_sentence_that_lists_what_is_known(case):
    text, message = KNOWN[case]
    with pytest.raises(InputError) as caught:
        parse(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# Every entry


@pytest.mark.parametrize("name", registry)
def test_every_entry_states_its_parts(name):
    objective = registry[name]()
    assert isinstance(objective, Objective)
    assert objective.name == name
    assert callable(objective.model)
    assert callable(objective.guide)
    assert objective.description
    assert objective.loss.direction not in ("", NotStated.words)
    assert objective.sampling.words not in ("", NotStated.words)
    assert objective.companion is None or objective.companion.name
    assert registry[name].__doc__
    assert all(p.default is not p.empty for p in inspect.signature(registry[name]).parameters.values())
    parts = objective.model, objective.guide, objective.loss, objective.companion
    hash(jax.tree.structure(parts))
    hash(program_of(parts).static)


@pytest.mark.parametrize("name", registry)
def test_every_entry_takes_a_learner(name):
    for learner, expected in (("two_mode", TwoModeLearner), ("single_mode", SingleModeLearner)):
        assert isinstance(registry[name](learner=learner).guide, expected)
    own = TwoModeLearner(train_scales=True)
    assert registry[name](learner=own).guide is own


@pytest.mark.slow
@pytest.mark.parametrize("name", registry)
@pytest.mark.parametrize(
    "learner", ["two_mode", "single_mode", TwoModeLearner(train_scales=True)], ids=["two", "one", "scales"]
)
def test_every_entry_trains_every_learner(name, learner):
    # Off the target, where a single mode is its own SDFT teacher and has nothing to learn.
    tree = train(
        registry[name](learner=learner),
        START.replace(old_mean=0.3),
        TARGET,
        num_steps=12,
        batch_size=8,
        learning_rate=0.05,
        num_replicates=6,
        seed=0,
        progress=False,
    )
    assert np.all(tree["trajectory_stats"]["diverged_step"] == -1)
    losses = tree["trajectory"]["loss"].isel(objective=0, chain=0).to_numpy()
    assert np.all(np.isfinite(losses))
    assert np.all(losses[:, 6] != losses[:, 7])


def test_adding_an_objective_is_one_entry():
    before = dict(registry)

    try:

        @register
        def dummy(strength: float = 0.5, learner: str = "two_mode") -> Objective:
            """Forward KL from a mixture of the two modes."""
            return Objective(
                "another name",
                Partial(new_data, float(strength)),
                two_mode_learner,
                ForwardKL(),
                "old and new",
            )

        assert parse("dummy").name == "dummy"
        chosen = parse("dummy:strength=0.2")
        assert chosen.name == "dummy:strength=0.2"
        with pytest.raises(InputError, match=r"must be one of sft, reverse_kl, .*, dummy; got 'dumy'"):
            parse("dumy")
        tree = train(
            chosen, START, TARGET, num_steps=2, batch_size=8, learning_rate=0.1, num_replicates=6, seed=0
        )
        assert tree["final"]["objective"].item() == "dummy:strength=0.2"
        assert tree["final"]["objective_model"].item() == "old and new"
        assert tree["final"]["direction"].item() == "forward"
    finally:
        registry.pop("dummy", None)
    assert dict(registry) == before


def test_the_models_are_the_stated_laws():
    from numpyro import handlers

    def weight_of(model):
        law = handlers.trace(handlers.seed(model, 0)).get_trace(START, TARGET)["y"]["fn"]
        return np.exp(np.asarray(law.log_weights)), np.asarray(law.means)

    weights, means = weight_of(objectives.sft(replay=0.3).model)
    np.testing.assert_allclose(weights, [0.3, 0.7], rtol=1e-6)
    np.testing.assert_array_equal(means, [[0.0], [3.0]])
    weights, means = weight_of(objectives.sft().model)
    np.testing.assert_array_equal(weights, [1.0])
    np.testing.assert_array_equal(means, [[3.0]])
    weights, means = weight_of(objectives.reverse_kl(replay=0.3).model)
    np.testing.assert_allclose(weights, [0.5, 0.5], rtol=1e-6)
    np.testing.assert_array_equal(means, [[0.0], [3.0]])


# NumPyro alone


@pytest.mark.parametrize("name", mostly_slow(sorted(registry), "sft", "oapl"))
def test_numpyro_alone_trains_toward_the_same_law_or_refuses(name):
    """On the exact loss, so that there is no noise: the steps of SVI are those of the exact descent."""
    objective = parse(name)
    steps, rate = 3, 0.05
    with jax.enable_x64(True):
        divergence = objective.loss.exact()
        svi = SVI(objective.model, objective.guide, optax.sgd(rate), divergence)
        moves = objective.companion is not None and objective.companion.paced
        if moves:
            with pytest.raises(InputError, match=r"must be given the companion's params as companion="):
                svi.run(jax.random.key(0), steps, START, TARGET, progress_bar=False)
            return
        found = svi.run(jax.random.key(0), steps, START, TARGET, progress_bar=False).params
    exact = population_descent(objective, START, TARGET, num_steps=steps, learning_rate=rate)["population"]
    for site in ("old_logit", "old_mean", "new_mean"):
        np.testing.assert_allclose(np.ravel(found[site]), np.ravel(exact[site][0, -1]), atol=1e-7)
