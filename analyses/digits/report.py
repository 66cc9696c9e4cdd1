"""What a run prints: tables for a terminal of 80 columns, and what it says in words."""

import numpy as np
import pandas as pd
import xarray as xr
from rich.console import RenderableType

from analyses.core import tables
from analyses.digits.layout import order_agreement
from inference.intervals import interval, interval_percent
from inference.measurement.verdict.kinds import UNTRUSTED, of_kind


def final(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row an objective: its last checkpoint, the seeds' draws put together."""
    posterior, count = tree["posterior"].to_dataset(), tree["count"].to_dataset()
    last, dims = posterior.isel(checkpoint=-1), ["seed", "chain", "draw"]
    columns: dict[str, xr.DataArray] = {}
    for name in ("old_weight", "old_drift", "new_gap"):
        columns |= tables.interval_columns(name, last[name], dims)
    columns["start_old_weight"] = posterior["old_weight"].isel(checkpoint=0).mean(dims)
    columns["start_old_drift"] = posterior["old_drift"].isel(checkpoint=0).mean(dims)
    columns["counted"] = count["counted_old_weight"].isel(checkpoint=-1).mean("seed")
    columns["predicted"] = tree["theory"].to_dataset()["predicted_old_weight"].mean("seed")
    columns["num_agree"] = count["agrees"].sum(["seed", "checkpoint"])
    frame = tables.frame_of(columns, pd.Index(posterior["objective"].to_numpy(), name="objective"))
    frame["num_counted"] = count["seed"].size * count["checkpoint"].size
    against = tree["comparison"].to_dataset().mean("seed").isel(other=0)
    first = against["other"].item()
    for name, side in (("old_weight", "larger"), ("old_drift", "smaller")):
        probability = against[f"{name}_probability_{side}"].to_series()
        frame[f"{name}_{side}"] = probability.where(probability.index != first)[frame.index]
    return frame


def table(tree: xr.DataTree) -> RenderableType:
    """Return the last checkpoints as a table for the terminal, an objective a column."""
    first = str(tree["comparison"]["other"].to_numpy()[0])
    return tables.by_name(
        final(tree),
        [
            ("old weight at the start", "start_old_weight"),
            ("old weight, measured", "old_weight"),
            ("old weight, counted", "counted"),
            ("old weight, where the lens rests", "predicted"),
            ("old drift at the start", "start_old_drift"),
            ("old drift", "old_drift"),
            ("new gap", "new_gap"),
            (f"P(kept more than {first})", "old_weight_larger"),
            (f"P(drifted less than {first})", "old_drift_smaller"),
            ("checkpoints where measure and count agree", "num_agree", _of_counted),
        ],
        title="What post-training left of the old digits",
        caption=f"Last checkpoint; mean and {interval_percent()} interval over the draws of "
        "all networks; probabilities within a network, their mean. Drift and gap: Mahalanobis distance from "
        "real digits.",
    )


def _of_counted(row: tables.Row, name: str) -> str:
    return f"{row[name]:.0f} of {row['num_counted']:.0f}"


def agreement(tree: xr.DataTree) -> tables.Table:
    """Return measured and counted old weight of every objective and checkpoint, means over the networks."""
    count, posterior = tree["count"].to_dataset(), tree["posterior"].to_dataset()
    words = tree["sample_stats"]["weight_words"]
    per = xr.Dataset(
        {
            "measured": posterior["old_weight"].mean(["seed", "chain", "draw"]),
            "counted": count["counted_old_weight"].mean("seed"),
            "lower": count["difference"].min("seed"),
            "upper": count["difference"].max("seed"),
            "num_agree": count["agrees"].sum("seed"),
            "distrusted": xr.apply_ufunc(of_kind, words, UNTRUSTED).sum("seed"),
            "distinct": count["distinct"].all("seed"),
        }
    )
    frame = per.to_dataframe().reset_index()
    frame = frame[frame["distinct"]].assign(num_counted=count["seed"].size)
    frame.loc[frame["checkpoint"] == 0, "objective"] = "all, start"
    return tables.listed(
        frame,
        [
            ("objective", "objective"),
            ("step", "checkpoint"),
            ("measured", "measured", lambda row, name: f"{row[name]:.3f}"),
            ("counted", "counted", lambda row, name: f"{row[name]:.3f}"),
            ("differences", "lower", lambda row, _: f"{row['lower']:+.3f} to {row['upper']:+.3f}"),
            ("agree", "num_agree", _of_counted),
            ("distrusted", "distrusted", lambda row, name: f"{row[name]:.0f}"),
        ],
        title="Measured old weight and that counted by classifiers trained on real digits",
        caption="Means over networks; least and largest difference; at how many networks the "
        f"{interval_percent()} interval of the difference holds 0, and how many measurements "
        "are not to be trusted by their own checks.",
    )


def agreements(tree: xr.DataTree) -> tuple[int, int]:
    """Return at how many checkpoints measure and count agree, and of how many; a start counts once."""
    count = tree["count"].to_dataset()
    distinct = count["distinct"].to_numpy()
    return int(count["agrees"].to_numpy()[distinct].sum()), int(distinct.sum())


def words(tree: xr.DataTree) -> str:
    """Return what a run says of the lens and of the instrument."""
    frame, count = final(tree), tree["count"].to_dataset()
    off = (frame["old_weight"] - frame["predicted"]).abs()
    near = ", ".join(off.index[off <= 0.1]) or "none"
    far = ", ".join(
        f"{n} ({frame.loc[n, 'old_weight'] - frame.loc[n, 'predicted']:+.2f})" for n in off.index[off > 0.1]
    )
    shares = order_agreement(tree)
    low, high = interval(xr.DataArray(shares, dims="draw"), ["draw"]).to_numpy()
    distinct = count["distinct"].to_numpy()
    difference = count["difference"].to_numpy()[distinct]
    agree, total = agreements(tree)
    distrusted = of_kind(tree["sample_stats"]["weight_words"].transpose(*count["distinct"].dims), UNTRUSTED)
    alone = ", ".join(
        f"{kind} {count['agrees_with_kind'].sel(classifier=kind).to_numpy()[distinct].sum()}"
        for kind in count["classifier"].to_numpy()
    )
    return (
        f"The lens orders {shares.mean():.2f} [{low:.2f}, {high:.2f}] of the pairs of objectives as their "
        f"measured old weights are. Within 0.1 of where it rests: {near}. Further off: {far or 'none'}. "
        f"The measured old weight agrees with the count at {agree} of {total} checkpoints "
        f"({interval_percent()} intervals of the difference; root mean square of the "
        f"difference {np.sqrt(np.mean(difference**2)):.3f}, largest {np.abs(difference).max():.3f}; with one "
        f"kind of classifier alone: {alone}), and {distrusted[distinct].sum()} are not to be trusted by the "
        "instrument's own checks."
    )
