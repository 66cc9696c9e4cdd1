"""Bad input of a training is refused in one sentence, before anything is compiled."""

import numpyro
import numpyro.distributions as dist
import pytest
from training_runs import TARGET, run

from mixture_models import InputError, TwoMode, objectives

REFUSED = {
    "no objective": ({"chosen": []}, "at least one Objective"),
    "two of one name": ({"chosen": [objectives.sft(), objectives.sft()]}, "different names; got sft"),
    "a name": ({"chosen": "sft"}, "at least one Objective"),
    "a list of names": (
        {"chosen": ["sft"]},
        "at least one Objective, see mixture_models.objectives; got str",
    ),
    "no steps": ({"num_steps": 0}, "num_steps must be at least 1; got 0"),
    "negative steps": ({"num_steps": -5}, "num_steps must be at least 1; got -5"),
    "half a step": ({"num_steps": 1.5}, "num_steps must be a whole number; got 1.5"),
    "steps in words": ({"num_steps": "many"}, "num_steps must be a whole number"),
    "no batch": ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
    "rate zero": ({"learning_rate": 0.0}, "learning_rate must be greater than 0; got 0"),
    "rate negative": ({"learning_rate": -0.1}, "learning_rate must be greater than 0; got -0.1"),
    "rate nan": ({"learning_rate": float("nan")}, "learning_rate must be finite"),
    "rate infinite": ({"learning_rate": float("inf")}, "learning_rate must be finite"),
    "no replicates": ({"num_replicates": 0}, "num_replicates must be at least 1"),
    "negative seed": ({"seed": -1}, "seed must be at least 0; got -1"),
    "half a seed": ({"seed": 0.5}, "seed must be a whole number"),
    "too large a seed": ({"seed": 2**70}, "seed must be at most"),
    "no recording": ({"record_every": 0}, "record_every must be at least 1"),
    "a start that is no mixture": ({"start": [0.0]}, "start must be a TwoMode or a Mixture; got list"),
    "a target that is no mixture": ({"target": None}, "target must be a TwoMode or a Mixture; got NoneType"),
    "two dimensions": (
        {"start": TwoMode.create(0.5, [0.0, 0.0], [1.0, 1.0])},
        "must have one dimension; got 2 and 1",
    ),
    "target modes that coincide": (
        {"target": TARGET.replace(new_mean=0.0)},
        "modes must differ; got separation 0",
    ),
    "a batch of 1 for a score": ({"chosen": objectives.reverse_kl(), "batch_size": 1}, "at least 2; got 1"),
    "a batch of 1 for strata": (
        {"chosen": objectives.reverse_kl(estimator="pathwise"), "batch_size": 1},
        "each of 2 modes; got a batch of 1",
    ),
    "an unknown parameter": (
        {"learning_rate_factors": {"weight": 0.0}},
        "must name params of the learner (new_mean, old_logit, old_mean); got weight",
    ),
    "a negative factor": (
        {"learning_rate_factors": {"old_mean": -1.0}},
        "must not be negative; got -1 for old_mean",
    ),
    "a factor of nan": ({"learning_rate_factors": {"old_mean": float("nan")}}, "must be finite"),
    "a factor in words": ({"learning_rate_factors": {"old_mean": "half"}}, "must be a number; got 'half'"),
    "factors of a vector": ({"learning_rate_factors": {"old_mean": [0.0, 1.0]}}, "learning_rate_factors"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_sentence(case):
    changes, message = REFUSED[case]
    with pytest.raises(InputError) as caught:
        run(**changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_guide_that_says_nothing_of_its_state_is_refused():
    def guide(start, target):
        numpyro.sample("y", dist.Normal(numpyro.param("m", 0.0), 1.0).expand([1]).to_event(1))

    with pytest.raises(InputError, match="with a method metrics"):
        run(objectives.sft(learner=guide))


def test_bad_input_is_refused_at_once(compilations):
    """Before anything is compiled, of a size that no other training here has."""

    def refused():
        with pytest.raises(InputError, match="learning_rate must be greater than 0"):
            run(batch_size=7, num_replicates=5, learning_rate=-1.0)

    assert compilations(refused) == []
