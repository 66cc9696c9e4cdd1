"""A row of a plan: what is predicted of an objective, and the smallest setting that keeps enough."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.optimize import brentq

from analyses import tables
from mixture_models import theory
from mixture_models.objective import Objective
from mixture_models.prediction import Knob, Prediction
from mixture_models.theory.paths import Setting
from mixture_models.validation import closed_interval

#: Values of a knob on its curve.
NUM_CURVE = 11

# Values in the refinement of the smallest that keeps enough.
_NUM_REFINED = 8

# A knob's curve begins at its least value, from where on it goes from this share of its end to the end.
_FINEST = 2e-3

_NUMBERS = (
    "knob_setting",
    "final_old_weight",
    "final_old_weight_lower",
    "final_old_weight_upper",
    "kept_share",
    "peak_old_drift",
    "peak_old_drift_lower",
    "peak_old_drift_upper",
    "smallest_knob",
    "knob_crossing",
    "starvation",
    "starvation_largest",
    "starvation_ever",
    "effective_fraction",
)


def times_of(setting: Setting) -> np.ndarray:
    """Return the times at which paths are shown."""
    return np.linspace(0.0, setting.end_time, 201)


def check_knob(objective: Objective, setting: Setting) -> None:
    """Refuse a value of the knob beyond its end."""
    prediction = objective.prediction
    if prediction is not None and prediction.knob is not None:
        name, knob = f"{prediction.knob.name} of {objective.name}", prediction.knob
        closed_interval(name, prediction.value, knob.least, knob.largest(setting))


def row_of(
    objective: Objective, setting: Setting, size: int, wanted: float, corners: Sequence[Setting]
) -> tuple[dict[str, Any], list[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return a row of the plan, weight and drift over time, and the end's curve over the knob."""
    prediction = objective.prediction
    if prediction is None or setting.num_steps > prediction.most_steps:
        answer = (
            "no prediction" if prediction is None else f"no prediction beyond {prediction.most_steps} steps"
        )
        nothing = dict.fromkeys(_NUMBERS, np.nan) | {"knob": "", "answer": answer}
        empty = np.full(NUM_CURVE, np.nan)
        return nothing, 2 * [np.full_like(times_of(setting), np.nan)], (empty, empty)
    return _predict(prediction, setting, size, wanted, corners)


def _predict(
    prediction: Prediction, setting: Setting, size: int, wanted: float, corners: Sequence[Setting]
) -> tuple[dict[str, Any], list[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    knob, empty = prediction.knob, np.full(NUM_CURVE, np.nan)
    knobs = empty if knob is None else _values(knob, setting)
    path = prediction.follow(setting, [prediction.value] if knob is None else [prediction.value, *knobs])
    end = path.old_weight[0, -1]
    if knob is None:
        ends, kept = empty, end >= wanted
        smallest, crossing = np.nan, np.nan
        answer = "none needed" if kept else f"none: no setting moves its end, {tables.number(end)}"
    else:
        ends = path.old_weight[1:, -1]
        smallest, crossing, answer = _smallest(prediction, knob, setting, knobs, ends, wanted)
    starved = theory.starvation_probability(path.sampled_weight[0], size)
    with np.errstate(divide="ignore"):
        all_fed = np.trapezoid(np.log1p(-starved), path.time) / setting.learning_rate
    at_corners = [prediction.follow(corner, [prediction.value]) for corner in corners]
    final = [end, *(corner.old_weight[0, -1] for corner in at_corners)]
    peak = [path.old_drift[0].max(), *(corner.old_drift[0].max() for corner in at_corners)]
    row = {
        "knob": "" if knob is None else knob.name,
        "knob_setting": prediction.value,
        "final_old_weight": end,
        "final_old_weight_lower": min(final),
        "final_old_weight_upper": max(final),
        "kept_share": end / setting.start_weight,
        "peak_old_drift": peak[0],
        "peak_old_drift_lower": min(peak),
        "peak_old_drift_upper": max(peak),
        "smallest_knob": smallest,
        "knob_crossing": crossing,
        "answer": answer,
        "starvation": starved[0],
        "starvation_largest": starved.max(),
        "starvation_ever": -np.expm1(all_fed),
        "effective_fraction": path.effective_fraction[0].min(),
    }
    shown = [np.interp(times_of(setting), path.time, y[0]) for y in (path.old_weight, path.old_drift)]
    return row, shown, (knobs, ends)


def _values(knob: Knob, setting: Setting) -> np.ndarray:
    largest = knob.largest(setting)
    values = np.geomspace(max(knob.least, _FINEST * largest), largest, NUM_CURVE)
    return np.append(knob.least, values[1:])


def _smallest(
    prediction: Prediction, knob: Knob, setting: Setting, knobs: np.ndarray, ends: np.ndarray, wanted: float
) -> tuple[float, float, str]:
    """Return the smallest value that keeps what is wanted, where the curve crosses it, and both in words.

    Where all large values keep it, the smallest is the last crossing. Where only small ones do, which is
    where the knob pulls to a lower weight or the learner hardly learns, it is the end of the knob, and the
    crossing is the first.
    """
    kept = ends >= wanted
    if kept.all():
        return float(knobs[0]), np.nan, f"{knob.name} {knobs[0]:.3g} is enough"
    if not kept[-1] and not kept[0]:
        return np.nan, np.nan, f"none: {knob.name} up to {knobs[-1]:.3g} ends at {ends.max():.3g} at most"
    changes = np.flatnonzero(kept[1:] != kept[:-1])
    place = changes[-1] if kept[-1] else changes[0]
    fine = np.linspace(knobs[place], knobs[place + 1], _NUM_REFINED)
    above = PchipInterpolator(fine, prediction.follow(setting, fine).old_weight[:, -1] - wanted)
    crossing = float(brentq(above, fine[0], fine[-1], xtol=1e-14))
    if kept[-1]:
        return crossing, crossing, f"{knob.name} {crossing:.3g}"
    return float(knobs[0]), crossing, f"{knob.name} {knobs[0]:.3g}; not above {crossing:.3g}"
