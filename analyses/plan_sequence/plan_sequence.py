"""How much replay, anchor or KL weight keeps enough of every earlier task over a sequence?

By the exact flow of all stages, without a training.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from rich.console import RenderableType
from scipy.optimize import brentq
from tqdm.auto import tqdm

import mixture_models
from analyses.core import outputs, tables
from analyses.core.settings import setting, texts
from analyses.sequence.settings import SequenceSettings
from inference import results
from inference.exact.population import has_exact
from inference.exact.sequence import sequence_flow
from inference.progress import hidden
from inference.training.stages import stages_of
from mixture_models.objectives import Objective
from mixture_models.objectives.registry import arguments_of, changed
from mixture_models.validation import InputError, open_interval

results.register(
    hyperparameter=("hyperparameter that is planned", "1"),
    value_index=("place on the hyperparameter's curve", "1"),
    hyperparameter_value=("value of the hyperparameter", "1"),
    smallest_value=("smallest value that keeps the wanted share of every earlier task", "1"),
    kept_part=("part of an earlier task's performance after its own stage that is left, smallest", "1"),
    worst_task=("earlier task that is kept least", "1"),
)


class Turned(NamedTuple):
    """A hyperparameter that is planned: the arguments that it sets, and the values that are tried."""

    arguments: tuple[str, ...]
    values: tuple[float, ...]

    @property
    def name(self) -> str:
        """What it is called."""
        return " = ".join(self.arguments)


#: By the first argument that an objective's constructor takes.
TURNED = (
    Turned(("replay",), (0.0, 0.2, 0.4, 0.6, 0.8, 0.95)),
    Turned(("anchor",), (0.0, 0.05, 0.1, 0.3, 1.0)),
    Turned(("kl_weight",), (0.03, 0.1, 0.3, 1.0, 3.0)),
    Turned(("beta1", "beta2"), (0.5, 1.0, 2.0, 4.0)),
)

# Of a value that is found, relative to the interval in which it lies.
_ACCURACY = 1e-3

# Of the flow, far below this accuracy.
_RTOL, _ATOL = 1e-6, 1e-9


@dataclass(frozen=True, kw_only=True)
class Settings(SequenceSettings):
    """The settings of `run`: a sequence, and the share of every earlier task that is to be kept."""

    objectives: tuple[str, ...] = setting(
        texts,
        "Objectives and their arguments, as sdft:ema=0.1; the planned one is overwritten.",
        factory=lambda: tuple(mixture_models.objectives.registry),
        show="every registered one",
        argument=True,
    )

    keep: float = setting(
        open_interval, "Part of every earlier task's performance after its own stage that shall be left.", 0.5
    )


class _End(NamedTuple):
    """What a sequence ends with."""

    kept: float
    worst: str
    plasticity: float


def run(settings: Settings, *, progress: bool = True) -> xr.DataTree:
    """Follow every objective over values of its hyperparameter, and find the smallest that keeps enough.

    What is left of a task is R[S, k]/R[s_k, k], see `inference.results.sequence.forgetting_of`, so that what
    was not learnt cannot be lost. Of the values that are tried, those up to the largest that keeps enough
    count, without a gap; before the first of these the flow is followed until the crossing is known to 0.001
    of what lies between two values.

    Returns:
        DataTree with ``/plan`` over objective, and ``/curve`` over (objective, value_index). Where nothing
        can be planned, or no value keeps enough, values are NaN, and ``answer`` says why.
    """
    chosen, *_ = settings.sequences()
    size = max(len(turned.values) for turned in TURNED)
    rows, curves = [], []
    for objective in tqdm(chosen, desc="planned", unit="objective", disable=hidden(progress)):
        row, points = _planned(objective, settings)
        rows.append(row)
        curves.append(np.pad(points, ((0, 0), (0, size - points.shape[1])), constant_values=np.nan))
    frame = pd.DataFrame(rows)
    names = {"objective": [objective.name for objective in chosen]}
    plan = xr.Dataset({name: ("objective", frame[name].to_numpy()) for name in frame}, names)
    dims = ("objective", "value_index")
    curve = xr.Dataset(
        {
            name: (dims, np.stack([one[place] for one in curves]))
            for place, name in enumerate(("hyperparameter_value", "kept_part", "plasticity"))
        },
        names | {"value_index": np.arange(size)},
    )
    return outputs.result(settings.asdict(), {"plan": plan, "curve": curve})


def _planned(objective: Objective, settings: Settings) -> tuple[dict[str, object], np.ndarray]:
    """Return a row of the plan, and its curve: values, what is kept, and plasticity, shape (3, value)."""
    taken = arguments_of(objective)
    turned = next((one for one in TURNED if one.arguments[0] in taken), None)
    start, target = settings.mixtures()

    def end(value: float) -> _End:
        assert turned is not None
        other = changed(objective, **dict.fromkeys(turned.arguments, value))
        stages = stages_of(other, start, target, settings.new_tasks, num_steps=settings.num_steps)
        tree = sequence_flow(
            stages, start, learning_rate=settings.learning_rate, num_records=1, rtol=_RTOL, atol=_ATOL
        )
        own = tree["constant_data"].to_dataset()["own_stage"]
        performance = tree["stages"].to_dataset()["task_performance"].to_numpy()
        places = np.flatnonzero(own.to_numpy() < len(stages))
        learnt = performance[own.to_numpy()[places], places]
        with np.errstate(divide="ignore", invalid="ignore"):
            left = performance[-1, places] / learnt
        place = int(np.argmin(left))
        plasticity = float(tree["forgetting"].to_dataset()["plasticity"])
        return _End(float(left[place]), str(own["task"][places[place]].item()), plasticity)

    nothing = {
        "hyperparameter": "" if turned is None else turned.name,
        "smallest_value": np.nan,
        "kept_part": np.nan,
        "worst_task": "",
        "plasticity": np.nan,
    }
    stages = stages_of(objective, start, target, settings.new_tasks, num_steps=settings.num_steps)
    if turned is None or not all(has_exact(stage.objective, start, stage.target) for stage in stages):
        why = "it has no known hyperparameter" if turned is None else "it has no exact form"
        return nothing | {"answer": f"no plan: {why}"}, np.full((3, 1), np.nan)
    ends = []
    for value in turned.values:
        try:
            ends.append(end(value))
        except InputError:  # a flow that cannot be followed keeps nothing that is known
            ends.append(_End(np.nan, "", np.nan))
    values = np.array(turned.values)
    curve = np.stack([values, [one.kept for one in ends], [one.plasticity for one in ends]])
    kept = np.flatnonzero(curve[1] >= settings.keep)
    if not kept.size:
        best = tables.number(float(np.nanmax(curve[1]))) if np.isfinite(curve[1]).any() else tables.MISSING
        answer = f"none: {turned.name} from {values[0]:g} to {values[-1]:g} keeps {best} at most"
        return nothing | {"answer": answer}, curve
    value, found = _smallest(end, turned.values, ends, settings.keep)
    answer = f"{turned.name} {value:.3g}"
    if kept[-1] + 1 < len(values):
        answer += f"; not {values[kept[-1] + 1]:g}"
    elif value == values[0]:
        answer += " is enough"
    row = {
        "hyperparameter": turned.name,
        "smallest_value": value,
        "kept_part": found.kept,
        "worst_task": found.worst,
        "plasticity": found.plasticity,
        "answer": answer,
    }
    return row, curve


def _smallest(
    end: Callable[[float], _End], values: Sequence[float], ends: Sequence[_End], wanted: float
) -> tuple[float, _End]:
    """Return the first of the last values that keep enough without a gap, and what it ends with."""
    keeps = [one.kept >= wanted for one in ends]
    first = len(keeps) - 1 - keeps[::-1].index(True)
    while first and keeps[first - 1]:
        first -= 1
    if first == 0 or np.isnan(ends[first - 1].kept):
        return values[first], ends[first]
    low, high = values[first - 1], values[first]
    near = _ACCURACY * (high - low)
    root = brentq(lambda value: end(value).kept - wanted, low, high, xtol=near, rtol=1e-12)
    # On the side that keeps it.
    value = min(high, float(root) + near)
    return value, end(value)


def summary(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row an objective: the smallest value that keeps enough, and what it leads to."""
    return tree["plan"].to_dataset().to_dataframe()


def table(tree: xr.DataTree) -> RenderableType:
    """Return the plan as a table for the terminal."""
    wanted = float(tree.attrs["keep"])
    return tables.by_name(
        summary(tree),
        [
            ("smallest setting", "answer"),
            ("part kept", "kept_part"),
            ("task kept least", "worst_task", lambda row, name: str(row[name]) or tables.MISSING),
            ("plasticity", "plasticity"),
        ],
        title=f"The smallest setting that keeps {wanted:g} of every earlier task",
        caption=(
            "By the exact flow of all stages, which has no noise of batches. The part kept of a task: its "
            "last performance over that after its own stage, or at the start. Replay is the share of all "
            "earlier tasks together, in equal parts. Plasticity: the performance on a new task after its own "
            "stage: what keeps much may learn little."
        ),
    )
