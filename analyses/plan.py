"""What will each objective leave of the old mode, and how much replay, anchor or KL weight does it need?

From theory alone, in seconds: the exact equation of the weight with the means right, the old mean's drift
along it to first order, and what batches of a finite size miss. ``check`` trains and compares.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from rich.table import Table
from scipy.interpolate import PchipInterpolator
from scipy.optimize import brentq

from analyses import figures, outputs, tables, weight_paths
from analyses.weight_paths import Setting
from inference import results
from inference.intervals import interval, interval_probability
from inference.training import train
from mixture_models import objectives, theory
from mixture_models.two_mode import TwoMode
from mixture_models.validation import (
    InputError,
    closed_interval,
    integer,
    open_interval,
    positive,
)

# Values of a knob on its curve, and in each refinement of the smallest that keeps enough.
_NUM_CURVE, _NUM_REFINED = 11, 8

# A knob's curve begins at this share of its end; a knob that may be 0 is also tried there.
_FINEST = 2e-3

# Largest replayed share that is tried, and most rounds of OAPL that are followed.
_MOST_REPLAY, _MOST_ROUNDS = 0.95, 100

_SIMULATED = {"num_replicates": 32, "dimension": 2}


@dataclass(frozen=True)
class _Method:
    """An objective with its setting, and the knob that is turned to keep old mass.

    ``follow`` takes the shared setting and values of the knob; ``largest`` is the end of the knob, beyond
    which it means nothing or a step of plain SGD overshoots. Without a knob nothing moves the end.
    """

    objective: objectives.Objective
    follow: Callable[[Setting, Any], weight_paths.Path]
    knob: str | None
    value: float
    largest: float
    zero: bool = True
    replay: float = 0.0


def run(
    *,
    separation: float = 4.0,
    old_weight: float = 0.5,
    start_old_weight: float = 0.7,
    num_steps: int = 500,
    batch_size: int = 64,
    learning_rate: float = 0.05,
    keep: float = 0.9,
    replay: float = 0.1,
    anchor: float = 0.1,
    ema: float = 0.05,
    kl_weight: float = 0.1,
    eta: float = 1.0,
    beta: float = 1.0,
    lag: int = 50,
    check: bool = False,
    seed: int = 0,
) -> xr.DataTree:
    """Predict final old weight and peak drift of every objective, and the smallest knob that keeps enough.

    Args:
        separation: δ of the modes, in [0.1, 26].
        old_weight: α of the target.
        start_old_weight: β₀, the learner's now; its means are taken as right.
        num_steps: updates.
        batch_size: behaviours in a batch, at least 2.
        learning_rate: of plain SGD.
        keep: share of β₀ that shall be left at the end: a final old weight of at least keep × β₀.
        replay: λ of SFT's and reverse KL's second rows, in [0, 0.95].
        anchor: of SDFT, whose demonstrations are the target.
        ema: of SDFT.
        kl_weight: of TTT-Discover, with reward 1 for the new mode.
        eta: of TTT-Discover.
        beta: β₁ = β₂ of OAPL, with reward 1 for the new mode.
        lag: of OAPL.
        check: also train every objective, with free means, and compare.
        seed: of the trainings.

    Returns:
        DataTree with ``/plan`` over objective, ``/path`` over (objective, time), ``/curve`` over (objective,
        knob_index), and ``/simulated`` where checked.

    Raises:
        InputError: an argument out of range.
    """
    setting = Setting(
        closed_interval("separation", separation, 0.1, 26.0),
        open_interval("old_weight", old_weight),
        open_interval("start_old_weight", start_old_weight),
        integer("num_steps", num_steps),
        positive("learning_rate", learning_rate),
    )
    size = integer("batch_size", batch_size, at_least=2)
    wanted = open_interval("keep", keep, 0.0, 1.0 / setting.start_weight) * setting.start_weight
    methods = _methods(
        setting,
        replay=closed_interval("replay", replay, 0.0, _MOST_REPLAY),
        anchor=closed_interval("anchor", anchor),
        ema=closed_interval("ema", ema),
        kl_weight=closed_interval("kl_weight", kl_weight, 0.0, 1.0 / setting.learning_rate),
        eta=closed_interval("eta", eta, 1e-6, 500.0),
        beta=closed_interval("beta", beta, 0.01, _largest_beta(setting)),
        lag=integer("lag", lag),
    )
    predicted = [_predict(method, setting, size, wanted) for method in methods]
    names = {"objective": [method.objective.name for method in methods]}
    plan = xr.Dataset(
        {key: ("objective", [row[key] for row, _, _ in predicted]) for key in predicted[0][0]}, names
    )
    time = np.linspace(0.0, setting.end_time, 201)
    path = xr.Dataset(
        {
            field: (
                ("objective", "time"),
                np.stack([np.interp(time, p.time, getattr(p, field)[0]) for _, p, _ in predicted]),
            )
            for field in ("old_weight", "old_drift")
        },
        names | {"time": time},
    )
    curve = xr.Dataset(
        {
            field: (("objective", "knob_index"), np.stack([c[i] for _, _, c in predicted]))
            for i, field in enumerate(("knob_value", "final_old_weight"))
        },
        names | {"knob_index": np.arange(_NUM_CURVE)},
    )
    settings = {
        "separation": setting.separation,
        "old_weight": setting.target_weight,
        "start_old_weight": setting.start_weight,
        "num_steps": setting.num_steps,
        "batch_size": size,
        "learning_rate": setting.learning_rate,
        "keep": float(keep),
        "replay": replay,
        "anchor": anchor,
        "ema": ema,
        "kl_weight": kl_weight,
        "eta": eta,
        "beta": beta,
        "lag": lag,
        "check": check,
        "seed": seed,
    }
    groups = {"plan": plan, "path": path, "curve": curve}
    if check:
        groups["simulated"] = _simulate(methods, setting, size, seed)
    return xr.DataTree.from_dict(
        {"/": xr.Dataset(attrs=results.provenance(settings))}
        | {f"/{name}": results.describe(group) for name, group in groups.items()}
    )


def _largest_beta(setting: Setting) -> float:
    """Return the β₂ at which a step of the mean, whose curvature is at most 2 β₂², is as long as its way."""
    return (2.0 * setting.learning_rate) ** -0.5


def _methods(
    setting: Setting,
    *,
    replay: float,
    anchor: float,
    ema: float,
    kl_weight: float,
    eta: float,
    beta: float,
    lag: int,
) -> list[_Method]:
    if setting.num_steps > _MOST_ROUNDS * lag:
        raise InputError(
            f"num_steps over lag must be at most {_MOST_ROUNDS}; got {setting.num_steps / lag:g}"
        )
    shares = dict.fromkeys([0.0, replay])
    supervised = [
        _Method(objectives.sft(share) if share else objectives.sft(), weight_paths.sft, "replay", share, 0.95)
        for share in shares
    ]
    on_policy = [
        _Method(
            objectives.reverse_kl(share) if share else objectives.reverse_kl(),
            weight_paths.reverse_kl,
            None,
            share,
            0.95,
            replay=share,
        )
        for share in shares
    ]
    return [
        *supervised,
        *on_policy,
        _Method(
            objectives.sdft(anchor=anchor, ema=ema),
            lambda given, knob: weight_paths.sdft(given, knob, ema),
            "anchor",
            anchor,
            1.0,
        ),
        _Method(
            objectives.ttt_discover(kl_weight=kl_weight, eta=eta),
            lambda given, knob: weight_paths.ttt_discover(given, knob, eta),
            "kl_weight",
            kl_weight,
            1.0 / setting.learning_rate,
        ),
        _Method(
            objectives.oapl(beta1=beta, beta2=beta, lag=lag),
            lambda given, knob: weight_paths.oapl(given, knob, lag),
            "beta",
            beta,
            _largest_beta(setting),
            zero=False,
        ),
    ]


def _predict(
    method: _Method, setting: Setting, size: int, wanted: float
) -> tuple[dict[str, Any], weight_paths.Path, tuple[np.ndarray, np.ndarray]]:
    """Return a row of the plan, the path at the method's setting, and its curve over the knob."""
    knobs = method.largest * np.geomspace(_FINEST, 1.0, _NUM_CURVE)
    if method.zero:
        knobs[0] = 0.0
    if method.knob is None:
        path = method.follow(setting, [method.value])
        ends = np.repeat(path.old_weight[:, -1], _NUM_CURVE)
        kept = ends[0] >= wanted
        smallest, crossing = (0.0 if kept else np.nan), np.nan
        answer = "none needed" if kept else f"none: replay does not move its end, {tables.number(ends[0])}"
    else:
        path = method.follow(setting, [method.value, *knobs])
        ends = path.old_weight[1:, -1]
        smallest, crossing, answer = _smallest(method, setting, knobs, ends, wanted)
    starved = theory.starvation_probability(path.sampled_weight[0], size)
    with np.errstate(divide="ignore"):
        all_fed = np.trapezoid(np.log1p(-starved), path.time) / setting.learning_rate
    fractions = theory.effective_sample_fraction(path.old_weight[0], setting.separation, method.replay)
    row = {
        "knob": method.knob or "",
        "knob_setting": method.value,
        "final_old_weight": path.old_weight[0, -1],
        "kept_share": path.old_weight[0, -1] / setting.start_weight,
        "peak_old_drift": path.old_drift[0].max(),
        "smallest_knob": smallest,
        "knob_crossing": crossing,
        "answer": answer,
        "starvation": starved[0],
        "starvation_largest": starved.max(),
        "starvation_ever": -np.expm1(all_fed),
        "effective_fraction": fractions.min(),
    }
    return row, path, (knobs, ends)


def _smallest(
    method: _Method, setting: Setting, knobs: np.ndarray, ends: np.ndarray, wanted: float
) -> tuple[float, float, str]:
    """Return the smallest value that keeps what is wanted, where the curve crosses it, and both in words.

    Where all large values keep it, the smallest is the last crossing. Where only small ones do, which is
    where the knob pulls to a lower weight or the learner hardly learns, it is the end of the knob, and the
    crossing is the first.
    """
    kept = ends >= wanted
    if kept.all():
        return float(knobs[0]), np.nan, f"{method.knob} {knobs[0]:.3g} is enough"
    if not kept[-1] and not kept[0]:
        return np.nan, np.nan, f"none: {method.knob} up to {knobs[-1]:.3g} ends at {ends.max():.3g} at most"
    changes = np.flatnonzero(kept[1:] != kept[:-1])
    place = changes[-1] if kept[-1] else changes[0]
    fine = np.linspace(knobs[place], knobs[place + 1], _NUM_REFINED)
    above = PchipInterpolator(fine, method.follow(setting, fine).old_weight[:, -1] - wanted)
    crossing = float(brentq(above, fine[0], fine[-1], xtol=1e-14))
    if kept[-1]:
        return crossing, crossing, f"{method.knob} {crossing:.3g}"
    return float(knobs[0]), crossing, f"{method.knob} {knobs[0]:.3g}; not above {crossing:.3g}"


def _simulate(methods: list[_Method], setting: Setting, size: int, seed: int) -> xr.Dataset:
    """Train every objective with free means; return final old weight and peak drift of the replicates."""
    away = np.zeros(_SIMULATED["dimension"])
    away[0] = setting.separation
    target = TwoMode.create(setting.target_weight, np.zeros_like(away), away)
    runs = train(
        [method.objective for method in methods],
        target.replace(old_weight=setting.start_weight),
        target,
        num_steps=setting.num_steps,
        batch_size=size,
        learning_rate=setting.learning_rate,
        num_replicates=_SIMULATED["num_replicates"],
        seed=seed,
        progress=False,
    )
    kept, trajectory = results.converged(runs), runs["trajectory"].to_dataset()
    drift = trajectory["old_drift"].max("step", skipna=False)
    return xr.Dataset(
        {
            "old_weight": trajectory["old_weight"].isel(step=-1, drop=True).where(kept),
            "peak_old_drift": drift.where(kept),
        }
    )


def summary(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row an objective: prediction, the smallest knob with words, batches, and any check."""
    plan = tree["plan"].to_dataset()
    columns: dict[str, Any] = {name: plan[name] for name in ("objective", *plan.data_vars)}
    if "simulated" in tree:
        for name, values in tree["simulated"].to_dataset().data_vars.items():
            limits = interval(values)
            columns[f"simulated_{name}"] = values.mean(["chain", "draw"], skipna=True)
            for bound in ("lower", "upper"):
                columns[f"simulated_{name}_{bound}"] = limits.sel(ci_bound=bound, drop=True)
    return pd.DataFrame({name: np.asarray(column) for name, column in columns.items()})


def table(tree: xr.DataTree) -> Table:
    """Return the summary as a table for the terminal."""
    frame, settings = summary(tree), tree.attrs
    wanted = settings["keep"] * settings["start_old_weight"]
    checked = (
        f" In brackets: trained with free means, {100 * interval_probability():g} % interval over "
        f"{_SIMULATED['num_replicates']} replicates."
        if "simulated" in tree
        else ""
    )
    return tables.listed(
        frame,
        [
            ("objective", "objective", _words),
            ("final old\nweight", "final_old_weight", _beside("old_weight")),
            ("peak drift", "peak_old_drift", _beside("peak_old_drift")),
            (f"smallest that keeps {wanted:.3g}", "answer", _words),
            ("starved\nbatch", "starvation_largest", tables.plain),
            ("ever", "starvation_ever", tables.plain),
            ("eff.", "effective_fraction", tables.plain),
        ],
        title=f"Plan: from old weight {settings['start_old_weight']:g}, keep {settings['keep']:g} of it",
        caption=(
            f"Separation {settings['separation']:g}, target's old weight {settings['old_weight']:g}, "
            f"{settings['num_steps']} steps of rate {settings['learning_rate']:g}, batches of "
            f"{settings['batch_size']}. Final old weight: exact flow, means taken as right. Peak drift: "
            "of the flow, to first order in the overlap, not a bound: too low from about 0.1 on, and without "
            "the batches' noise. Smallest: it and all larger values keep the wanted weight, unless said. "
            "Starved batch: largest probability on the path of a batch without old behaviours; ever: of at "
            f"least one. Eff.: smallest effective sample fraction.{checked}"
        ),
    )


def _beside(name: str) -> tables.Cell:
    """Return how a prediction is written: above the interval of trainings, where there are any."""

    def write(row: Mapping[str, Any], predicted: str) -> str:
        bounds = [row.get(f"simulated_{name}_{bound}", np.nan) for bound in ("lower", "upper")]
        trained = "" if np.isnan(bounds).any() else "\n[{}, {}]".format(*map(tables.number, bounds))
        return tables.number(row[predicted]) + trained

    return write


def _words(row: Mapping[str, Any], name: str) -> str:
    return str(row[name]).replace(":", ":\n").replace(",", ",\n").replace("; ", ";\n")


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Return the figure ``plan``: the paths, and the kept old mass against each objective's knob."""
    plan, path, curve = (tree[name].to_dataset() for name in ("plan", "path", "curve"))
    wanted = tree.attrs["keep"]
    start = tree.attrs["start_old_weight"]
    styles = figures.line_style([str(name) for name in path["objective"].to_numpy()])
    # Rows that turn one knob lie on one curve.
    first = plan["knob"].to_series().loc[lambda knob: knob != ""].drop_duplicates()
    with figures.style():
        figure, axes = plt.subplots(1, 1 + len(first), figsize=(3.2 * (1 + len(first)), 4.2))
        for name, look in styles.items():
            line = {key: value for key, value in look.items() if key != "marker"}
            axes[0].plot(path["time"], path["old_weight"].sel(objective=name), label=name, **line)
        axes[0].axhline(wanted * start, color="0.3", linestyle=":")
        axes[0].set(xlabel=figures.label(path["time"]), ylabel=figures.label(path["old_weight"]), ylim=(0, 1))
        for panel, (name, knob) in zip(axes[1:], first.items(), strict=True):
            here = curve.sel(objective=name)
            values = here["knob_value"].to_numpy()
            kept = here["final_old_weight"] / start
            panel.plot(values, kept, ".-", color=styles[str(name)]["color"])
            panel.axhline(wanted, color="0.3", linestyle=":")
            panel.axvline(float(plan["knob_crossing"].sel(objective=name)), color="0.3", linestyle="--")
            if values[0]:
                panel.set_xscale("log")
            else:
                panel.set_xscale("symlog", linthresh=values[1], linscale=1.0)
                panel.set_xlim(left=0.0)
            panel.set(xlabel=knob, ylabel="final old weight over that now", title=str(name).split(":")[0])
            panel.set_ylim(0.0, 1.05 * max(float(kept.max()), wanted))
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return {"plan": figure}


def write(tree: xr.DataTree, folder: Path) -> None:
    """Write ``results.zarr``, ``summary.csv`` and the figure into a folder."""
    outputs.write(tree, summary(tree), plot(tree), folder)
