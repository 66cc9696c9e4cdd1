"""At which settings do SDFT, TTT-Discover and OAPL forget? Maps of retention and old drift.

For each method two settings are crossed: the exact descent after the steps of a training at every pair,
theory's formula, and trainings on batches at some of the pairs.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr
from tqdm.auto import tqdm

from analyses.core import outputs, tables
from analyses.near_on_policy.maps import NAMES, Map, adaptive, maps
from analyses.near_on_policy.settings import Settings
from inference import results
from inference.comparison.replicates import systematic_displacement
from inference.exact.descent import population_descent
from inference.intervals import interval_percent
from inference.progress import hidden
from inference.training.train import train
from mixture_models.mixture.two_mode import TwoMode
from mixture_models.objectives import Objective
from mixture_models.validation import InputError, flag

_MEASURES = ["old_weight", "retention", "old_coverage", "old_drift", "new_gap"]

# Rows of a map that are trained at: the ends and the middle of the ordinate.
_TRAINED_ROWS = 3

# The group of TTT-Discover with an adaptive η.
_ADAPTIVE = "adaptive"

# Points that the table shows of every map, all of its middle row.
_SHOWN = 3


def run(settings: Settings, *, progress: bool = True) -> xr.DataTree:
    """Map the three methods exactly, by theory and, at some points, by trainings.

    Returns:
        DataTree with a group a map, ``/sdft`` over (ema, anchor), ``/demonstrations`` over
        (demonstrated_drift, demonstrated_weight), ``/ttt_discover`` over (eta, kl_weight) and ``/oapl`` over
        (beta, lag). Each has ``population``, the exact ``old_weight``, ``retention``, ``old_coverage``,
        ``old_drift`` and ``new_gap`` after the last step, NaN where integrals are not accurate; ``theory``,
        its ``old_weight``, ``retains`` and ``resting_old_weight``; ``trained``, the same as ``population`` of
        every training, NaN where it diverged, and ``mean_displacement``. ``/adaptive/trained`` over kl_weight
        is TTT-Discover's with an adaptive η.
    """
    chosen = maps(settings)
    groups: dict[str, xr.Dataset] = {}
    flag("progress", progress)
    with tqdm(total=2 * len(chosen) + 1, unit="map", disable=hidden(progress)) as bar:
        for name, crossed in chosen.items():
            bar.set_description(f"{name}, exact")
            groups[f"{name}/population"] = _exact(crossed, settings)
            groups[f"{name}/theory"] = crossed.theory_over()
            bar.update()
            bar.set_description(f"{name}, trainings")
            groups[f"{name}/trained"] = _trained_over(crossed, settings)
            groups[f"{name}/theory"].attrs = {"words": crossed.theory, "title": crossed.title}
            bar.update()
        kl_weight = groups["ttt_discover/trained"]["kl_weight"].to_numpy()
        groups[f"{_ADAPTIVE}/trained"] = _trained(
            adaptive(settings, kl_weight), settings, {"kl_weight": kl_weight}
        )
        bar.update()
    return outputs.result(settings.asdict(), groups)


def _exact(crossed: Map, settings: Settings) -> xr.Dataset:
    """Return what the exact descent reaches at every pair of a map, NaN where it cannot be followed."""
    # All means lie on a line, which the descent never leaves: one dimension is enough.
    start, target = settings.mixtures(1)
    chosen = crossed.objectives(target, crossed.axes)
    try:
        reached = _reached(chosen, start, target, settings)
    except InputError:
        alone = [_reached_or_nan(objective, start, target, settings) for objective in chosen]
        reached = xr.concat(alone, "objective")
    return _on_axes(reached, crossed.axes)


def _reached(chosen: list[Objective], start: TwoMode, target: TwoMode, settings: Settings) -> xr.Dataset:
    """Return where the exact descent of every objective is after the last step."""
    steps = settings.num_steps
    tree = population_descent(
        chosen,
        start,
        target,
        num_steps=steps,
        learning_rate=settings.learning_rate,
        record_every=steps,
    )
    final = tree["population"].to_dataset().isel(time=-1, drop=True)[_MEASURES]
    return final.reset_coords(drop=True)


def _reached_or_nan(objective: Objective, start: TwoMode, target: TwoMode, settings: Settings) -> xr.Dataset:
    """Return `_reached` of one objective, NaN where its integrals are not accurate."""
    try:
        return _reached([objective], start, target, settings)
    except InputError:
        unknown = {measure: ("objective", [np.nan]) for measure in _MEASURES}
        return xr.Dataset(unknown, {"objective": [objective.name]})


def _trained_over(crossed: Map, settings: Settings) -> xr.Dataset:
    """Return what trainings reach at some pairs of a map."""
    sizes = (_TRAINED_ROWS, settings.num_trained)
    axes = {
        name: values[_spread(values.size, size)]
        for (name, values), size in zip(crossed.axes.items(), sizes, strict=True)
    }
    _, target = settings.mixtures(settings.dimension)
    return _trained(crossed.objectives(target, axes), settings, axes)


def _spread(count: int, wanted: int) -> np.ndarray:
    """Return places from the first to the last of ``count``."""
    return np.unique(np.round(np.linspace(0, count - 1, wanted)).astype(int))


def _trained(chosen: list[Objective], settings: Settings, axes: Mapping[str, np.ndarray]) -> xr.Dataset:
    runs = train(
        chosen,
        *settings.mixtures(settings.dimension),
        num_steps=settings.num_steps,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        num_replicates=settings.num_replicates,
        seed=settings.seed,
        record_every=settings.num_steps,
        progress=False,
    )
    final = runs["final"].to_dataset()[_MEASURES]
    displaced = systematic_displacement(runs)
    final["mean_displacement"] = displaced["displacement"]
    final["mean_displacement_error"] = displaced["error"]
    return _on_axes(final, axes)


def _on_axes(dataset: xr.Dataset, axes: Mapping[str, np.ndarray]) -> xr.Dataset:
    """Give the objectives of a map the dims of its axes."""
    flat = dataset.reset_coords(drop=True).rename(objective="setting")
    return results.on_grid(flat, axes).transpose(*axes, ...)


def summary(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row a point that was trained at.

    Columns: ``map``; the two settings that it crosses, by name; ``theory_old_weight``; ``retains`` and
    ``resting_old_weight``, theory in the long run; ``exact_X`` after the same steps; the mean over the
    trainings of ``X`` with ``_lower`` and ``_upper``, for ``old_weight``, ``retention``, ``old_coverage``,
    ``old_drift`` and ``new_gap``; ``mean_displacement`` of the old mean, the drift of the mean training,
    with its ``_error``; ``num_diverged``, left out of the rest. An adaptive η has neither theory nor
    ``exact_X``, and no ``eta``.
    """
    frames = []
    for name in (*NAMES, _ADAPTIVE):
        group = tree[name]
        trained = group["trained"].to_dataset()
        points = {axis: trained[axis] for axis in trained["mean_displacement"].dims}
        columns: dict[str, xr.DataArray] = {}
        if "theory" in group.children:
            predicted, exact = (group[part].to_dataset().sel(points) for part in ("theory", "population"))
            columns["theory_old_weight"] = predicted["old_weight"]
            columns |= {word: predicted[word] for word in ("retains", "resting_old_weight")}
            columns |= {f"exact_{measure}": exact[measure] for measure in _MEASURES}
        for measure in _MEASURES:
            columns |= tables.interval_columns(measure, trained[measure])
        columns |= {word: trained[word] for word in ("mean_displacement", "mean_displacement_error")}
        columns["num_diverged"] = trained["old_weight"].isnull().sum(["chain", "draw"])
        frame = xr.Dataset(columns).to_dataframe().reset_index()
        frame.insert(0, "map", name)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


# What the table says of a point, by map.
_WORDS = {
    "sdft": "SDFT\nλ {anchor:g}, ema {ema:g}",
    "demonstrations": "SDFT shown\nβ {demonstrated_weight:g}, drift {demonstrated_drift:g}",
    "ttt_discover": "TTT-Discover\nλ {kl_weight:g}, η {eta:g}",
    "oapl": "OAPL\nlag {lag:g}, τ {beta:g}",
    _ADAPTIVE: "TTT-Discover\nλ {kl_weight:g}, η adaptive",
}


def table(tree: xr.DataTree) -> tables.Table:
    """Return some points of every map as a table for the terminal."""
    frame, settings = summary(tree), tree.attrs
    shown = [_middle(tree, name, frame[frame["map"] == name]) for name in (*NAMES, _ADAPTIVE)]
    frame = pd.concat(shown)
    frame["point"] = [_WORDS[str(row["map"])].format(**row) for _, row in frame.iterrows()]
    return tables.listed(
        frame,
        [
            ("method,\nsetting", "point"),
            ("theory,\nlong run", "theory_old_weight", _theory),
            ("old weight", "exact_old_weight", tables.with_trained("old_weight")),
            ("retention", "exact_retention"),
            ("old\ncoverage", "exact_old_coverage"),
            ("old drift", "exact_old_drift", tables.with_trained("old_drift")),
        ],
        title="What near-on-policy methods leave of the old mode",
        caption=(
            f"From old weight {settings['start_old_weight']:g}, a right old mean and a new mean "
            f"{settings['start_new_gap']:g} off, target's old weight {settings['old_weight']:g}, "
            f"separation {settings['separation']:g}, reward gap "
            f"{settings['reward_gap']:g}, after {settings['num_steps']} steps of rate "
            f"{settings['learning_rate']:g}. Old weight β, retention, coverage and drift: exact, without the "
            f"noise of batches. Trained: in batches of {settings['batch_size']}, mean and "
            f"{interval_percent()} interval of {settings['num_replicates']} trainings; noise "
            "moves the old mean of each. Theory of the old weight, right means: SDFT's decay at its local "
            "rate, or what it is shown; TTT-Discover at rest, OAPL in the same rounds (τ = β₁ = β₂), both "
            "for modes apart. Below it, where theory has the weight rest, with overlap; not held: old mass "
            "that nothing holds, lost in the long run (OAPL, TTT-Discover) or to noise (SDFT)."
        ),
    )


def _middle(tree: xr.DataTree, name: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a map that the table shows."""
    points = tree[name]["trained"]["mean_displacement"]
    if len(points.dims) > 1:
        ordinate = str(points.dims[0])
        values = points[ordinate].to_numpy()
        rows = rows[rows[ordinate] == values[values.size // 2]]
    return rows.iloc[_spread(len(rows), _SHOWN)]


def _theory(row: tables.Row, name: str) -> str:
    """Write what theory predicts above where it has the weight rest."""
    if pd.isna(row[name]):
        return tables.MISSING
    rest = f"→ {tables.number(row['resting_old_weight'])}" if row["retains"] else "not held"
    return f"{tables.number(row[name])}\n{rest}"
