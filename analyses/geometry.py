"""How fast does on-policy learning come home? The rate of reverse KL's flow near the target, measured.

The whitened flow of a learner that starts a little off in every parameter, in a plane with correlated
samples; the rate is fitted to the tail of its distance and held against the Fisher information's smallest
eigenvalue.
"""

from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from analyses.core import figures, outputs, tables
from analyses.core.settings import BaseSettings, increasing, separations_setting, setting
from inference import results
from inference.exact.flow import gradient_flow
from mixture_models import objectives, theory
from mixture_models.mixture.two_mode import TwoMode

results.register(
    target_weight=("target's old weight, α", "1"),
    measured_rate=("rate of convergence fitted to the flow's tail", "1"),
    local_rate=("smallest eigenvalue of the Fisher information", "1"),
    distance=("distance of the whitened parameters from the target", "1"),
    fit_from_time=("start of the tail that is fitted", "1"),
)

# The rate is fitted where the distance is between these: nonlinear above, rounding below.
_TAIL = (1e-8, 1e-5)

# Where rates differ by more, the times at which the slowest is seen are too far apart for the fastest.
_APART = 45.0

# Any will do: the whitened flow does not see it.
_COVARIANCE = np.array([[2.0, 0.6], [0.6, 0.5]])

# Displacements of the logit and, whitened, of the means, along their line and across.
_LOGIT, _OLD, _NEW = 0.3, np.array([0.05, 0.1]), np.array([-0.05, 0.1])


@dataclass(frozen=True, kw_only=True)
class Settings(BaseSettings):
    """The settings of `run`."""

    separations: tuple[float, ...] = separations_setting("[1, 12]", (2.0, 3.0, 4.0, 5.0, 6.0))
    old_weights: tuple[float, ...] = setting(
        increasing("[0.02, 0.98]"),
        "Target's mass of the old mode; may be repeated.",
        (0.1, 0.3, 0.5, 0.8),
        option="old_weight",
    )


def run(settings: Settings) -> xr.DataTree:
    """Follow the whitened flow of reverse KL to the target, and fit the rate of its tail.

    Returns:
        DataTree with ``/population`` (dims objective, separation, target_weight, time, feature), to which are
        added ``distance``, the norm of the whitened parameters' difference from the target's, and
        ``measured_rate``; and ``/theory``: ``local_rate`` (separation, target_weight).
    """
    apart, weights = np.array(settings.separations), np.array(settings.old_weights)
    root = np.linalg.cholesky(_COVARIANCE)
    targets = [
        TwoMode.create(weight, np.zeros(2), root @ [separation, 0.0], _COVARIANCE)
        for separation in apart
        for weight in weights
    ]
    starts = [
        target.replace(
            old_logit=target.old_logit + _LOGIT,
            old_mean=target.old_mean + root @ _OLD,
            new_mean=target.new_mean + root @ _NEW,
        )
        for target in targets
    ]
    rates = theory.local_rates(weights, apart[:, None])
    # Until each has fallen through the tail, which starts below the first distance of 0.3.
    ends = np.log(1.0 / _TAIL[0]) / rates
    times = np.linspace(0.0, ends.max(), 1201)
    # What falls through it within a few of these times has some of its own.
    early = ends[ends < ends.max() / _APART]
    times = np.unique(np.concatenate([times, *(np.linspace(0.0, end, 101) for end in early)]))
    flow = gradient_flow(
        objectives.reverse_kl(), starts, targets, times=times, metric="whitened", rtol=1e-10, atol=1e-14
    )
    grid = {"separation": apart, "target_weight": weights}
    population = results.on_grid(flow["population"].to_dataset(), grid)
    logits = xr.DataArray(np.log(weights / (1.0 - weights)), {"target_weight": weights})
    population["distance"] = np.sqrt(
        (population["old_logit"] - logits) ** 2 + population["old_drift"] ** 2 + population["new_gap"] ** 2
    )
    population["measured_rate"] = xr.apply_ufunc(
        _tail_rate,
        population["distance"],
        input_core_dims=[["time"]],
        vectorize=True,
        kwargs={"times": times},
    )
    predicted = xr.Dataset({"local_rate": (tuple(grid), rates)}, grid)
    return outputs.result(settings.asdict(), {"population": population, "theory": predicted})


def _tail_rate(distance: np.ndarray, times: np.ndarray) -> float:
    """Return the rate of exp(-rate t) fitted to the tail of a distance by least squares of its logarithm."""
    tail = (distance > _TAIL[0]) & (distance < _TAIL[1])
    return -float(np.polyfit(times[tail], np.log(distance[tail]), 1)[0])


def summary(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row a target: ``separation``, ``target_weight``, both rates and ``relative_difference``."""
    rates = xr.Dataset(
        {
            "measured_rate": tree["population"].to_dataset()["measured_rate"].isel(objective=0, drop=True),
            "local_rate": tree["theory"]["local_rate"],
        }
    )
    rates["relative_difference"] = rates["measured_rate"] / rates["local_rate"] - 1.0
    return rates.to_dataframe().reset_index()


def table(tree: xr.DataTree) -> tables.Table:
    """Return the summary as a table for the terminal."""
    return tables.listed(
        summary(tree),
        [
            ("δ", "separation"),
            ("α", "target_weight"),
            ("measured rate", "measured_rate"),
            ("local rate", "local_rate"),
            ("measured/local - 1", "relative_difference", lambda row, name: f"{100.0 * row[name]:+.3f} %"),
        ],
        title="How fast reverse KL comes home to a target of old weight α and separation δ",
        caption=(
            "Measured: fitted to the tail of the whitened flow's distance from the target, between "
            f"{_TAIL[0]:g} and {_TAIL[1]:g}. Local: smallest eigenvalue of the target's Fisher information. "
            "Where two eigenvalues are close the tail is not yet one exponential, which the difference shows."
        ),
    )


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Return the figure ``geometry``: distances against the time in units of 1/rate, and the rates."""
    population, predicted = tree["population"].to_dataset().isel(objective=0), tree["theory"].to_dataset()
    weights = population["target_weight"].to_numpy()
    with figures.style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(10.0, 4.6))
        styles = figures.line_style([f"{weight:g}" for weight in weights])
        for weight, look in zip(weights, styles.values(), strict=True):
            marker, line = look["marker"], figures.line_of(look)
            for separation in population["separation"].to_numpy():
                here = {"separation": separation, "target_weight": weight}
                scaled = population["time"] * float(predicted["local_rate"].sel(here))
                left.plot(scaled, population["distance"].sel(here), linewidth=1.0, alpha=0.7, **line)
            fine = np.linspace(1.0, max(8.0, float(population["separation"].max())), 150)
            right.plot(fine, theory.local_rates(weight, fine), linewidth=1.5, **line)
            measured = population["measured_rate"].sel(target_weight=weight)
            right.plot(
                population["separation"],
                measured,
                marker,
                color=look["color"],
                markersize=6,
                label=f"{weight:g}",
            )
            right.axhline(weight * (1.0 - weight), color=look["color"], linewidth=0.8, linestyle=":")
        guide = np.linspace(0.0, 19.0, 2)
        left.plot(guide, 0.3 * np.exp(-guide), "k--", linewidth=1.2, label="exp(-rate × time)")
        figures.log_scale(left, "y")
        left.set(xlim=(0.0, 19.0), ylim=(_TAIL[0], 1.0), xlabel="time × local rate")
        left.set_ylabel("distance from the target")
        left.axhspan(*_TAIL, color="0.92", zorder=0, label="where the rate is fitted")
        left.set_title("Every flow ends at its target's local rate")
        left.legend()
        figures.log_scale(right, "y")
        right.set(xlabel="separation δ of the modes", ylabel="rate of convergence")
        right.set_title(
            "Points: measured, lines: local rate,\nthin horizontals: α(1-α), its limit for modes apart"
        )
        right.legend(title="target's old weight α")
    return {"geometry": figure}


#: What the figures show, for those who read a report.
MEANINGS = {
    "geometry": (
        "How fast on-policy learning comes back to its target: distances against time in units of 1/rate, "
        "and the rate against the smallest eigenvalue of the Fisher information."
    ),
}


def answer(tree: xr.DataTree) -> list[str]:
    """Return the answer in sentences: how well the local rate predicts the measured one."""
    worst = summary(tree)["relative_difference"].abs().max()
    return [
        f"The measured rate is that of the Fisher information within {100.0 * worst:.2g} % at every target "
        "that was tried."
    ]
