"""A row of a plan: what is predicted of an objective, and the setting at which enough behaviour is kept."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq

from analyses.core import tables
from mixture_models import theory
from mixture_models.objectives.objective import Objective
from mixture_models.objectives.registry import given_to
from mixture_models.theory import predictions
from mixture_models.theory.paths import Path, Setting
from mixture_models.theory.predictions import Hyperparameter, Prediction
from mixture_models.validation import closed_interval

#: Values of a hyperparameter on its curve.
NUM_CURVE = 21

# Values between two of the curve, and then between two of these, where the wanted retention is looked for.
_NUM_REFINED = 8

# A curve begins at its hyperparameter's least value, and goes on from this share of its end to the end.
_FINEST = 2e-3

#: What is reported of a path's end and of its peak, in that order.
RANGED = ("final_old_weight", "final_retention", "peak_old_drift")

_NUMBERS = (
    "knob_setting",
    *(f"{name}{end}" for name in RANGED for end in ("", "_lower", "_upper")),
    "kept_share",
    "smallest_knob",
    "knob_crossing",
    "planned_old_weight",
    "planned_retention",
    "planned_peak_old_drift",
    "starvation",
    "starvation_largest",
    "starvation_ever",
    "effective_fraction",
)


#: Of a path, over time.
SHOWN = ("old_weight", "retention", "old_drift")


def times_of(setting: Setting) -> np.ndarray:
    """Return the times at which paths are shown."""
    return np.linspace(0.0, setting.end_time, 201)


def check_hyperparameter(objective: Objective, setting: Setting) -> None:
    """Refuse a given value of the hyperparameter beyond its end."""
    prediction = predictions.prediction(objective)
    if prediction is None or prediction.hyperparameter is None:
        return
    hyperparameter, given = prediction.hyperparameter, given_to(objective)
    if set(hyperparameter.name.split(" = ")) & set(given):
        at = f" at learning_rate {setting.learning_rate:g}" if _paced(hyperparameter, setting) else ""
        name = f"{hyperparameter.name} of {objective.name}{at}"
        closed_interval(name, prediction.value, hyperparameter.least, hyperparameter.largest(setting))


def _paced(hyperparameter: Hyperparameter, setting: Setting) -> bool:
    """Return whether a hyperparameter's end is where a step of this learning rate overshoots."""
    faster = setting._replace(learning_rate=2.0 * setting.learning_rate)
    return hyperparameter.largest(setting) != hyperparameter.largest(faster)


def row_of(
    objective: Objective, setting: Setting, size: int, wanted: float, corners: Sequence[Setting]
) -> tuple[dict[str, object], list[np.ndarray], list[np.ndarray]]:
    """Return a row of the plan, what is shown over time, and the ends' curves over the hyperparameter."""
    prediction = predictions.prediction(objective)
    if prediction is None:
        return _nothing(setting, "no prediction")
    if setting.num_steps > prediction.most_steps:
        return _nothing(setting, f"no prediction beyond {prediction.most_steps} steps")
    hyperparameter = prediction.hyperparameter
    if hyperparameter is not None and prediction.value > hyperparameter.largest(setting):
        rate, value = f"{setting.learning_rate:g}", f"{hyperparameter.name} {prediction.value:g}"
        return _nothing(setting, f"no prediction: steps of rate {rate} overshoot with {value}")
    path = prediction.follow(setting, [prediction.value])
    if not np.isfinite(path.old_drift).all():
        return _nothing(setting, f"no prediction: steps of rate {setting.learning_rate:g} diverge")
    return _predict(prediction, path, setting, size, wanted, corners)


def _nothing(setting: Setting, answer: str) -> tuple[dict[str, object], list[np.ndarray], list[np.ndarray]]:
    """Return the row of an objective without a prediction."""
    row: dict[str, object] = dict.fromkeys(_NUMBERS, np.nan) | {"knob": "", "answer": answer}
    return row, [np.full_like(times_of(setting), np.nan) for _ in SHOWN], [np.full(NUM_CURVE, np.nan)] * 3


def _predict(
    prediction: Prediction,
    path: Path,
    setting: Setting,
    size: int,
    wanted: float,
    corners: Sequence[Setting],
) -> tuple[dict[str, object], list[np.ndarray], list[np.ndarray]]:
    hyperparameter, nothing = prediction.hyperparameter, np.full(NUM_CURVE, np.nan)
    reported = _reported(path)[:, 0]
    end = reported[1]
    if hyperparameter is None:
        kept = end >= wanted
        answer = "none needed" if kept else f"none: no setting moves its end, {tables.number(end)}"
        turned = _Turned([nothing] * 3, np.nan, np.nan, answer, reported if kept else np.full(3, np.nan))
    else:
        turned = _turned(prediction.follow, hyperparameter, setting, wanted)
    starved = theory.starvation_probability(path.sampled_weight[0], size)
    with np.errstate(divide="ignore"):
        all_fed = np.trapezoid(np.log1p(-starved), path.time) / setting.learning_rate
    everywhere = np.stack(
        [reported, *(_reported(prediction.follow(c, [prediction.value]))[:, 0] for c in corners)]
    )
    row = {"knob": "" if hyperparameter is None else hyperparameter.name, "knob_setting": prediction.value}
    for name, values in zip(RANGED, everywhere.T, strict=True):
        row |= {name: values[0], f"{name}_lower": values.min(), f"{name}_upper": values.max()}
    row |= {
        "kept_share": end / setting.start_weight,
        "smallest_knob": turned.smallest,
        "knob_crossing": turned.crossing,
        "planned_old_weight": turned.planned[0],
        "planned_retention": turned.planned[1],
        "planned_peak_old_drift": turned.planned[2],
        "answer": turned.answer,
        "starvation": starved[0],
        "starvation_largest": starved.max(),
        "starvation_ever": -np.expm1(all_fed),
        "effective_fraction": path.effective_fraction[0].min(),
    }
    shown = [np.interp(times_of(setting), path.time, getattr(path, name)[0]) for name in SHOWN]
    return row, shown, turned.curve


def _reported(path: Path) -> np.ndarray:
    """Return final old weight, final retention and peak drift, shape (3, n)."""
    return np.stack([path.old_weight[:, -1], path.retention[:, -1], path.old_drift.max(axis=-1)])


def _values(hyperparameter: Hyperparameter, setting: Setting) -> np.ndarray:
    largest = hyperparameter.largest(setting)
    values = np.geomspace(max(hyperparameter.least, _FINEST * largest), largest, NUM_CURVE)
    return np.append(hyperparameter.least, values[1:])


class _Turned(NamedTuple):
    """What a hyperparameter does: values, final weights and retentions; the answer; what it leads to."""

    curve: list[np.ndarray]
    smallest: float
    crossing: float
    answer: str
    planned: np.ndarray


@lru_cache(maxsize=16)
def _turned(
    follow: Callable[..., Path], hyperparameter: Hyperparameter, setting: Setting, wanted: float
) -> _Turned:
    """Return the smallest value that keeps what is wanted, where the curve crosses it, and both in words.

    Of the values that keep it, those up to the largest without a gap count. Where all large values keep it,
    the smallest is where these begin, and the crossing. Else the crossing is where they end, and they may
    begin with the hyperparameter itself: where it pulls to less old behaviour, or the learner hardly learns.
    """
    values = _values(hyperparameter, setting)
    reported = _reported(follow(setting, values))
    curve, ends = [values, *reported[:2]], reported[1]
    kept = ends >= wanted
    if not kept.any():
        best = f"retains {tables.number(np.nanmax(ends))} at most" if np.isfinite(ends).any() else "diverges"
        answer = f"none: {hyperparameter.name} up to {values[-1]:.3g} {best}"
        return _Turned(curve, np.nan, np.nan, answer, np.full(3, np.nan))
    last = np.flatnonzero(kept)[-1]
    gaps = np.flatnonzero(~kept[:last])
    if gaps.size:
        smallest = _crossing(follow, setting, values[gaps[-1] :][:2], wanted)
        planned = _reported(follow(setting, [smallest]))[:, 0]
    else:
        smallest, planned = float(values[0]), reported[:, 0]
    answer = f"{hyperparameter.name} {_shortened(smallest, up=True)}"
    if last < values.size - 1:
        crossing = _crossing(follow, setting, values[last:][:2], wanted)
        answer = f"{answer}; not above {_shortened(crossing, up=False)}"
    elif gaps.size:
        crossing = smallest
    else:
        crossing, answer = np.nan, f"{answer} is enough"
    return _Turned(curve, smallest, crossing, answer, planned)


def _crossing(follow: Callable[..., Path], setting: Setting, between: np.ndarray, wanted: float) -> float:
    """Return where the final retention is the wanted one, between two values of which one keeps it."""
    for _ in range(2):
        fine = np.linspace(between[0], between[1], _NUM_REFINED)
        above = follow(setting, fine).retention[:, -1] - wanted
        change = np.flatnonzero((above[1:] >= 0.0) != (above[:-1] >= 0.0))[-1]
        between, ends = fine[change : change + 2], above[change : change + 2]
    if not np.isfinite(above).all():
        return float(between[np.argmax(ends >= 0.0)])
    return float(brentq(CubicSpline(fine, above), between[0], between[1], xtol=1e-14))


def _shortened(value: float, *, up: bool) -> str:
    """Return a value with three digits, rounded to the side that keeps what is wanted."""
    if value == 0.0:
        return "0"
    unit = 10.0 ** (np.floor(np.log10(abs(value))) - 2.0)
    return f"{unit * (np.ceil if up else np.floor)(value / unit * (1.0 - 1e-12 if up else 1.0 + 1e-12)):.3g}"
