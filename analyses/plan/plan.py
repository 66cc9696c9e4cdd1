"""What will each objective leave of old behaviour, and how much replay, anchor or KL weight does it need?

Without a training, in seconds: the exact descent of an objective's own `Prediction` from right means, which
are free to move, and what batches of a finite size miss. ``check`` trains and compares. This module and what
it imports load quickly; drawing and training are imported where they are asked for.
"""

import textwrap
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from analyses.core import outputs, tables
from analyses.core.settings import BaseSettings, seed_setting, setting, texts
from analyses.plan.rows import NUM_CURVE, RANGED, SHOWN, check_hyperparameter, row_of, times_of
from analyses.plan.samples import (
    corners_of,
    estimated_words,
    estimates,
    in_reach,
    told_apart,
)
from inference import results
from inference.intervals import interval_percent
from inference.measurement.separation import EstimatedSetting, estimate_setting
from mixture_models import objectives
from mixture_models.theory.paths import Setting
from mixture_models.validation import InputError, flag, integer, number, open_interval, path_of, positive

results.register(
    knob=("setting that is turned to keep old behaviour", "1"),
    starvation=("probability of a batch without an old sample", "1"),
    effective_fraction=("effective sample fraction, 1/E[w²]", "1"),
    kept_share=("final retention over that at the start", "1"),
    knob_setting=("value of the hyperparameter that is planned with", "1"),
    knob_value=("value of the hyperparameter", "1"),
    knob_index=("place on the hyperparameter's curve", "1"),
    smallest_knob=("smallest value of the hyperparameter that keeps the wanted retention", "1"),
    knob_crossing=("value of the hyperparameter at which the final retention is the wanted one", "1"),
    planned_old_weight=("final old weight at the smallest value of the hyperparameter", "1"),
    planned_retention=("final retention at the smallest value of the hyperparameter", "1"),
    planned_peak_old_drift=("peak old drift at the smallest value of the hyperparameter", "Mahalanobis"),
    answer=("what keeps the wanted retention", "1"),
    final_old_weight=("old weight after the last step", "1"),
    final_old_weight_lower=("final old weight, lowest over what was estimated", "1"),
    final_old_weight_upper=("final old weight, highest over what was estimated", "1"),
    final_retention=("retention of old behaviour after the last step", "1"),
    final_retention_lower=("final retention, lowest over what was estimated", "1"),
    final_retention_upper=("final retention, highest over what was estimated", "1"),
    peak_old_drift_lower=("peak old drift, lowest over what was estimated", "Mahalanobis"),
    peak_old_drift_upper=("peak old drift, highest over what was estimated", "Mahalanobis"),
    separation_interval=("interval of the separation", "Mahalanobis"),
    plug_in_separation=("separation of the samples, with their noise", "Mahalanobis"),
    start_old_weight=("old weight at the start", "1"),
    start_old_weight_interval=("interval of the old weight at the start", "1"),
    covariance=("covariance within the tasks, pooled", "feature squared"),
    spread_ratio=("new task's spread over the old one's, along their axis", "1"),
    starvation_largest=("largest probability on the path of a batch without an old sample", "1"),
    starvation_ever=("probability of at least one batch without an old sample", "1"),
)

# Of the plan, where they are neither given nor estimated.
_SEPARATION, _START_OLD_WEIGHT = 4.0, 0.7


def estimate(
    old_samples: object, new_samples: object, learner_samples: object = None, drop_missing: bool = False
) -> EstimatedSetting | None:
    """Return what samples say of the setting, see `inference.estimate_setting`, or None without any.

    Raises:
        InputError: samples of one task only, or samples that cannot be used.
    """
    given = [source is not None for source in (old_samples, new_samples, learner_samples)]
    if not any(given):
        return None
    if not all(given[:2]):
        raise InputError("a plan from samples needs those of the old and of the new task; got one of them")
    return estimate_setting(old_samples, new_samples, learner_samples, drop_missing=drop_missing)


@dataclass(frozen=True, kw_only=True)
class Settings(BaseSettings):
    """The settings of `run`; the learner's means are taken as right, so that its weight is its retention."""

    objectives: tuple[str, ...] = setting(
        texts,
        "Objectives and their arguments, as sdft:anchor=0.2.",
        (),
        show="every registered one and its variants",
        argument=True,
    )
    separation: float | None = setting(
        in_reach,
        "Distance of the modes [Mahalanobis]; or samples of both.",
        None,
        show="4.0",
    )
    old_weight: float = setting(open_interval, "Target's mass of the old mode.", 0.5)
    start_old_weight: float | None = setting(
        open_interval, "Old weight now; or samples of the learner.", None, show="0.7"
    )
    old_samples: Path | None = setting(
        path_of, "Samples of the old task, to estimate the separation from.", None
    )
    new_samples: Path | None = setting(path_of, "Samples of the new task.", None)
    learner_samples: Path | None = setting(
        path_of, "Samples of the learner now, to estimate its old weight from.", None
    )
    drop_missing: bool = setting(flag, "Leave out rows that are not finite.", False)
    num_steps: int = setting(integer, "Updates of the training.", 500)
    batch_size: int = setting(partial(integer, at_least=2), "Samples seen in an update.", 64)
    learning_rate: float = setting(positive, "Learning rate of plain SGD.", 0.05)
    keep: float = setting(number, "Share of the old behaviour now that shall be left.", 0.9)
    check: bool = setting(flag, "Also train and compare; takes a minute.", False)
    seed: int = seed_setting("Seed of the trainings.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.objectives)) < len(self.objectives):
            raise InputError(f"objectives must have different names; got {', '.join(self.objectives)}")


def run(settings: Settings) -> xr.DataTree:
    """Predict what every objective leaves, and the smallest value that keeps enough old behaviour.

    Where samples are given, their separation and, where there are any of the learner, its old weight are
    planned with, and predictions get a range over its intervals.

    Returns:
        DataTree with ``/plan`` over objective, ``/path`` over (objective, time), ``/curve`` over (objective,
        knob_index), ``/estimated`` where estimated and ``/simulated`` where checked. An objective without a
        prediction has NaN.

    Raises:
        InputError: more is to be kept than there is, samples whose tasks cannot be told apart, or a value
            beside the samples that it would be estimated from.
    """
    separation, start_old_weight = settings.separation, settings.start_old_weight
    estimated = estimate(
        settings.old_samples, settings.new_samples, settings.learner_samples, settings.drop_missing
    )
    if estimated is not None:
        if separation is not None:
            raise InputError(
                f"separation must be given or estimated from samples, not both; got {separation}"
            )
        separation = told_apart(estimated)
        if estimated.old_weight is not None:
            if start_old_weight is not None:
                raise InputError(
                    "start_old_weight must be given or estimated from the learner's samples, not both; got "
                    f"{start_old_weight}"
                )
            start_old_weight = estimated.old_weight.value
    separation = _SEPARATION if separation is None else separation
    start_old_weight = _START_OLD_WEIGHT if start_old_weight is None else start_old_weight
    setting = Setting(
        in_reach("separation", separation),
        settings.old_weight,
        open_interval("start_old_weight", start_old_weight),
        settings.num_steps,
        settings.learning_rate,
    )
    size, keep = settings.batch_size, settings.keep
    wanted = open_interval("keep", keep, 0.0, 1.0 / setting.start_weight) * setting.start_weight
    chosen = settings.objectives or tuple(objectives.by_default())
    planned = [objectives.parse(each) for each in chosen]
    for objective in planned:
        check_hyperparameter(objective, setting)
    corners = corners_of(estimated, setting)
    rows, paths, curves = zip(*(row_of(o, setting, size, wanted, corners) for o in planned), strict=True)
    names = {"objective": [objective.name for objective in planned]}
    plan = xr.Dataset({key: ("objective", [row[key] for row in rows]) for key in rows[0]}, names)
    if estimated is None:
        plan = plan.drop_vars([f"{name}_{end}" for name in RANGED for end in ("lower", "upper")])
    path = xr.Dataset(
        {
            field: (("objective", "time"), np.stack([path[i] for path in paths]))
            for i, field in enumerate(SHOWN)
        },
        names | {"time": times_of(setting)},
    )
    curve = xr.Dataset(
        {
            field: (("objective", "knob_index"), np.stack([c[i] for c in curves]))
            for i, field in enumerate(("knob_value", "final_old_weight", "final_retention"))
        },
        names | {"knob_index": np.arange(NUM_CURVE)},
    )
    planned_with = {
        "objectives": list(chosen),
        "separation": setting.separation,
        "start_old_weight": setting.start_weight,
    }
    groups = {"plan": plan, "path": path, "curve": curve}
    if estimated is not None:
        groups["estimated"] = estimates(estimated)
    if settings.check:
        from analyses.plan.check import simulate

        groups["simulated"] = simulate(planned, setting, size, settings.seed)
    tree = outputs.result(settings.asdict() | planned_with, groups)
    if estimated is not None:
        tree.attrs["estimated"] = estimated_words(estimated)
    return tree


def summary(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row an objective: prediction, the smallest value in words, batches, and any check."""
    plan = tree["plan"].to_dataset()
    columns = {name: plan[name] for name in ("objective", *plan.data_vars)}
    if "simulated" in tree:
        for name, values in tree["simulated"].to_dataset().data_vars.items():
            columns |= tables.interval_columns(f"simulated_{name}", values)
    return tables.frame_of(columns)


def table(tree: xr.DataTree) -> tables.Table:
    """Return the summary as a table for the terminal."""
    frame, settings = summary(tree), tree.attrs
    wanted = settings["keep"] * settings["start_old_weight"]
    checked = (
        f" Trained: mean and {interval_percent()} interval over {tree['simulated'].sizes['draw']} replicates."
        if "simulated" in tree
        else ""
    )
    return tables.listed(
        frame,
        [
            ("objective", "objective"),
            ("final\nold weight", "final_old_weight", tables.with_trained("simulated_old_weight")),
            ("final\nretention", "final_retention", tables.with_trained("simulated_retention")),
            ("peak\ndrift", "peak_old_drift", tables.with_trained("simulated_peak_old_drift")),
            (f"smallest that\nretains {wanted:.3g}", "answer", _answer),
            ("starved\nbatch", "starvation_largest", _starved),
            ("eff.", "effective_fraction"),
        ],
        title=f"Plan: from old weight {settings['start_old_weight']:.4g}, retain {settings['keep']:g} of it",
        caption=(
            f"Separation {settings['separation']:.4g}, target's old weight {settings['old_weight']:g}, "
            f"{settings['num_steps']} steps of rate {settings['learning_rate']:g}, batches of "
            f"{settings['batch_size']}. Exact descent from right means that are free to move, without the "
            "batches' noise. Retention: old behaviour that is left, whatever the weight of the mode called "
            "old. Smallest: it and all larger values retain that much, unless said. Starved batch: largest "
            "probability on the path of a batch without samples of the old mode, and of at least one such "
            f"batch. Eff.: smallest effective sample fraction.{checked}"
        ),
    )


def _starved(row: tables.Row, name: str) -> str:
    """Return the probability of a starved batch, above that of any on the path."""
    once, ever = tables.number(row[name]), tables.number(row["starvation_ever"])
    return once if ever == tables.MISSING else f"{once}\never {ever}"


def _answer(row: tables.Row, name: str) -> str:
    """Return what is enough in lines that leave room for other columns."""
    return "\n".join(textwrap.fill(part, 24) for part in str(row[name]).replace("; ", ";\n").split("\n"))


def remarks(tree: xr.DataTree) -> list[str]:
    """Say what was estimated from samples, where it was."""
    return [str(tree.attrs["estimated"])] if "estimated" in tree.attrs else []
