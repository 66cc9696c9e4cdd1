"""The result of a run as one DataTree: what was measured, counted and predicted; and its numbers in rows."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from analyses.core import outputs, tables
from analyses.digits import data
from analyses.digits.choices import Choice
from analyses.digits.evals_layout import columns
from analyses.digits.judges import Count, Panel, panel_draws
from analyses.digits.settings import Settings
from inference import results
from inference.comparison.runs import compare_runs
from inference.intervals import interval_probability

results.register(
    classifier=("classifier of the panel", "1"),
    counted_by_kind=("old weight counted by one kind of classifier", "1"),
    agrees_with_kind=("whether the interval of the difference from one kind's count holds 0", "1"),
    distinct=("whether these images are counted here for the first time", "1"),
    counted_interval=("counted old weight, interval", "1"),
    difference=("measured minus counted old weight", "1"),
    difference_interval=("measured minus counted old weight, interval", "1"),
    agrees=("whether the interval of the difference holds 0", "1"),
    image=("generated image", "level of grey"),
    real_image=("real image", "level of grey"),
    image_number=("image", "1"),
    pixel_row=("row of pixels", "1"),
    pixel_column=("column of pixels", "1"),
)

#: What the images of a network before post-training are called; they are the same for all objectives.
START = "start"

#: Variables of ``/posterior`` that are kept, and those of ``/sample_stats``.
MEASURED = ("old_weight", "new_weight", "old_drift", "new_gap", "old_displacement")
CHECKED = (
    "old_resolution",
    "new_resolution",
    "k_hat",
    "weight_information",
    "method",
    "weight_words",
    "drift_words",
)

# Images of a checkpoint that a figure shows.
_SHOWN = 48

Arrays = Mapping[str, Mapping[str, np.ndarray]]


def checkpoint_name(objective: str, step: int) -> str:
    """Return what the images of a checkpoint are called."""
    return START if step == 0 else f"{objective}/{step}"


def image_sets(arrays: Arrays, steps: Sequence[int], seed: int) -> dict[str, np.ndarray]:
    """Return the images of one network's checkpoints by name, those of its start once."""
    return {
        checkpoint_name(objective, step): stored["samples"][place, seed].astype(np.int32)
        for objective, stored in arrays.items()
        for place, step in enumerate(steps)
    }


def assembled(
    settings: Settings,
    chosen: Mapping[str, Choice],
    arrays: Arrays,
    trees: Sequence[xr.DataTree],
    counts: Sequence[Mapping[str, list[list[Count]]]],
    digits: data.Digits,
) -> xr.DataTree:
    """Return the result of a run.

    Args:
        settings: of the run.
        chosen: the objectives by name.
        arrays: of each objective the images of its checkpoints, ``samples`` (checkpoint, seed, image, pixel).
        trees: what `measure` says of each network's `image_sets`.
        counts: of the same.
        digits: the real images.

    Returns:
        DataTree with ``/posterior`` over (objective, seed, chain, draw, checkpoint), ``/sample_stats``,
        ``/count`` (the independent count and its difference from the measured weight; ``distinct`` is false
        where the images of the start come again), ``/theory`` (the old weight that the two-mode lens
        predicts), ``/comparison`` of the objectives at the last checkpoint, each pair from the same network,
        and ``/shown`` (images).
    """
    axes = {"objective": list(chosen), "checkpoint": list(settings.steps), "seed": np.arange(len(trees))}

    def together(group: str, kept: tuple[str, ...]) -> xr.Dataset:
        every = xr.concat(
            [t[group].to_dataset()[list(kept)] for t in trees], xr.Variable("seed", axes["seed"])
        )
        of_each = []
        for name in chosen:
            own = every.sel(checkpoint=[checkpoint_name(name, step) for step in settings.steps])
            of_each.append(own.assign_coords(checkpoint=axes["checkpoint"]))
        return xr.concat(of_each, xr.Variable("objective", axes["objective"]))

    posterior = together("posterior", MEASURED)
    start = posterior["old_weight"].isel(checkpoint=0).mean(["chain", "draw"])
    predicted = [chosen[n].predicted(start.sel(objective=n).to_numpy()) for n in chosen]
    theory = xr.Dataset(
        {"predicted_old_weight": (("objective", "seed"), np.stack(predicted))},
        {name: axes[name] for name in ("objective", "seed")},
    )
    stats = together("sample_stats", CHECKED)
    groups = {
        "posterior": posterior,
        "sample_stats": stats,
        "count": _counted(posterior, counts, settings),
        "theory": theory,
        "comparison": _compared(posterior, stats, trees),
        "shown": _shown(arrays, axes, digits),
    }
    tree = outputs.result(settings.asdict(), groups)
    tree.attrs |= {"kind": "digits", "separation": float(trees[0].attrs["separation"])}
    return tree


def _compared(posterior: xr.Dataset, stats: xr.Dataset, trees: Sequence[xr.DataTree]) -> xr.Dataset:
    """Compare the objectives network by network: they all began at the same one."""
    per_seed = []
    for seed, tree in zip(posterior["seed"].to_numpy(), trees, strict=True):
        runs = {}
        for name in posterior["objective"].to_numpy():
            place = {"objective": name, "seed": seed}
            runs[str(name)] = xr.DataTree.from_dict(
                {
                    "/": xr.Dataset(attrs=tree.attrs),
                    "/posterior": posterior.sel(place, drop=True),
                    "/sample_stats": stats.sel(place, drop=True),
                    "/constant_data": tree["constant_data"].to_dataset(),
                }
            )
        per_seed.append(compare_runs(runs)["comparison"].to_dataset())
    return xr.concat(per_seed, posterior["seed"].variable)


def _counted(
    posterior: xr.Dataset, counts: Sequence[Mapping[str, list[list[Count]]]], settings: Settings
) -> xr.Dataset:
    """Hold the count of every checkpoint against its measured weight: P(old | old or new) of both."""
    dims = ("objective", "seed", "checkpoint")
    share = posterior["old_weight"] / (posterior["old_weight"] + posterior["new_weight"])
    measured = share.stack(one=("chain", "draw")).transpose(*dims, "one").to_numpy()
    shape, num_draws = measured.shape[:3], measured.shape[3]
    kinds = list(Panel.kinds)
    counted, distinct = np.zeros(measured.shape), np.ones(shape, bool)
    by_kind, differs = np.zeros((*shape, len(kinds))), np.zeros((*shape, len(kinds), num_draws))
    # One random state a network and checkpoint, whatever objective comes to it.
    for o, objective in enumerate(posterior["objective"].to_numpy()):
        for s, of_network in enumerate(counts):
            names = list(of_network)
            for c, step in enumerate(settings.steps):
                name = checkpoint_name(str(objective), step)
                rng = np.random.default_rng([settings.seed, s, names.index(name)])
                drawn = panel_draws(of_network[name], num_draws, rng)[..., 0]
                by_kind[o, s, c] = drawn.mean(axis=1)
                differs[o, s, c] = measured[o, s, c] - drawn
                # One classifier of the panel a draw.
                counted[o, s, c] = drawn[rng.integers(len(kinds), size=num_draws), np.arange(num_draws)]
                distinct[o, s, c] = o == 0 or step > 0
    tails = 0.5 + 0.5 * interval_probability() * np.array([-1.0, 1.0])

    def bounds(draws: np.ndarray) -> np.ndarray:
        return np.moveaxis(np.quantile(draws, tails, axis=-1), 0, -1)

    def holds_zero(between: np.ndarray) -> np.ndarray:
        return (between[..., 0] <= 0.0) & (between[..., 1] >= 0.0)

    between = bounds(measured - counted)
    return xr.Dataset(
        {
            "counted_by_kind": ((*dims, "classifier"), by_kind),
            "agrees_with_kind": ((*dims, "classifier"), holds_zero(bounds(differs))),
            "counted_old_weight": (dims, counted.mean(-1)),
            "counted_interval": ((*dims, "ci_bound"), bounds(counted)),
            "difference": (dims, (measured - counted).mean(-1)),
            "difference_interval": ((*dims, "ci_bound"), between),
            "agrees": (dims, holds_zero(between)),
            "distinct": (dims, distinct),
        },
        {n: posterior[n] for n in dims} | {"ci_bound": ["lower", "upper"], "classifier": kinds},
    )


def _shown(arrays: Arrays, axes: Mapping[str, object], digits: data.Digits) -> xr.Dataset:
    square = (_SHOWN, data.SIDE, data.SIDE)
    images = [a["samples"][:, 0, :_SHOWN].reshape(-1, *square) for a in arrays.values()]
    real = [p[:_SHOWN].reshape(square) for p in (digits.networks.old, digits.networks.new)]
    grid = ("image_number", "pixel_row", "pixel_column")
    return xr.Dataset(
        {
            "image": (("objective", "checkpoint", *grid), np.stack(images)),
            "real_image": (("mode", *grid), np.stack(real)),
        },
        {name: axes[name] for name in ("objective", "checkpoint")}
        | {"mode": ["old", "new"], "image_number": np.arange(_SHOWN)}
        | {f"pixel_{side}": np.arange(data.SIDE) for side in ("row", "column")},
    )


def summary(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row an objective, seed and checkpoint: old weight, drift and gap, the count, the answers."""
    posterior, count = tree["posterior"].to_dataset(), tree["count"].to_dataset()
    rows = xr.Dataset()
    for name in ("old_weight", "old_drift", "new_gap"):
        rows = rows.assign(tables.interval_columns(name, posterior[name]))
    for name in ("counted_old_weight", "difference", "agrees", "distinct"):
        rows[name] = count[name]
    for bound in ("lower", "upper"):
        rows[f"counted_old_weight_{bound}"] = count["counted_interval"].sel(ci_bound=bound, drop=True)
        rows[f"difference_{bound}"] = count["difference_interval"].sel(ci_bound=bound, drop=True)
    for kind in count["classifier"].to_numpy():
        rows[f"counted by {kind}"] = count["counted_by_kind"].sel(classifier=kind, drop=True)
    rows = rows.merge(xr.Dataset(columns(tree, ["chain", "draw"])), join="outer")
    rows = rows.merge(tree["sample_stats"].to_dataset(), join="outer")
    return rows.to_dataframe().reset_index()


def order_agreement(tree: xr.DataTree) -> np.ndarray:
    """Return draws of the share of pairs of objectives whose last old weights are ordered as predicted.

    A draw is one of the posterior of one network, so that both sources of uncertainty are in it; pairs that
    are predicted to be equal do not count.
    """
    last = tree["posterior"].to_dataset()["old_weight"].isel(checkpoint=-1)
    measured = last.stack(one=("chain", "draw")).transpose("seed", "objective", "one").to_numpy()
    predicted = tree["theory"]["predicted_old_weight"].transpose("seed", "objective").to_numpy()
    first, second = np.triu_indices(measured.shape[1], 1)
    shares = []
    for of_network, foreseen in zip(measured, predicted, strict=True):
        gap = foreseen[first] - foreseen[second]
        counts = np.abs(gap) > 1e-9
        found = of_network[first] - of_network[second]
        shares.append(np.mean(np.sign(found[counts]) == np.sign(gap[counts])[:, None], axis=0))
    return np.concatenate(shares)
