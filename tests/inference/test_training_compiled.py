"""Trainings compile once, and what shares a program does not share its numbers."""

import numpy as np
from jax.tree_util import Partial
from numpyro.infer import Trace_ELBO
from training_runs import START, TARGET, run, variables

from mixture_models import ForwardKL, Objective, objectives, two_mode_learner
from mixture_models.objectives import new_data

TRACES = []


def counting():
    """Return a model of its own that counts how often Python runs it."""

    def model(replay, start, target):
        TRACES.append(replay)
        new_data(replay, start, target)

    return model


COUNTED = counting()


def counted(replay, name="counted", model=COUNTED):
    return Objective(name, Partial(model, replay), two_mode_learner, ForwardKL(), "counted")


def test_a_second_call_compiles_nothing(compilations):
    TRACES.clear()
    assert any("_advance" in message for message in compilations(lambda: run(counted(0.2))))
    assert len(TRACES) > 0
    TRACES.clear()
    other = TARGET.replace(old_weight=0.5, new_mean=3.5)
    again = compilations(
        lambda: run(
            [counted(0.2), counted(0.35, "other replay")],
            START.replace(old_weight=0.6),
            other,
            seed=7,
            learning_rate=0.05,
            num_steps=19,
            common_random_numbers=False,
        ),
    )
    assert again == []
    # The variables that an objective records are read off from shapes: one trace, and none of the training.
    assert len(TRACES) <= 2


def test_numpyros_own_elbos_are_compiled_once_too(compilations):
    objective = Objective("numpyro", objectives.reverse_kl().model, two_mode_learner, Trace_ELBO())
    run(objective, num_steps=2)
    assert compilations(lambda: run(objective, num_steps=2)) == []


def test_objectives_that_share_a_program_give_other_results():
    tree = run([counted(0.2, "a"), counted(0.8, "b")])
    assert np.all(variables(tree, 0)["loss"][:, 0] != variables(tree, 1)["loss"][:, 0])


def test_the_number_of_traces_does_not_grow_with_the_steps():
    # A trace for the names, for the first state, for the state's structure and for the loss in the scan.
    TRACES.clear()
    run(counted(0.2, model=counting()), num_steps=60)
    assert 0 < len(TRACES) <= 6
