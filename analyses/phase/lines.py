"""The two lines of theory in the phase diagram: starvation, and misassignment at the start."""

from collections.abc import Sequence

import jax
import numpy as np
import xarray as xr
from scipy.optimize import brentq

from analyses.core import tables
from inference import results
from mixture_models import objectives, theory
from mixture_models.metrics import retention
from mixture_models.mixture.two_mode import TwoMode
from mixture_models.objectives import Objective
from mixture_models.objectives.registry import arguments_of, changed
from mixture_models.theory.paths import Setting
from mixture_models.theory.predictions import Prediction, prediction
from mixture_models.validation import InputError

results.register(
    knob=("setting that is turned to keep old behaviour", "1"),
    starvation=("probability of a batch without an old sample", "1"),
    misassignment=("misassignment at the start", "1"),
)

#: What is swept.
OBJECTIVES = ("sft", "reverse_kl", "sdft")

#: At the lines: probability of a batch without an old sample, and of an old one claimed by the new mode.
STARVED, CLAIMED = 0.5, 0.1


def hyperparameter_of(objective: Objective) -> str:
    """Return the hyperparameter that is mapped: the replayed share, else what moves the end."""
    moves = _course(objective).hyperparameter
    return "replay" if moves is None or "replay" in arguments_of(objective) else moves.name


def turned(name: str, value: float) -> Objective:
    """Return an objective at a value of its hyperparameter."""
    objective = objectives.parse(name)
    return changed(objective, **{hyperparameter_of(objective): float(value)})


def _course(objective: Objective) -> Prediction:
    found = prediction(objective)
    if found is None:
        raise InputError(f"phase needs an objective whose course theory predicts; got {objective.name}")
    return found


def theory_of(
    apart: np.ndarray, sizes: Sequence[int], shares: np.ndarray, beta: float, gap: float
) -> xr.Dataset:
    """Return starvation and misassignment at the start."""
    none_drawn = np.array([[_none_drawn(turned(n, share), beta) for share in shares] for n in OBJECTIVES])
    starvation = none_drawn[:, None] ** np.array(sizes)[:, None]
    return xr.Dataset(
        {
            "starvation": (("objective", "batch_size", "knob"), starvation),
            "misassignment": ("separation", theory.misassignment(beta, apart - gap)),
        },
        {"objective": list(OBJECTIVES), "batch_size": list(sizes), "knob": shares, "separation": apart},
    )


def _none_drawn(objective: Objective, beta: float) -> float:
    """Return the probability that a batch's sample is no old one at the start, where the learner is at β."""
    course = _course(objective)
    # A step on; of the first batch nothing but β matters.
    path = course.follow(Setting(4.0, 0.5, beta, num_steps=1, learning_rate=0.1), [course.value])
    return float(theory.starvation_probability(path.sampled_weight[0, 0], 1))


def starved_below(objective: Objective, beta: float) -> float:
    """Return the batch size below which half of the batches hold no old sample; infinite where all do."""
    none = _none_drawn(objective, beta)
    return np.inf if none == 1.0 else float(np.log(STARVED) / np.log(none))


def overlapping_below(beta: float, gap: float) -> float:
    """Return the separation below which the new mode claims a tenth of the old samples at the start."""
    return gap + float(brentq(lambda d: theory.misassignment(beta, d) - CLAIMED, 1e-6, 50.0))


def start_retention(tree: xr.DataTree) -> np.ndarray:
    """Return the retention at the start at every separation: a new mode that starts off also acts old."""
    alpha, beta, gap = (tree.attrs[name] for name in ("old_weight", "start_old_weight", "start_new_gap"))
    found = []
    with jax.enable_x64(True):
        for apart in tree["final"]["separation"].to_numpy():
            target = TwoMode.on_axis(alpha, apart)
            found.append(float(retention(target.displaced(beta, new_gap=gap).law(), target)))
    return np.array(found)


def started(tree: xr.DataTree) -> str:
    """Say where the learners start."""
    left = start_retention(tree)
    words = tables.number(left[0])
    if left.size > 1:
        words = f"{words} to {tables.number(left[-1])} from the smallest to the largest separation"
    return (
        f"old weight {tree.attrs['start_old_weight']:g}, the new mean {tree.attrs['start_new_gap']:g} off "
        f"toward the old one: retention {words}"
    )
