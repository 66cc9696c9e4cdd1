"""How much old behaviour does a real run keep, and how far has it moved? Table and figures."""

import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import platformdirs
import xarray as xr
from matplotlib.figure import Figure
from rich.console import Group, RenderableType
from rich.table import Table

from analyses import measure_tasks
from analyses.core import checkpoint_axis, examples_shown, figures, outputs, tables
from analyses.core.settings import BaseSettings, setting, text, texts
from inference import results
from inference.intervals import interval_probability
from inference.measurement.checkpoints import COVARIANCES, METHODS, TAILS, measure
from inference.measurement.examples import examples
from inference.measurement.generations.files import is_of_texts
from inference.measurement.generations.measure_generations import embed_generations
from inference.measurement.generations.rows import Columns
from inference.measurement.samples import sources
from inference.measurement.samples.stored import take
from mixture_models.validation import InputError, flag, folder_of, integer, one_of, path_of, positive

# Samples of a checkpoint that a figure shows, and checkpoints that it has panels for.
_POINTS, _PANELS = 400, 6


def _named(name: str, value: Any) -> tuple[str, ...]:
    """Return references that are given as texts NAME=FILE."""
    for one in texts(name, value):
        task, equals, file = one.partition("=")
        if not (task.strip() and equals and file.strip()):
            raise InputError(f"{name} must be NAME=FILE; got {one!r}")
        path_of(name, file)
    return texts(name, value)


@dataclass(frozen=True, kw_only=True)
class Settings(BaseSettings):
    """The settings of `run`, most of which are those of `inference.measure`."""

    run: Path = setting(
        path_of,
        "Samples of the checkpoints: arrays in .npz, .npy, .parquet, .nc or .zarr, or texts: a folder, file "
        "or quoted glob of .jsonl or .parquet.",
        argument=True,
    )
    old_reference: Path | None = setting(
        path_of, "Samples of the old task, in a file of the same kinds.", None, show="a --reference"
    )
    new_reference: Path | None = setting(path_of, "Samples of the new task.", None, show="a --reference")
    reference: tuple[str, ...] = setting(
        _named, "Arrays of a task, one of several, in the place of these; repeated.", (), metavar="NAME=FILE"
    )
    new_task: str | None = setting(
        text, "Which of several tasks is new.", None, show="new, where there is one of this name"
    )
    embedder: str = setting(
        text,
        "What makes features of text: ngrams, module:function or a sentence-transformers folder.",
        "ngrams",
    )
    text_column: str | None = setting(text, "Column of the texts.", None, show="found")
    prompt_column: str | None = setting(text, "Column of the prompts.", None, show="found")
    checkpoint_column: str | None = setting(
        text, "Column of the checkpoints.", None, show="found; where there is none, each file is a checkpoint"
    )
    id_column: str | None = setting(text, "Column of the names of texts.", None, show="found")
    cache: Path | None = setting(
        folder_of, "Folder of features that were made of texts.", None, show="your cache folder", stored=False
    )
    num_examples: int = setting(
        partial(integer, at_least=0), "Samples of a checkpoint to look at, for every reason to.", 5
    )
    method: str = setting(
        partial(one_of, known=METHODS), "laplace (fast), nuts, or auto: fast where it can be trusted.", "auto"
    )
    covariance: str = setting(
        partial(one_of, known=COVARIANCES), "shared, axis, proportional, unequal or auto.", "auto"
    )
    tails: str = setting(partial(one_of, known=TAILS), "Modes' tails: gaussian, student or auto.", "auto")
    neither: bool = setting(flag, "Add a component for neither task.", False)
    displacement_scale: float = setting(positive, "Prior scale of a displacement [Mahalanobis].", 0.5)
    num_draws: int = setting(integer, "Draws of the posterior.", 1000)
    max_features: int = setting(integer, "Project to this many coordinates above it.", 64)
    memory: float | None = setting(
        positive,
        "GiB that a checkpoint may take; a larger one is streamed.",
        None,
        show="40 % of the machine's",
        stored=False,
    )
    drop_missing: bool = setting(flag, "Leave out rows that are not finite.", False)
    seed: int = setting(partial(integer, at_least=0), "Seed of all random numbers.", 0)


def run(settings: Settings, *, progress: bool = True) -> xr.DataTree:
    """Measure a run, by `inference.measure` or, where it is of texts, `inference.measure_generations`.

    Returns:
        Its DataTree, with ``/examples`` and ``/shown``: some samples of some checkpoints and of the
        references in the frame, for the figure of the discriminant plane.

    Raises:
        InputError: as they say, or a run of texts with a reference of arrays, or the other way round.
    """
    references_by_name = _references(settings)
    options = inspect.signature(measure).parameters.keys() - {"old_reference", "new_reference"}
    given = {one.name: getattr(settings, one.name) for one in fields(settings) if one.name in options}
    given |= {"memory": None if settings.memory is None else settings.memory * 2**30, "progress": progress}
    if set(references_by_name) != {"old", "new"}:
        if any(map(is_of_texts, [settings.run, *references_by_name.values()])):
            raise InputError("texts are measured against an old and a new reference; got references by name")
        return measure(settings.run, references_by_name, **given)
    given_samples = settings.run, references_by_name["old"], references_by_name["new"]
    of_texts = [is_of_texts(source) for source in given_samples]
    if any(of_texts) != all(of_texts):
        kinds = ", ".join(
            f"{source} has {'texts' if one else 'arrays'}"
            for source, one in zip(given_samples, of_texts, strict=True)
        )
        raise InputError(f"a run and its references must all be texts, or all arrays; {kinds}")
    samples: sources.Source = settings.run
    references: list[sources.Source] = [*given_samples[1:]]
    said = None
    if of_texts[0]:
        embedded = embed_generations(
            *given_samples,
            embedder=settings.embedder,
            columns=Columns(
                settings.text_column, settings.prompt_column, settings.checkpoint_column, settings.id_column
            ),
            cache=settings.cache or Path(platformdirs.user_cache_dir("massdrift")) / "features",
            drop_missing=settings.drop_missing,
            progress=progress,
        )
        samples, references, said = embedded.samples, [embedded.old, embedded.new], embedded.said
    tree = measure(samples, dict(zip(("old", "new"), references, strict=True)), **given)
    if of_texts[0]:
        tree.attrs["embedder"] = settings.embedder
    if settings.num_examples:
        tree["examples"] = xr.DataTree(examples(tree, samples, num=settings.num_examples, said=said))
    tree["shown"] = xr.DataTree(_shown(tree, samples, *references))
    return tree


def _references(settings: Settings) -> dict[str, Path]:
    """Return the references by the names of their tasks.

    Raises:
        InputError: neither an old and a new one nor several by name, or both, or a name that comes twice.
    """
    both = {"old": settings.old_reference, "new": settings.new_reference}
    given = {name: path for name, path in both.items() if path is not None}
    if len(given) == 2 and not settings.reference:
        return given
    if given or not settings.reference:
        told = [f"{name}_reference" for name in given] + [f"reference {one}" for one in settings.reference]
        raise InputError(
            "references are an old_reference and a new_reference, or several NAME=FILE; got "
            f"{' and '.join(told) or 'none'}"
        )
    pairs = [one.partition("=") for one in settings.reference]
    twice = sorted({name for name, _, _ in pairs if [other for other, _, _ in pairs].count(name) > 1})
    if twice:
        raise InputError(f"references must have different names; got {', '.join(twice)} more than once")
    return {name: path_of("reference", file) for name, _, file in pairs}


def summary(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row a checkpoint (and task): means, intervals, resolutions and the verdict in words."""
    if measure_tasks.is_of_tasks(tree):
        return measure_tasks.summary(tree)
    posterior, stats = tree["posterior"].to_dataset(), tree["sample_stats"].to_dataset()
    columns: dict[str, Any] = {"num_samples": stats["num_samples"]}
    for name in ("old_weight", "old_drift", "new_gap"):
        columns |= tables.interval_columns(name, posterior[name])
    for name in (
        "old_resolution",
        "old_unmoved_probability",
        "new_resolution",
        "weight_information",
        "reference_share",
        "method",
        "k_hat",
        "r_hat",
        "ess",
        "divergences",
        "words",
        "weight_words",
        "drift_words",
    ):
        columns[name] = stats[name]
    return pd.DataFrame(
        {name: column.to_numpy() for name, column in columns.items()},
        index=pd.Index(posterior["checkpoint"].to_numpy(), name="checkpoint"),
    )


def table(tree: xr.DataTree) -> RenderableType:
    """Return the summary as a table for the terminal, and examples of the last checkpoint."""
    if measure_tasks.is_of_tasks(tree):
        return measure_tasks.table(tree)
    return Group(*([_table(tree)] + ([examples_shown.table(tree)] if "examples" in tree.children else [])))


def _table(tree: xr.DataTree) -> Table:
    frame = summary(tree)
    attrs = tree.attrs
    kept = float(attrs["information_kept"])
    caption = (
        f"Mean and {100 * interval_probability():g} % interval. Modes: {attrs['covariance']} covariance, "
        f"{attrs['tails']} tails; the references are {float(attrs['separation']):.3g} Mahalanobis apart. "
        "Below its resolution a drift cannot be told from none; P(unmoved): probability of no drift at all. "
        "The verdicts are on the weight and on the drift."
    )
    if kept < 1.0:
        size = tree["posterior"].sizes["feature"]
        caption += (
            f" Features were projected to {size}: held-out references keep {100 * kept:.0f} % of their "
            "distance, and drift outside of the projection is not in the numbers."
        )
    if int(attrs.get("num_reference_copies", 0)):
        caption += (
            f" {int(attrs['num_reference_copies'])} reference rows are copies of others, and count once."
        )
    if int(attrs["num_dropped"]):
        caption += f" {int(attrs['num_dropped'])} rows with missing values were left out."
    result = tables.new_table("What is left of the old task, and what has moved", caption)
    for name in ("checkpoint", "old weight", "old drift", "resolution", "P(unmoved)", "new gap"):
        result.add_column(name, justify="left" if name == "checkpoint" else "right")
    for name in ("weight", "drift"):
        result.add_column(name, justify="left")
    for name, row in frame.iterrows():
        cells = [tables.with_interval(dict(row), v) for v in ("old_weight", "old_drift")]
        result.add_row(
            *map(
                tables.shown,
                [
                    name,
                    *cells,
                    tables.number(row["old_resolution"]),
                    tables.number(row["old_unmoved_probability"]),
                    tables.with_interval(dict(row), "new_gap"),
                    *(row[f"{word}_words"].partition(":")[0] for word in ("weight", "drift")),
                ],
            )
        )
    return result


def remarks(tree: xr.DataTree) -> list[str]:
    """Return one sentence for each checkpoint whose verdict is not ``good``."""
    of_tasks = measure_tasks.is_of_tasks(tree)
    return tables.remarks(measure_tasks.words(tree) if of_tasks else summary(tree)["words"])


def write(tree: xr.DataTree, folder: Path) -> None:
    """Write ``results.zarr``, ``summary.csv``, the figures, and ``examples.csv`` where there are some."""
    outputs.write_analysis(sys.modules[__name__], tree, folder)
    if "examples" in tree.children:
        examples_shown.frame(tree).to_csv(folder / "examples.csv", index=False)


def plot(tree: xr.DataTree) -> dict[str, Figure]:
    """Return the figures ``old_weight`` (or ``weight``), ``drift`` and, of two modes, ``samples``."""
    if measure_tasks.is_of_tasks(tree):
        return measure_tasks.plot(tree)
    with figures.style():
        drawn = {"old_weight": _plot_weight(tree), "drift": _plot_drift(tree)}
        if "shown" in tree.children:
            drawn["samples"] = _plot_samples(tree)
    return drawn


def _untrusted(tree: xr.DataTree) -> np.ndarray:
    """Return whether each checkpoint is not to be trusted."""
    return np.char.startswith(tree["sample_stats"]["words"].to_numpy().astype(str), "not to be trusted")


def _plot_weight(tree: xr.DataTree) -> Figure:
    figure, axes = plt.subplots(figsize=(7.0, 4.2))
    checkpoint_axis.draw(axes, tree["posterior"].to_dataset(), ["old_weight"], _untrusted(tree))
    axes.set_ylim(0.0, 1.0)
    axes.set_ylabel(figures.label(tree["posterior"].to_dataset()["old_weight"]))
    words = f"point: mean, line: {100 * interval_probability():g} % interval"
    axes.set_title(f"Mass forgetting: how much old behaviour is left?\n{words}", loc="left", fontsize=10)
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend()
    return figure


def _plot_drift(tree: xr.DataTree) -> Figure:
    figure, axes = plt.subplots(figsize=(7.0, 4.2))
    checkpoint_axis.draw(axes, tree["posterior"].to_dataset(), ["old_drift", "new_gap"], _untrusted(tree))
    places, _ = checkpoint_axis.places(tree["posterior"]["checkpoint"].to_numpy())
    order = np.argsort(places)
    resolution = tree["sample_stats"]["old_resolution"].to_numpy()[order]
    top = axes.get_ylim()[1]
    axes.fill_between(
        places[order],
        0.0,
        resolution,
        color="0.6",
        alpha=0.25,
        linewidth=0,
        label="old drift cannot be told from none",
    )
    axes.set_ylim(0.0, top)
    axes.set_ylabel("distance from the reference [Mahalanobis]")
    words = f"point: mean, line: {100 * interval_probability():g} % interval"
    axes.set_title(f"Drift: how far have the modes moved?\n{words}", loc="left", fontsize=10)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _shown(tree: xr.DataTree, samples: Any, old_reference: Any, new_reference: Any) -> xr.Dataset:
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


def _plot_samples(tree: xr.DataTree) -> Figure:
    shown, constant = tree["shown"].to_dataset(), tree["constant_data"].to_dataset()
    posterior = tree["posterior"].to_dataset()
    forward = constant["frame_forward"].to_numpy()
    names = shown["shown_checkpoint"].to_numpy()
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
    flat = shown.sizes["plane"] == 1
    looks = figures.line_style(["old", "new"])
    circle = np.linspace(0.0, 2.0 * np.pi, 100)
    rng = np.random.default_rng(0)
    for axes, name in zip(panels.ravel(), names, strict=False):
        y = shown["samples"].sel(shown_checkpoint=name).to_numpy()
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
