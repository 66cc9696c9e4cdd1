"""The figures of `analyses.chen2025`: where the densities end, and what is lost for what is gained."""

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from analyses.core import figures
from inference import results
from inference.intervals import interval_percent
from mixture_models.mixture.two_mode import TwoMode

# One colour a method in every panel; rates of one method differ in their dashes.
_METHODS = ("forward KL", "published RL", "reverse KL")
_DASHES = ("-", "--")


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Return the figures ``densities`` and ``drop_and_gain``, by name."""
    with figures.style():
        return {"densities": _plot_densities(tree), "drop_and_gain": _plot_drop_and_gain(tree)}


def _plot_densities(tree: xr.DataTree) -> Figure:
    panels = [
        (setting, name)
        for setting in tree.children
        for name in tree.children[setting]["final"]["objective"].to_numpy()
    ]
    figure, grid = plt.subplots(4, 3, figsize=(10.0, 9.5), sharex=True, sharey="row")
    x = np.linspace(-8.0, 8.0, 401)
    for axes, (setting, name) in zip(grid.flat, panels, strict=True):
        part = tree.children[setting]
        trajectory = part["trajectory"].to_dataset().where(results.converged(part)).sel(objective=name)
        target = results.two_mode(part, "target")
        axes.fill_between(x, sum(_modes(target, x)), color="0.85", label="target")
        axes.plot(x, _density(trajectory.isel(step=0), x), color="0.4", linestyle=":", label="start")
        end = _density(trajectory.isel(step=-1), x)
        axes.plot(x, end, color=figures.line_style([""])[""]["color"], linewidth=1.8, label="end")
        words = [f"{word} {trajectory[word].isel(step=-1).median():.2f}" for word in ("drop", "gain")]
        axes.set_title(f"{setting}: {name}\n{', '.join(words)}", loc="center", fontsize=8.5)
    for axes in grid[-1]:
        axes.set_xlabel("sample x")
    for axes in grid[:, 0]:
        axes.set_ylabel("density")
    figures.legend_below(figure, *grid[0, 0].get_legend_handles_labels(), columns=3)
    figure.suptitle("Where the learners end (mean density over replicates; median drop and gain)")
    return figure


def _plot_drop_and_gain(tree: xr.DataTree) -> Figure:
    rows = [("bimodal", 0.005), ("bimodal", 1.0), ("unimodal", 1.0)]
    figure, grid = plt.subplots(3, 2, figsize=(9.5, 9.0))
    for pair, (setting, factor) in zip(grid, rows, strict=True):
        part = tree.children[setting]
        kept = part["trajectory"].to_dataset().where(results.converged(part))
        kept = kept.isel(objective=kept["factor"].to_numpy() == factor)
        styles = _styles(kept)
        for axes, word in zip(pair, ("drop", "gain"), strict=True):
            figures.bands(axes, kept[word], styles)
            axes.set(xlabel="training step", ylabel=figures.label(kept[word]), xlim=(0, kept["step"].max()))
        pair[1].axhline(0.9, color="0.35", linewidth=1.0, linestyle=":")
        words = (
            ""
            if setting == "unimodal"
            else ", without the factor"
            if factor == 1.0
            else f", factor {factor:g}"
        )
        pair[0].set_title(f"{setting} learner{words}")
        pair[1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=8.5)
    words = f"line: mean, band: {interval_percent()} interval of the replicates"
    figure.suptitle(f"What is lost of the old mode for what is gained of the new one ({words})")
    return figure


def _styles(data: xr.Dataset) -> figures.Styles:
    by_method = figures.line_style(_METHODS)
    styles: figures.Styles = {}
    for name, method in zip(data["objective"].to_numpy(), data["method"].to_numpy(), strict=True):
        earlier = sum(style["method"] == method for style in styles.values())
        styles[str(name)] = by_method[str(method)] | {"linestyle": _DASHES[earlier], "method": method}
    return {name: {key: style[key] for key in ("color", "linestyle")} for name, style in styles.items()}


def _modes(mixture: TwoMode, x: np.ndarray) -> list[np.ndarray]:
    """Return the weighted densities of a target's modes."""
    weights = (mixture.old_weight, 1.0 - mixture.old_weight)
    means = (mixture.old_mean, mixture.new_mean)
    return [w * _normal(x, m, s) for w, m, s in zip(weights, means, mixture.scales, strict=True)]


def _density(state: xr.Dataset, x: np.ndarray) -> np.ndarray:
    """Return the learners' density at ``x``, averaged over the replicates."""
    state, grid = state.isel(feature=0, chain=0, drop=True), xr.DataArray(x, dims="x")
    if "mean" in state:
        return _normal(grid, state["mean"], state["scale"]).mean("draw").to_numpy()
    old = state["old_weight"] * _normal(grid, state["old_mean"], state["old_scale"])
    new = (1.0 - state["old_weight"]) * _normal(grid, state["new_mean"], state["new_scale"])
    return (old + new).mean("draw").to_numpy()


def _normal[T: (np.ndarray, xr.DataArray)](x: T, mean: T, scale: T) -> T:
    return np.exp(-0.5 * ((x - mean) / scale) ** 2) / (scale * np.sqrt(2.0 * np.pi))
