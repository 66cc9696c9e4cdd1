"""Samples and fitted modes in the plane of the first two coordinates: what is kept, and its figure.

Of two references these are the axis between them and the first across it, of several their discriminants.
"""

from collections.abc import Iterator, Mapping
from textwrap import fill

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from analyses.core import figures
from inference import results
from inference.measurement.modes import in_frame, modes_of, names_of_modes, of_tasks
from inference.measurement.samples import sources
from inference.measurement.samples.stored import take

# Samples of a checkpoint that a figure shows, and checkpoints that it has panels for.
_POINTS, _PANELS = 400, 6


def shown(tree: xr.DataTree, samples: sources.Source, references: Mapping[str, sources.Source]) -> xr.Dataset:
    """Return some samples in the frame: of the references by name and of evenly spaced checkpoints."""
    constant = tree["constant_data"].to_dataset()
    size = constant.sizes["coordinate"]
    features = [str(f) for f in constant["source_feature"].to_numpy()]
    numbers = tree["sample_stats"]["num_samples"].to_numpy()

    def finite(source: sources.Samples, index: int) -> Iterator[np.ndarray]:
        for y in source.pieces(index, features):
            yield y[np.isfinite(y).all(axis=1)]

    def framed(source: sources.Samples, index: int, num: int) -> np.ndarray:
        places = np.random.default_rng(index).choice(num, min(_POINTS, num), replace=False)
        y = take(finite(source, index), places)
        out = np.full((_POINTS, size), np.nan)
        out[: len(y)] = in_frame(tree, y)
        return out[:, :2]

    source = sources.samples_of("samples", samples)
    chosen = np.unique(
        np.linspace(0, len(source.names) - 1, min(_PANELS, len(source.names))).round().astype(int)
    )
    names = names_of_modes(tree)
    of_modes = [sources.samples_of(name, references[name]) for name in names]
    mode = "task" if of_tasks(tree) else "mode"
    return results.describe(
        xr.Dataset(
            {
                "samples": (
                    ("shown_checkpoint", "sample", "plane"),
                    np.stack([framed(source, i, numbers[i]) for i in chosen]),
                ),
                "reference_samples": (
                    (mode, "sample", "plane"),
                    np.stack([framed(r, 0, sum(map(len, finite(r, 0)))) for r in of_modes]),
                ),
            },
            {
                "shown_checkpoint": [source.names[i] for i in chosen],
                mode: names,
                "sample": np.arange(_POINTS),
                "plane": np.arange(min(2, size)),
            },
        )
    )


def plot(tree: xr.DataTree) -> Figure:
    """Draw what `shown` returns, a panel a checkpoint."""
    points, posterior = tree["shown"].to_dataset(), tree["posterior"].to_dataset()
    modes, by_task = names_of_modes(tree), of_tasks(tree)
    names = points["shown_checkpoint"].to_numpy()
    figure, panels = figures.panels(len(names), (3.2, 3.0), margin=(0.6, 0.8), sharex=True, sharey=True)
    flat = points.sizes["plane"] == 1
    looks = figures.line_style(modes)
    circle = np.linspace(0.0, 2.0 * np.pi, 100)
    rng = np.random.default_rng(0)
    for axes, name in zip(panels, names, strict=True):
        y = points["samples"].sel(shown_checkpoint=name).to_numpy()
        height = rng.uniform(-1.0, 1.0, len(y)) if flat else y[:, 1]
        axes.plot(y[:, 0], height, ".", color="0.7", markersize=2, label="samples")
        index = list(posterior["checkpoint"].to_numpy()).index(name)
        placed = modes_of(tree, index)
        for mode, reference, centre in zip(modes, placed.references[:, :2], placed.means[:, :2], strict=True):
            if flat:
                reference, centre = np.append(reference, 0.0), np.append(centre, 0.0)
            color = looks[mode]["color"]
            word = figures.entry(mode) if by_task else f"{mode} mode"
            of_reference = f"{word}, reference" if by_task else f"{mode} reference"
            axes.plot(*reference, "+", color=color, markersize=9, label=of_reference)
            axes.plot(*centre, looks[mode]["marker"], color=color, markersize=5, label=f"{word}, fitted")
            axes.plot(
                centre[0] + 2 * np.cos(circle), centre[1] + 2 * np.sin(circle), color=color, linewidth=1.0
            )
        title = f"checkpoint {name}"
        if "old_weight" in posterior:
            title += f": old weight {float(posterior['old_weight'].sel(checkpoint=name).mean()):.2g}"
        axes.set_title(fill(title, 40), loc="center", fontsize=9)
        axes.set_aspect("equal")
    of_many = len(modes) > 2
    for axes in panels[-3:]:
        axes.set_xlabel(f"{'first discriminant' if of_many else 'along the axis'} [Mahalanobis]")
    beside = "second discriminant" if of_many else "across it"
    figure.supylabel(beside if not flat else "(spread out)")
    plane = "along the first two discriminants" if of_many else "along and across the axis"
    figures.heading(figure, f"Samples and fitted modes, {plane} between the references; circles: 2 sd")
    figures.legend_below(figure, *panels[0].get_legend_handles_labels(), columns=3, markerscale=1.5)
    return figure
