"""How fast does supervised fine-tuning empty the old mode, and is what the weight says true?

The exact flow of forward KL on new data, twice: with the means held at the truth, where only the weight can
go, and with free means, where the component called old may walk over to the new mode and keep its weight.
"""

from dataclasses import dataclass
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.typing import ColorType

from analyses.core import figures, outputs, tables
from analyses.core.settings import BaseSettings, separations_setting, setting
from inference import results
from inference.exact.flow import gradient_flow
from mixture_models import objectives, theory
from mixture_models.mixture.two_mode import TwoMode
from mixture_models.validation import closed_interval, integer, open_interval

results.register(
    means=("whether the means are held or move", "1"),
    old_weight_separated=("old weight of modes apart, ~ 1/t", "1"),
    old_weight_rare=("old weight of a rare old mode, ~ t^(-1/2)", "1"),
    crossover_weight=("old weight where the two asymptotes of the velocity meet", "1"),
    crossover_time=("time at which the old weight is the crossover's", "1"),
    exponent=("exponent of the decay, -d log β / d log t", "1"),
)

# Factors on the updates of the means; both cases share one compiled program.
_MEANS = {"held": 0.0, "free": 1.0}

_FIRST_TIME = 0.1


@dataclass(frozen=True, kw_only=True)
class Settings(BaseSettings):
    """The settings of `run`; the starts have right means."""

    separations: tuple[float, ...] = separations_setting("[0.1, 12]", (1.0, 2.0, 3.0, 4.0, 6.0, 8.0))
    start_old_weight: float = setting(open_interval, "Old weight at the start.", 0.5)
    end_time: float = setting(
        partial(closed_interval, low=1.0, high=1e9), "Last time, steps times learning rate.", 1e6
    )
    num_times: int = setting(
        partial(integer, at_least=2), "Records from t = 0.1 on, evenly on a log scale.", 141, shown=False
    )


def run(settings: Settings) -> xr.DataTree:
    """Follow the exact flow of SFT from right means, with the means held there and with free means.

    Returns:
        DataTree with ``/population`` (dims objective, means, separation, time, feature) and ``/theory``: both
        asymptotes of the old weight with held means, over (separation, time), the ``exponent`` of its decay
        from the exact velocity, and the asymptotes' crossover, its weight and its time (0 where the start is
        past it, NaN where it is not reached).
    """
    apart, weight = np.array(settings.separations), settings.start_old_weight
    times = np.array([0.0, *np.geomspace(_FIRST_TIME, settings.end_time, settings.num_times)])
    targets = [TwoMode.on_axis(0.5, separation) for separation in apart]
    starts = [target.replace(old_weight=weight) for target in targets]
    parts = []
    for factor in _MEANS.values():
        flow = gradient_flow(
            objectives.sft(),
            starts,
            targets,
            times=times,
            learning_rate_factors={"old_mean": factor, "new_mean": factor},
        )
        parts.append(results.on_grid(flow["population"].to_dataset(), {"separation": apart}))
    population = xr.concat(parts, xr.DataArray(list(_MEANS), dims="means", name="means"))
    population = population.transpose("objective", "means", "separation", "time", ...)
    predicted = _theory(population.sel(means="held").isel(objective=0), weight)
    return outputs.result(settings.asdict(), {"population": population, "theory": predicted})


def _theory(held: xr.Dataset, start_weight: float) -> xr.Dataset:
    """Return the asymptotes, their crossover and the local exponent for the flow with held means."""
    times, apart = held["time"].to_numpy(), held["separation"].to_numpy()[:, None]
    logits, weights = held["old_logit"].to_numpy(), held["old_weight"].to_numpy()
    crossover = theory.sft_crossover_weight(apart[:, 0])
    grid = ("separation", "time")
    # d log β / d log t = t (1-β) φ'
    speed = -theory.sft_logit_velocity(logit=logits, separation=apart)
    variables = {
        "old_weight_separated": (("time",), theory.sft_old_weight_separated(times, start_weight)),
        "old_weight_rare": (grid, theory.sft_old_weight_rare(times, start_weight, apart)),
        "exponent": (grid, times * (1.0 - weights) * speed),
        "crossover_weight": (("separation",), crossover),
        "crossover_time": (
            ("separation",),
            [_time_at(level, row, times) for level, row in zip(crossover, weights, strict=True)],
        ),
    }
    return xr.Dataset(variables, {name: held[name] for name in grid})


def _time_at(level: float, weights: np.ndarray, times: np.ndarray) -> float:
    """Return when falling weights reach a level, by interpolation of the logarithms.

    0 where they start below it, NaN where they do not come so far.
    """
    if level >= weights[0]:
        return 0.0
    if level < weights[-1]:
        return np.nan
    return float(np.exp(np.interp(-np.log(level), -np.log(weights[1:]), np.log(times[1:]))))


def summary(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row a separation: where both flows end, and how theory reads the one with held means.

    Columns: ``held_old_weight``, ``exponent``, ``crossover_weight``, ``crossover_time``, ``free_old_weight``,
    ``free_retention``, ``free_old_coverage``, ``free_old_drift``, all at the last time but those of the
    crossover.
    """
    end = tree["population"].to_dataset().isel(objective=0, time=-1)
    predicted = tree["theory"].to_dataset().isel(time=-1)
    held, free = end.sel(means="held"), end.sel(means="free")
    columns = {
        "separation": end["separation"],
        "held_old_weight": held["old_weight"],
        **{name: predicted[name] for name in ("exponent", "crossover_weight", "crossover_time")},
        **{f"free_{name}": free[name] for name in ("old_weight", "retention", "old_coverage", "old_drift")},
    }
    return tables.frame_of(columns)


def table(tree: xr.DataTree) -> tables.Table:
    """Return the summary as a table for the terminal."""
    return tables.listed(
        summary(tree),
        [
            ("δ", "separation"),
            ("β, means\nheld", "held_old_weight"),
            ("its decay's\nexponent", "exponent"),
            ("crossover\nat t", "crossover_time"),
            ("β, means\nfree", "free_old_weight"),
            ("its\nretention", "free_retention"),
            ("its old\ncoverage", "free_old_coverage"),
            ("its old\ndrift", "free_old_drift"),
        ],
        title="What supervised fine-tuning leaves of the old mode",
        caption=(
            f"Exact flow of the old weight β from {tree.attrs['start_old_weight']:g} and right means at "
            f"separation δ, at t = {tree.attrs['end_time']:g} (steps times learning rate). The exponent is 1 "
            "where β ~ 1/t and ½ where β ~ t^(-1/2); the crossover is where both would be equally fast (0: "
            "from the start; n/a: not reached). With free means the weight can stay while the old mode walks "
            "to the new one (old drift δ) and no old behaviour is left (retention)."
        ),
    )


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Return the figure ``mass_forgetting``: held means with the asymptotes, and free means."""
    population = tree["population"].to_dataset().isel(objective=0)
    # A log axis has no place for t = 0.
    population, predicted = (
        d.sel(time=slice(_FIRST_TIME, None)) for d in (population, tree["theory"].to_dataset())
    )
    colours = figures.ordered_colours(population.sizes["separation"])
    with figures.style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(10.0, 5.0), sharey=True)
        _plot_held(left, population.sel(means="held"), predicted, colours)
        _plot_free(right, population.sel(means="free"), colours)
        lowest = float(population["old_weight"].min())
        for axes in (left, right):
            figures.log_scale(axes, "xy")
            axes.set_xlabel(figures.label(population["time"]))
            axes.set_xlim(_FIRST_TIME, float(population["time"].max()))
            axes.set_ylim(0.3 * min(lowest, 1e-2), 1.5)
        handles = [
            Line2D([], [], color=colour, label=f"{separation:g}")
            for colour, separation in zip(colours, population["separation"].to_numpy(), strict=True)
        ]
        figure.legend(
            handles=handles, loc="outside lower center", ncols=len(handles), title="separation δ of the modes"
        )
    return {"mass_forgetting": figure}


def _plot_held(axes: Axes, held: xr.Dataset, predicted: xr.Dataset, colours: list[ColorType]) -> None:
    times = held["time"]
    axes.plot(times, predicted["old_weight_separated"], "k--", linewidth=1.0, zorder=3)
    for index, colour in enumerate(colours):
        here = predicted.isel(separation=index)
        axes.plot(times, held["old_weight"].isel(separation=index), color=colour, linewidth=1.8)
        rare = here["old_weight_rare"]
        # Above the crossover this asymptote says nothing.
        axes.plot(times, rare.where(rare <= 2.0 * here["crossover_weight"]), ":", color=colour, linewidth=1.2)
        if here["crossover_time"] > 0.0:
            axes.plot(here["crossover_time"], here["crossover_weight"], "o", color=colour, markersize=6)
    axes.set_ylabel("old weight β")
    axes.set_title("Means held: every separation loses its old mode,\nas 1/t, then as 1/√t")
    axes.legend(
        handles=[
            Line2D([], [], color="0.2", linewidth=1.8, label="exact flow"),
            Line2D([], [], color="k", linestyle="--", linewidth=1.0, label="modes apart, ~ 1/t"),
            Line2D([], [], color="0.2", linestyle=":", linewidth=1.2, label="old mode rare, ~ 1/√t"),
            Line2D([], [], color="0.2", linestyle="", marker="o", label="here the two are equally fast"),
        ],
        loc="lower left",
        fontsize=9,
    )


def _plot_free(axes: Axes, free: xr.Dataset, colours: list[ColorType]) -> None:
    for index, colour in enumerate(colours):
        here = free.isel(separation=index)
        axes.plot(here["time"], here["old_weight"], color=colour, linewidth=1.8)
        axes.plot(here["time"], here["retention"], color=colour, linestyle=(0, (4, 1.5)), linewidth=1.2)
    axes.set_title("Means free: the weight may stay,\nthe behaviour goes")
    axes.set_ylabel("old weight, or retention")
    axes.legend(
        handles=[
            Line2D([], [], color="0.2", linewidth=1.8, label="old weight"),
            Line2D(
                [],
                [],
                color="0.2",
                linestyle=(0, (4, 1.5)),
                linewidth=1.2,
                label="retention of old behaviour",
            ),
        ],
        loc="lower left",
        fontsize=9,
    )


#: What the figures show, for those who read a report.
MEANINGS = {
    "mass_forgetting": (
        "The old weight under supervised fine-tuning over time. With the means held it falls as theory's "
        "dotted lines say; with free means it can stay while the old mode walks to the new one."
    ),
}


def answer(tree: xr.DataTree) -> list[str]:
    """Return the answer in sentences: what is left at each separation."""
    end = tables.number(tree.attrs["end_time"])
    return [
        f"At separation {row['separation']:g} and time {end} the old weight is "
        f"{tables.number(row['held_old_weight'])} with means held, {tables.number(row['free_old_weight'])} "
        f"with free means, of which {tables.number(row['free_retention'])} is old behaviour."
        for _, row in summary(tree).iterrows()
    ]
