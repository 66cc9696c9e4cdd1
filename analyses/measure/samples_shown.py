"""Samples and fitted modes in the plane of the axis between the references: what is kept, and its figure."""

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from analyses.core import figures
from inference import results
from inference.measurement.samples import sources
from inference.measurement.samples.stored import take

# Samples of a checkpoint that a figure shows, and checkpoints that it has panels for.
_POINTS, _PANELS = 400, 6


def shown(
    tree: xr.DataTree, samples: sources.Source, old_reference: sources.Source, new_reference: sources.Source
) -> xr.Dataset:
    """Return some samples in the frame: of the references and of evenly spaced checkpoints."""
    constant = tree["constant_data"].to_dataset()
    matrix, origin, forward = (
        constant[n].to_numpy() for n in ("projection", "frame_origin", "frame_forward")
    )
    features = [str(f) for f in constant["source_feature"].to_numpy()]
    numbers = tree["sample_stats"]["num_samples"].to_numpy()

    def finite(source: sources.Samples, index: int) -> Iterator[np.ndarray]:
        for y in source.pieces(index, features):
            yield y[np.isfinite(y).all(axis=1)]

    def framed(source: sources.Samples, index: int, num: int) -> np.ndarray:
        places = np.random.default_rng(index).choice(num, min(_POINTS, num), replace=False)
        y = take(finite(source, index), places)
        out = np.full((_POINTS, forward.shape[0]), np.nan)
        out[: len(y)] = (y @ matrix - origin) @ forward.T
        return out[:, :2]

    source = sources.samples_of("samples", samples)
    chosen = np.unique(
        np.linspace(0, len(source.names) - 1, min(_PANELS, len(source.names))).round().astype(int)
    )
    references = [sources.samples_of(n, s) for n, s in (("old", old_reference), ("new", new_reference))]
    plane = np.arange(min(2, forward.shape[0]))
    return results.describe(
        xr.Dataset(
            {
                "samples": (
                    ("shown_checkpoint", "sample", "plane"),
                    np.stack([framed(source, i, numbers[i]) for i in chosen]),
                ),
                "reference_samples": (
                    ("mode", "sample", "plane"),
                    np.stack([framed(r, 0, sum(map(len, finite(r, 0)))) for r in references]),
                ),
            },
            {
                "shown_checkpoint": [source.names[i] for i in chosen],
                "mode": ["old", "new"],
                "sample": np.arange(_POINTS),
                "plane": plane,
            },
        )
    )


def plot(tree: xr.DataTree) -> Figure:
    """Draw what `shown` returns, a panel a checkpoint."""
    points, constant = tree["shown"].to_dataset(), tree["constant_data"].to_dataset()
    posterior = tree["posterior"].to_dataset()
    forward = constant["frame_forward"].to_numpy()
    names = points["shown_checkpoint"].to_numpy()
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure, panels = plt.subplots(
        rows,
        columns,
        figsize=(3.2 * columns + 0.6, 3.0 * rows + 0.8),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    flat = points.sizes["plane"] == 1
    looks = figures.line_style(["old", "new"])
    circle = np.linspace(0.0, 2.0 * np.pi, 100)
    rng = np.random.default_rng(0)
    for axes, name in zip(panels.ravel(), names, strict=False):
        y = points["samples"].sel(shown_checkpoint=name).to_numpy()
        height = rng.uniform(-1.0, 1.0, len(y)) if flat else y[:, 1]
        axes.plot(y[:, 0], height, ".", color="0.55", markersize=2, label="samples")
        for mode, variable in (("old", "old_displacement"), ("new", "new_displacement")):
            moved = posterior[variable].sel(checkpoint=name).mean(["chain", "draw"]).to_numpy()
            moved = (forward @ moved)[:2] if constant["frame_forward"].shape[1] == len(moved) else moved[:2]
            reference = constant["frame_mean"].sel(mode=mode).to_numpy()[:2]
            centre = reference + moved
            if flat:
                reference, centre = np.append(reference, 0.0), np.append(centre, 0.0)
            color = looks[mode]["color"]
            axes.plot(*reference, "+", color=color, markersize=9, label=f"{mode} reference")
            axes.plot(*centre, looks[mode]["marker"], color=color, markersize=5, label=f"{mode} mode, fitted")
            axes.plot(
                centre[0] + 2 * np.cos(circle), centre[1] + 2 * np.sin(circle), color=color, linewidth=1.0
            )
        weight = float(posterior["old_weight"].sel(checkpoint=name).mean())
        axes.set_title(f"checkpoint {name}: old weight {weight:.2g}", fontsize=9)
        axes.set_aspect("equal")
    for axes in panels.ravel()[len(names) :]:
        axes.set_visible(False)
    for axes in panels[-1]:
        axes.set_xlabel("along the axis [Mahalanobis]")
    figure.supylabel("across it" if not flat else "(spread out)", fontsize=10)
    figure.suptitle(
        "Samples and fitted modes, along and across the axis between the references; circles: 2 sd",
        fontsize=10,
    )
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, markerscale=1.5)
    return figure
