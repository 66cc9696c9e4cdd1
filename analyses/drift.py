"""How far does on-policy learning move an old mode that was right, and how does that fall with separation?

The exact flow of reverse KL. Where only the weight is off, nothing but misassignment moves the old mode, and
the peak and the integral of its drift are regressed on δ² and log δ: theory says exp(-δ²/8).
"""

from dataclasses import dataclass

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from analyses.core import figures, outputs, tables
from analyses.core.settings import BaseSettings, increasing, seed_setting, separations_setting, setting
from inference import results
from inference.comparison.decay import check_windows, decay_posterior
from inference.exact.flow import gradient_flow
from inference.intervals import interval, interval_percent
from inference.progress import hidden
from inference.training.train import train
from mixture_models import objectives
from mixture_models.mixture.two_mode import Pair, TwoMode
from mixture_models.validation import flag, integer, open_interval

results.register(
    start=("where the flow starts", "1"),
    integrated_old_drift=("integral of the old drift over time", "Mahalanobis"),
    noise_floor=("mean peak of the old drift that noise alone makes", "Mahalanobis"),
)

#: Separations of the trainings [Mahalanobis].
TRAINED = (3.0, 4.0, 5.0, 6.0, 8.0)

#: The rate that theory predicts for modes apart.
THEORY = 0.125

#: Distances of the new and of the old mean from the target's, by start.
STARTS = {"only the weight off": (0.0, 0.0), "new mode 1.5 off": (1.5, 0.0), "old mode 0.5 off": (0.0, 0.5)}

_MEASURES = ("peak_old_drift", "integrated_old_drift")
_GATED = "only the weight off"
_END = 150.0

# Steps, batch and learning rate of the trainings: to t = 50, well past the peak.
_NUM_STEPS, _BATCH, _RATE = 1000, 64, 0.05


@dataclass(frozen=True, kw_only=True)
class Settings(BaseSettings):
    """The settings of `run`; beyond a separation of 12 the drift is lost in rounding."""

    separations: tuple[float, ...] = separations_setting("[1, 12]", np.arange(3.0, 12.01, 0.5))
    old_weight: float = setting(open_interval, "Target's mass of the old mode.", 0.5)
    start_old_weight: float = setting(open_interval, "Old weight at the start.", 0.9)
    fit_from: tuple[float, ...] = setting(
        increasing("[0, 100]"),
        "Least separation of a window to regress; may be repeated.",
        (5.0, 6.0, 7.0),
    )
    num_replicates: int = setting(integer, "Finite-batch trainings of each estimator.", 64)
    num_draws: int = setting(integer, "Posterior draws of each of four chains.", 1000, shown=False)
    seed: int = seed_setting()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_windows(np.array(self.separations), self.fit_from)


def run(settings: Settings, *, progress: bool = True) -> xr.DataTree:
    """Follow reverse KL from three starts, regress the drift of the first, and train with finite batches.

    Returns:
        DataTree with ``/population`` (dims objective, start, separation, time; the two measures of drift have
        no time), ``/posterior``, ``/sample_stats`` and ``/observed_data`` of `decay_posterior`, and
        ``/trainings``: ``peak_old_drift`` (objective, chain, draw, separation), ``noise_floor``.
    """
    apart, alpha, beta = np.array(settings.separations), settings.old_weight, settings.start_old_weight
    windows, seed = np.array(settings.fit_from), settings.seed
    flag("progress", progress)
    with tqdm(total=2 + len(TRAINED), desc="exact flows", disable=hidden(progress)) as bar:
        population = _population(apart, alpha, beta)
        bar.update()
        bar.set_description("regression")
        posterior = _regressed(population, apart, windows, settings.num_draws, seed)
        bar.update()
        bar.set_description("trainings")
        trainings = _trainings(population, alpha, beta, settings.num_replicates, seed, bar)
    groups = {"population": population, "trainings": trainings}
    groups |= {name: group.to_dataset() for name, group in posterior.children.items()}
    return outputs.result(settings.asdict(), groups)


def _regressed(
    population: xr.Dataset, apart: np.ndarray, windows: np.ndarray, draws: int, seed: int
) -> xr.DataTree:
    """Return the posterior of the decay of both measures of drift."""
    gated = population.isel(objective=0).sel(start=_GATED)
    measured = {name: gated[name].to_numpy() for name in _MEASURES}
    return decay_posterior(apart, measured, fit_from=windows, num_draws=draws, seed=seed)


def _mixtures(separation: float, alpha: float, beta: float, off: tuple[float, float]) -> Pair:
    """Return start and target, the start's new and old mean off toward each other."""
    target = TwoMode.on_axis(alpha, separation)
    return target.displaced(beta, new_gap=off[0], old_drift=off[1]), target


def _population(apart: np.ndarray, alpha: float, beta: float) -> xr.Dataset:
    """Return the flows from every start at every separation, with their measures of drift."""
    pairs = [_mixtures(s, alpha, beta, off) for off in STARTS.values() for s in apart]
    starts, targets = (list(side) for side in zip(*pairs, strict=True))
    times = np.array([0.0, *np.geomspace(0.01, _END, 300)])
    # The smallest drifts are below 1e-8.
    flow = gradient_flow(objectives.reverse_kl(), starts, targets, times=times, atol=1e-18)
    population = results.on_grid(
        flow["population"].to_dataset(), {"start": list(STARTS), "separation": apart}
    )
    drift = population["old_drift"]
    population["peak_old_drift"] = drift.max("time")
    population["integrated_old_drift"] = drift.integrate("time")
    return results.describe(population)


def _trainings(
    population: xr.Dataset, alpha: float, beta: float, replicates: int, seed: int, bar: tqdm
) -> xr.Dataset:
    """Return the peaks of finite-batch trainings from the first start, and what noise alone makes."""
    chosen = [objectives.reverse_kl(), objectives.reverse_kl(estimator="pathwise")]
    peaks = []
    for separation in TRAINED:
        runs = train(
            chosen,
            *_mixtures(separation, alpha, beta, STARTS[_GATED]),
            num_steps=_NUM_STEPS,
            batch_size=_BATCH,
            learning_rate=_RATE,
            num_replicates=replicates,
            seed=seed,
            progress=False,
        )
        drift = runs["trajectory"].to_dataset()["old_drift"].max("step", skipna=False)
        peaks.append(drift.where(results.converged(runs)))
        bar.update()
    apart = xr.DataArray(list(TRAINED), dims="separation", name="separation")
    found = (
        xr.concat(peaks, apart)
        .transpose("objective", "chain", "draw", "separation")
        .to_dataset(name="peak_old_drift")
    )
    widest = population.isel(objective=0, separation=-1).sel(start=_GATED)
    weights = np.interp(_RATE * np.arange(_NUM_STEPS), widest["time"], widest["old_weight"])
    change = np.log(weights / (1.0 - weights)) - np.log(alpha / (1.0 - alpha))
    # Deviations of one gradient of m_o where ℓ = log q - log p_α is a constant a mode, `change` apart. The
    # pathwise one, drawn half from either mode, has the noise of the samples, also at the target.
    deviations = [
        (1.0 - weights) * np.abs(change) * np.sqrt(weights / _BATCH),
        weights * np.sqrt(2.0 / _BATCH),
    ]
    found["noise_floor"] = ("objective", [_noise_floor(weights, d, seed) for d in deviations])
    return results.describe(found)


def _noise_floor(weights: np.ndarray, deviations: np.ndarray, seed: int) -> float:
    """Return E[max |m_o - μ_o|] over a training in which noise alone moves the old mean, for modes apart.

    A step moves it by -η β (m_o - μ_o) and by η times noise of the given deviation. The recursion is linear:
    its solution is a sum, over 2,000 draws.
    """
    decay = np.cumprod(1.0 - _RATE * weights)
    noise = np.random.default_rng(seed).normal(size=(2000, weights.size))
    paths = decay * np.cumsum(_RATE * deviations / decay * noise, axis=-1)
    return float(np.abs(paths).max(axis=-1).mean())


def summary(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row a measure and window: the posterior of the decay rate, and how well it was sampled.

    Columns: ``measure``, ``fit_from``; mean, ``_lower`` and ``_upper`` of ``decay_rate`` and ``log_power``;
    median ``residual_sd``; ``r_hat``, ``ess_bulk`` and ``ess_tail``, the worst of any parameter of the row;
    ``num_divergences`` of the whole sampling.
    """
    posterior = tree["posterior"].to_dataset()
    worst = {
        "r_hat": az.rhat(posterior).to_array().max("variable"),
        "ess_bulk": az.ess(posterior, method="bulk").to_array().min("variable"),
        "ess_tail": az.ess(posterior, method="tail").to_array().min("variable"),
    }
    columns: dict[str, xr.DataArray] = {}
    for name in ("decay_rate", "log_power"):
        columns |= tables.interval_columns(name, posterior[name])
    columns["residual_sd"] = posterior["residual_sd"].median(["chain", "draw"])
    columns |= worst
    frame = xr.Dataset(columns).to_dataframe().reset_index()
    frame["num_divergences"] = int(tree["sample_stats"]["diverging"].sum())
    return frame


def table(tree: xr.DataTree) -> tables.Table:
    """Return the summary as a table for the terminal."""
    frame = summary(tree)
    names = {"peak_old_drift": "peak", "integrated_old_drift": "integral"}
    frame["measure"] = frame["measure"].map(names)
    return tables.listed(
        frame,
        [
            ("old\ndrift", "measure"),
            ("from\nδ", "fit_from"),
            ("decay rate k\n(theory 0.125)", "decay_rate", _precise),
            ("power b\nof δ", "log_power"),
            ("residual\nsd", "residual_sd"),
            ("R-hat", "r_hat", lambda row, name: f"{row[name]:.3f}"),
            ("ESS", "ess_bulk", lambda row, name: f"{row[name]:.0f}"),
        ],
        title="How the drift of reverse KL falls with separation: δ^b exp(-k δ²)",
        caption=(
            f"Posterior mean, {interval_percent()} interval; exact flow, only the weight off "
            "at first. The drifts have no noise: the residual is what the form leaves of a smooth "
            "curve, and later windows tell how fast k nears its limit. R-hat and ESS: the worst of a row's "
            f"parameters; {frame['num_divergences'].iloc[0]} divergences."
        ),
    )


def _precise(row: tables.Row, name: str) -> str:
    return f"{row[name]:.4f}\n[{row[f'{name}_lower']:.4f}, {row[f'{name}_upper']:.4f}]"


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Return the figure ``drift``: decay and its rate's posterior, other starts, finite batches."""
    population = tree["population"].to_dataset().isel(objective=0)
    with figures.style():
        figure, panels = plt.subplots(2, 2, figsize=(10.0, 8.0))
        _plot_decay(panels[0, 0], population.sel(start=_GATED))
        _plot_posterior(panels[0, 1], tree["posterior"].to_dataset()["decay_rate"])
        _plot_starts(panels[1, 0], population)
        _plot_trainings(panels[1, 1], population.sel(start=_GATED), tree["trainings"].to_dataset())
        for axes in (*panels[0, :1], *panels[1]):
            figures.log_scale(axes, "y")
            _square_axis(axes, population["separation"].to_numpy())
        panels[1, 1].set_ylim(bottom=1e-4)
        panels[1, 1].set_xlim(8.0, 68.0)
    return {"drift": figure}


def _square_axis(axes: Axes, apart: np.ndarray) -> None:
    """Label δ where δ² is drawn: in δ² a drift that is gated by overlap falls on a straight line."""
    shown = [s for s in (3, 4, 5, 6, 7, 8, 9, 10, 11, 12) if apart[0] <= s <= apart[-1]]
    axes.set_xticks([float(s * s) for s in shown], [str(s) for s in shown])
    axes.set_xlabel("separation δ of the modes (scale δ²)")


def _plot_decay(axes: Axes, gated: xr.Dataset) -> None:
    square = gated["separation"].to_numpy() ** 2
    styles = figures.line_style(_MEASURES)
    for name, words in zip(_MEASURES, ("peak", "integral over time"), strict=True):
        look = styles[name]
        axes.plot(square, gated[name], look["marker"], color=look["color"], markersize=4, label=words)
        line = float(gated[name][-1]) * np.exp(-(square - square[-1]) / 8.0)
        axes.plot(square, line, "k:", linewidth=1.0, label="exp(-δ²/8)" if name == _MEASURES[0] else None)
    axes.set_ylabel("old drift")
    axes.set_title("Only the weight off: drift falls like the overlap")
    axes.legend()


def _plot_posterior(axes: Axes, rates: xr.DataArray) -> None:
    limits, mean = interval(rates), rates.mean(["chain", "draw"])
    styles = figures.line_style(_MEASURES)
    windows = rates["fit_from"].to_numpy()
    for shift, (name, words) in zip(
        (-0.06, 0.06), zip(_MEASURES, ("peak", "integral"), strict=True), strict=True
    ):
        centre = mean.sel(measure=name).to_numpy()
        ends = np.abs(limits.sel(measure=name).transpose("ci_bound", ...).to_numpy() - centre)
        look = styles[name]
        axes.errorbar(
            windows + shift, centre, ends, fmt=look["marker"], color=look["color"], capsize=3, label=words
        )
    axes.axhline(THEORY, color="k", linestyle=":", linewidth=1.2, label="theory, 1/8")
    axes.set(xlabel="least separation that is regressed", ylabel="decay rate k", xticks=windows)
    words = f"Posterior of k in δ^b exp(-k δ²),\nmean and {interval_percent()} interval"
    axes.set_title(words)
    axes.legend()


def _plot_starts(axes: Axes, population: xr.Dataset) -> None:
    square = population["separation"].to_numpy() ** 2
    for name, look in figures.line_style(list(STARTS)).items():
        axes.plot(square, population["peak_old_drift"].sel(start=name), label=name, markersize=4, **look)
    axes.set_ylabel("peak old drift")
    axes.set_title("Other starts: a near new mode overlaps more;\nan old mode that is off starts off")
    axes.legend()


def _plot_trainings(axes: Axes, gated: xr.Dataset, trainings: xr.Dataset) -> None:
    axes.plot(gated["separation"] ** 2, gated["peak_old_drift"], "0.3", linewidth=1.5, label="exact flow")
    peaks = trainings["peak_old_drift"]
    limits, mean = interval(peaks), peaks.mean(["chain", "draw"], skipna=True)
    labels = ("score estimator", "pathwise estimator")
    for name, words, look in zip(
        peaks["objective"].to_numpy(), labels, figures.line_style(labels).values(), strict=True
    ):
        centre = mean.sel(objective=name).to_numpy()
        ends = np.abs(limits.sel(objective=name).transpose("ci_bound", ...).to_numpy() - centre)
        square = peaks["separation"].to_numpy() ** 2
        floor = float(trainings["noise_floor"].sel(objective=name))
        axes.axhline(floor, color=look["color"], linestyle="--", linewidth=1.0)
        axes.errorbar(square, centre, ends, fmt=look["marker"], color=look["color"], capsize=3, label=words)
    axes.plot([], [], color="0.3", linestyle="--", linewidth=1.0, label="noise alone, predicted")
    axes.set_ylabel("peak old drift")
    axes.set_title(f"Finite batches ({_BATCH}): noise moves the old mode,\nhowever small the overlap")
    axes.legend(fontsize=9)


#: What the figures show, for those who read a report.
MEANINGS = {
    "drift": (
        "How the drift of on-policy learning falls with separation, the posterior of its rate of decay "
        "beside theory's 1/8, other starts, and trainings in finite batches."
    ),
}


def answer(tree: xr.DataTree) -> list[str]:
    """Return the answer in sentences: the rate of decay by measure, from the latest window."""
    names = {"peak_old_drift": "peak", "integrated_old_drift": "integral"}
    last = summary(tree).sort_values("fit_from").groupby("measure", sort=False).tail(1)
    return [
        f"The {names.get(str(row['measure']), row['measure'])} of old drift falls with separation at a rate "
        f"of {tables.inline(dict(row), 'decay_rate')} (theory: 0.125), from δ = {row['fit_from']:g} on."
        for _, row in last.iterrows()
    ]
