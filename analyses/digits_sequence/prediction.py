"""The mixture's course through the same stages: its modes where the references are, its clock by one task.

A mixture moves in time, a network in steps of another optimizer. So every objective has one number that is
fitted, the time a step: by the counted weight of the first task that is taught, in its own stage. All the
rest of the course is predicted: how the other tasks share what is left, and the later stages.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize_scalar
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from analyses.digits.choices import Choice
from analyses.digits_sequence.objectives import of_mixture
from analyses.digits_sequence.settings import Settings
from inference.exact.sequence import sequence_flow
from mixture_models.mixture.mixture import Mixture, TaskMixture

# Powers of ten between which the time a step is sought, and how closely.
_PACES, _CLOSE = (-3.0, 0.5), 0.05

# Records of a stage.
_NUM_RECORDS = 20

# Tolerances: what networks are held against needs no more digits.
_RTOL, _ATOL = 1e-6, 1e-9


def fitted(references: Mapping[str, Float[np.ndarray, "n feature"]], weights: Sequence[float]) -> TaskMixture:
    """Return the mixture whose modes lie as the references do, in the span of their discriminants.

    Args:
        references: features of every task by its name.
        weights: of the tasks.
    """
    rows, labels = (
        np.concatenate(list(references.values())),
        np.repeat(np.arange(len(references)), [len(one) for one in references.values()]),
    )
    # Within the tasks the covariance is the identity there, on average.
    plane = LinearDiscriminantAnalysis(solver="svd").fit_transform(rows, labels)
    means = {name: plane[labels == k].mean(axis=0) for k, name in enumerate(references)}
    total = sum(weights)
    mixture = Mixture.create(means, {name: w / total for name, w in zip(means, weights, strict=True)})
    assert isinstance(mixture, TaskMixture)
    return mixture


def course_of(
    settings: Settings,
    choice: Choice,
    start: TaskMixture,
    counted: Float[np.ndarray, "step"],
    demonstrations: Sequence[TaskMixture],
) -> dict[str, np.ndarray]:
    """Return the course of an objective, at the pace by which the first taught task's weight is nearest.

    Args:
        settings: of the run.
        choice: what is trained.
        start: the mixture before the first stage.
        counted: the counted weight of that task at the steps of its stage.
        demonstrations: the mixture at the end of every stage of what demonstrates.

    Returns:
        ``pace``, the time a step; ``steps`` of the records over all stages; ``shares`` of behaviour that
        looks like each task there, shape (step, task); and ``task_logit`` and ``task_mean`` of the mixture
        at the start and at the end of every stage, see `mixtures_of`.

    Raises:
        InputError: a flow that cannot be followed.
    """
    first, last = settings.taught[0], settings.steps[-1]

    def missed(log_pace: float) -> float:
        steps, shares, _ = _stage(settings, choice, first, start, start, demonstrations[1], 10.0**log_pace)
        at = np.interp(settings.steps, steps, shares[:, start.index(first)])
        return float(np.sum((at - counted) ** 2))

    found = minimize_scalar(missed, bounds=_PACES, method="bounded", options={"xatol": _CLOSE})
    pace, mixture = 10.0 ** float(found.x), start
    all_steps, all_shares, ends = [np.zeros(1)], [np.asarray(start.weights)[None]], [start]
    for number, task in enumerate(settings.taught):
        shown = demonstrations[number + 1]
        steps, shares, mixture = _stage(settings, choice, task, mixture, start, shown, pace)
        all_steps.append(steps[1:] + number * last)
        all_shares.append(shares[1:])
        ends.append(mixture)
    return {
        "pace": np.array(pace),
        "steps": np.concatenate(all_steps),
        "shares": np.concatenate(all_shares),
        "task_logit": np.stack([np.asarray(one.logits) for one in ends]),
        "task_mean": np.stack([np.asarray(one.means) for one in ends]),
    }


def mixtures_of(course: Mapping[str, np.ndarray], start: TaskMixture) -> list[TaskMixture]:
    """Return the mixtures of a course at the start and at the end of every stage."""
    return [
        start.recorded({"task_logit": logits, "task_mean": means})
        for logits, means in zip(course["task_logit"], course["task_mean"], strict=True)
    ]


def _stage(
    settings: Settings,
    choice: Choice,
    task: str,
    begins: TaskMixture,
    right: TaskMixture,
    demonstrations: TaskMixture,
    pace: float,
) -> tuple[np.ndarray, np.ndarray, TaskMixture]:
    """Return the records of one stage, steps and shares, and the mixture at its end."""
    stage = of_mixture(settings, choice, task, begins, right, demonstrations)
    tree = sequence_flow(
        [stage], begins, learning_rate=pace, num_records=_NUM_RECORDS, rtol=_RTOL, atol=_ATOL
    )
    population = tree["population"].to_dataset()
    last = population.isel(time=-1)
    ends = begins.recorded({str(variable): last[variable].to_numpy() for variable in last.data_vars})
    return population["time"].to_numpy() / pace, population["task_retention"].to_numpy(), ends
