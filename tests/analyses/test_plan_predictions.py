"""What a plan predicts and refuses: gaps of rewards, what no theory covers, entries of the registry."""

import numpy as np
import pytest
from ink import colours
from plan_oracles import planned

from analyses import plan
from analyses.core import outputs
from mixture_models import Hyperparameter, InputError, Objective, Prediction, objectives
from mixture_models.objectives.registry import given_to
from mixture_models.theory import predictions, weight_paths
from mixture_models.theory.paths import Setting
from mixture_models.theory.predictions import prediction


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
    inside = colours(tmp_path / "plan")
    assert all(inside)
    # A curve for each objective, but those that hide each other.
    assert len(inside[0]) >= 3
