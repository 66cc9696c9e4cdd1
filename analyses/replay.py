"""What does replay of old samples do to the optimum of forward KL, and to the batches of reverse KL?

Forward KL: the exact flow's end against the replayed share. Reverse KL, whose optimum stays: how often a
batch holds no old sample, what the importance weights cost, and what small batches make of a learner that
has nearly lost its old mode.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.typing import ColorType
from rich.console import RenderableType
from scipy import stats

from analyses.core import figures, outputs, tables
from analyses.core.settings import BaseSettings, increasing, seed_setting, setting
from inference import results
from inference.exact.flow import gradient_flow
from inference.intervals import interval_percent, interval_probability
from inference.training.train import train
from mixture_models import objectives, theory
from mixture_models.mixture.two_mode import TwoMode
from mixture_models.validation import integer, open_interval, positive

results.register(
    starvation=("probability of a batch without an old sample", "1"),
    effective_fraction=("effective sample fraction, 1/E[w²]", "1"),
    means=("whether the means are held or move", "1"),
    optimum=("old weight at the population optimum", "1"),
    end=("old weight at the end of the exact flow", "1"),
    learner_weight=("learner's old weight, β", "1"),
    starved_share=("share of drawn batches without an old sample", "1"),
    effective_fraction_bound=("lower bound of the effective sample fraction", "1"),
    starved_share_interval=("interval of the share of drawn batches without an old sample", "1"),
    drawn_fraction=("effective sample fraction of drawn samples", "1"),
    recovery_step=("step at which half of the missing weight is back", "step"),
)

# Replayed shares of the exact flow of forward KL, and when it has ended.
_OPTIMA = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
_END = 4000.0
_MEANS = {"held": 0.0, "free": 1.0}

# Batches drawn for every share, and samples drawn for an effective sample fraction.
_NUM_BATCHES, _NUM_DRAWN = 4000, 20_000

_NUM_STEPS = 2000


@dataclass(frozen=True, kw_only=True)
class Settings(BaseSettings):
    """The settings of `run`: of the batches and the trainings, whose learner's means are right."""

    replay: tuple[float, ...] = setting(
        increasing("[0, 0.95]"),
        "Replayed shares of reverse KL, increasing.",
        (0.0, 0.1, 0.2, 0.5),
        option="shares",
        argument=True,
    )
    separation: float = setting(positive, "Distance of the target's modes.", 4.0)
    old_weight: float = setting(open_interval, "Target's mass of the old mode.", 0.5)
    start_old_weight: float = setting(open_interval, "Old weight at the start.", 0.05)
    batch_size: int = setting(partial(integer, at_least=2), "Samples seen in an update.", 8)
    learning_rate: float = setting(positive, "Learning rate of plain SGD.", 0.05)
    num_replicates: int = setting(integer, "Trainings of each share.", 128)
    seed: int = seed_setting()


def run(settings: Settings) -> xr.DataTree:
    """Compute the optima of forward KL, draw batches of reverse KL, and train with small ones.

    Returns:
        DataTree with ``/population``: ``end``, the old weight at the end of forward KL's flow, the means held
        right or free and starting off, over (means, replay); ``/theory``: its optimum, ``starvation``,
        ``effective_fraction`` and its bound; ``/simulated``: ``starved_share`` of drawn batches with its
        interval, and ``drawn_fraction``; ``/trajectory``, ``/trajectory_stats`` and ``/final`` of the
        trainings, with ``recovery_step`` and ``peak_old_drift``.
    """
    shares, alpha, beta = np.array(settings.replay), settings.old_weight, settings.start_old_weight
    target = TwoMode.on_axis(alpha, settings.separation)
    start = target.replace(old_weight=beta)
    size, seed = settings.batch_size, settings.seed
    runs = train(
        [objectives.reverse_kl(replay=float(share)) for share in shares],
        start,
        target,
        num_steps=_NUM_STEPS,
        batch_size=size,
        learning_rate=settings.learning_rate,
        num_replicates=settings.num_replicates,
        seed=seed,
        progress=False,
    )
    trajectory = runs["trajectory"].to_dataset()
    final = runs["final"].to_dataset().assign_coords(replay=("objective", shares))
    final["peak_old_drift"] = trajectory["old_drift"].max("step", skipna=False)
    final["recovery_step"] = _recovery(trajectory["old_weight"], 0.5 * (alpha + beta))
    fine = np.linspace(0.0, 0.95, 20)
    predicted = xr.Dataset(
        {
            "optimum": ("replay", theory.replay_optimum(fine)),
            "starvation": ("replay", theory.starvation_probability(beta, size, fine)),
            "effective_fraction": (
                "replay",
                theory.effective_sample_fraction(beta, float(target.separation), fine),
            ),
            "effective_fraction_bound": ("replay", 1.0 / theory.importance_weight_bound(fine)),
        },
        {"replay": fine},
    )
    groups = {
        "population": _optima(target),
        "theory": predicted,
        "simulated": _simulated(start, target, shares, size, seed),
        "trajectory": trajectory,
        "trajectory_stats": runs["trajectory_stats"].to_dataset(),
        "final": final,
        "constant_data": runs["constant_data"].to_dataset(),
    }
    return outputs.result(settings.asdict(), groups)


def _optima(target: TwoMode) -> xr.Dataset:
    """Return where the exact flow of forward KL ends, from weight ½, for every replayed share."""
    chosen = [objectives.sft(replay=share) for share in _OPTIMA]
    ends = []
    for means, factor in _MEANS.items():
        off = 0.0 if means == "held" else 0.5
        start = target.displaced(0.5, old_drift=off, new_gap=off)
        flow = gradient_flow(
            chosen,
            start,
            target,
            times=[_END],
            learning_rate_factors={"old_mean": factor, "new_mean": factor},
        )
        ends.append(flow["population"]["old_weight"].isel(time=0).to_numpy())
    grid = {"means": list(_MEANS), "replay": np.array(_OPTIMA)}
    return xr.Dataset({"end": (tuple(grid), np.stack(ends))}, grid)


def _simulated(start: TwoMode, target: TwoMode, shares: np.ndarray, size: int, seed: int) -> xr.Dataset:
    """Draw batches from (1-λ) q + λ p_old and count: by labels, and by the densities' weights q/b."""
    rng = np.random.default_rng(seed)
    beta, apart = float(start.old_weight), float(target.separation)
    share, lower, upper, fraction = [], [], [], []
    for replay in shares:
        old = rng.random((_NUM_BATCHES, size)) < replay + (1.0 - replay) * beta
        starved = int(np.sum(~old.any(axis=1)))
        counted = stats.binomtest(starved, _NUM_BATCHES).proportion_ci(
            interval_probability(), method="wilson"
        )
        share.append(starved / _NUM_BATCHES)
        lower.append(counted.low)
        upper.append(counted.high)
        old = rng.random(_NUM_DRAWN) < replay + (1.0 - replay) * beta
        y = rng.normal(size=_NUM_DRAWN) + np.where(old, 0.0, apart)
        old_density, new_density = stats.norm.pdf(y), stats.norm.pdf(y, apart)
        learner = beta * old_density + (1.0 - beta) * new_density
        weights = learner / ((1.0 - replay) * learner + replay * old_density)
        fraction.append(weights.sum() ** 2 / (weights.size * np.sum(weights**2)))
    return xr.Dataset(
        {
            "starved_share": ("replay", share),
            "starved_share_interval": (("replay", "ci_bound"), np.stack([lower, upper], axis=-1)),
            "drawn_fraction": ("replay", fraction),
        },
        {"replay": shares, "ci_bound": ["lower", "upper"]},
    )


def _recovery(weights: xr.DataArray, level: float) -> xr.DataArray:
    """Return the first step at which the old weight has reached a level, NaN where it never does."""
    rising = bool(weights.isel(step=0).mean() < level)
    there = weights >= level if rising else weights <= level
    return there["step"].where(there).min("step")


def summary(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row a replayed share.

    Columns: ``replay``; ``starvation``, ``starved_share`` with ``_lower`` and ``_upper``;
    ``effective_fraction`` and ``drawn_fraction``; means over the trainings with ``_lower`` and ``_upper`` of
    ``peak_old_drift`` and ``recovery_step``; ``spread_old_weight``, the largest standard deviation over the
    replicates at any step; ``num_recovered``, ``num_diverged``.
    """
    settings, kept = tree.attrs, results.converged(tree)
    final, simulated = tree["final"].to_dataset(), tree["simulated"].to_dataset()
    shares = final["replay"].to_numpy()
    beta, size = settings["start_old_weight"], settings["batch_size"]
    columns = {
        "replay": shares,
        "starvation": theory.starvation_probability(beta, size, shares),
        "starved_share": simulated["starved_share"],
        **tables.bounds("starved_share", simulated["starved_share_interval"]),
        "effective_fraction": theory.effective_sample_fraction(beta, settings["separation"], shares),
        "drawn_fraction": simulated["drawn_fraction"],
    }
    measured = {name: final[name] for name in ("peak_old_drift", "recovery_step")}
    for name, values in measured.items():
        columns |= tables.interval_columns(name, values.where(kept))
    columns["spread_old_weight"] = _spread(tree).max("step")
    columns["num_recovered"] = measured["recovery_step"].where(kept).count(["chain", "draw"])
    columns["num_diverged"] = (~kept).sum(["chain", "draw"])
    return tables.frame_of(columns)


def _spread(tree: xr.DataTree) -> xr.DataArray:
    """Return the standard deviation of the old weight over the replicates, over (objective, step)."""
    weights = tree["trajectory"].to_dataset()["old_weight"].where(results.converged(tree))
    return weights.std(["chain", "draw"], skipna=True)


def table(tree: xr.DataTree) -> RenderableType:
    """Return the summary as a table for the terminal."""
    frame = summary(tree)
    frame.index = [f"λ = {share:g}" for share in frame["replay"]]
    settings = tree.attrs
    return tables.by_name(
        frame,
        [
            ("starved batches, exact", "starvation"),
            ("   drawn", "starved_share"),
            ("effective fraction, exact", "effective_fraction"),
            ("   drawn", "drawn_fraction"),
            ("spread of the old weight", "spread_old_weight"),
            ("peak old drift", "peak_old_drift"),
            ("steps to half-way", "recovery_step"),
            ("trainings half-way", "num_recovered"),
            ("diverged, left out", "num_diverged"),
        ],
        title="What replay of a share λ does to reverse KL",
        caption=(
            f"Trainings from old weight {settings['start_old_weight']:g} toward "
            f"{settings['old_weight']:g}, right means at separation {settings['separation']:g}, batches of "
            f"{settings['batch_size']}: mean and {interval_percent()} interval over "
            f"{settings['num_replicates']} replicates. A starved batch holds no old sample; the effective "
            "fraction is of the sample, by its importance weights. Spread: the largest standard deviation of "
            "the replicates at any step; half-way: when half of the missing weight is back. Wilson intervals "
            f"for {_NUM_BATCHES} drawn batches."
        ),
    )


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Return the figure ``replay``: optimum, starvation, effective sample fraction, and trainings."""
    with figures.style():
        figure, panels = plt.subplots(2, 2, figsize=(10.0, 8.0))
        predicted, simulated = tree["theory"].to_dataset(), tree["simulated"].to_dataset()
        _plot_optimum(panels[0, 0], predicted, tree["population"].to_dataset()["end"])
        colours = [look["color"] for look in figures.line_style(["exact", "drawn"]).values()]
        _plot_starvation(panels[0, 1], predicted, simulated, tree.attrs["batch_size"], colours)
        _plot_fraction(panels[1, 0], predicted, simulated, colours)
        _plot_trainings(panels[1, 1], tree)
        for axes in panels.flat[:3]:
            axes.set_xlabel("replayed share λ")
    return {"replay": figure}


def _plot_optimum(axes: Axes, predicted: xr.Dataset, ends: xr.DataArray) -> None:
    axes.plot(predicted["replay"], predicted["optimum"], "k:", label="forward KL, theory: β = λ")
    looks = {"held": ("o", 9, "means held right"), "free": ("x", 6, "free means that start off")}
    for means, (marker, size, words) in looks.items():
        style: figures.Look = {"fillstyle": "none", "markersize": size, "label": f"flow's end, {words}"}
        axes.plot(ends["replay"], ends.sel(means=means), marker, **style)
    axes.set_ylabel("old weight at the end")
    axes.set_title("Forward KL: replay moves the optimum to its share")
    axes.legend()


def _plot_starvation(
    axes: Axes, predicted: xr.Dataset, simulated: xr.Dataset, size: int, colours: Sequence[ColorType]
) -> None:
    exact, drawn = colours
    axes.plot(predicted["replay"], predicted["starvation"], color=exact, label="((1-λ)(1-β))^N, exact")
    share = simulated["starved_share"].to_numpy()
    ends = np.abs(simulated["starved_share_interval"].transpose("ci_bound", "replay").to_numpy() - share)
    axes.errorbar(simulated["replay"], share, ends, fmt="o", color=drawn, capsize=3, label="drawn batches")
    axes.set_ylabel("batches without an old sample")
    axes.set_title(f"Reverse KL, batches of {size}: replay ends starvation")
    axes.legend()


def _plot_fraction(
    axes: Axes, predicted: xr.Dataset, simulated: xr.Dataset, colours: Sequence[ColorType]
) -> None:
    exact, drawn = colours
    axes.plot(predicted["replay"], predicted["effective_fraction"], color=exact, label="1/E[w²], exact")
    axes.plot(simulated["replay"], simulated["drawn_fraction"], "o", color=drawn, label="drawn samples")
    axes.plot(predicted["replay"], predicted["effective_fraction_bound"], "k:", label="bound 1-λ")
    axes.set(ylabel="effective sample fraction", ylim=(0.0, 1.05))
    axes.set_title("What it costs: the importance weights' share")
    axes.legend()


def _plot_trainings(axes: Axes, tree: xr.DataTree) -> None:
    spread = _spread(tree)
    names = [f"λ = {share:g}" for share in tree["final"]["replay"].to_numpy()]
    for index, (name, look) in enumerate(figures.line_style(names).items()):
        line = figures.line_of(look)
        axes.plot(spread["step"], spread.isel(objective=index), label=name, **line)
    settled = spread["step"].where(spread.max("objective") > 0.05 * spread.max()).max()
    axes.set(xlabel="training step", ylabel="standard deviation of the old weight", xlim=(0, 1.3 * settled))
    axes.set_ylim(bottom=0.0)
    axes.set_title(
        f"Trainings from β = {tree.attrs['start_old_weight']:g}, batches of {tree.attrs['batch_size']}:\n"
        "how far replicates differ"
    )
    axes.legend(title="replayed share")


#: What the figures show, for those who read a report.
MEANINGS = {
    "replay": (
        "What replay changes: the optimum of forward KL, the share of batches without an old sample, the "
        "effective sample, and trainings of reverse KL."
    ),
}


def answer(tree: xr.DataTree) -> list[str]:
    """Return the answer in sentences: starvation and recovery at each replayed share."""
    return [
        f"With a replayed share of {row['replay']:g} a batch is starved with probability "
        f"{tables.number(row['starvation'])}; {row['num_recovered']:g} trainings recover half of the "
        f"missing weight, after {tables.inline(dict(row), 'recovery_step')} steps."
        for _, row in summary(tree).iterrows()
    ]
