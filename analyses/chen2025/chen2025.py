"""The simulation of Chen et al. 2025 (arXiv:2510.18874): is it the objective that retains, or a rate factor?

In the published bi-modal runs the updates of the old mode and of the weight are multiplied by 0.005. Here
both published settings run as they were, then without that factor, then with the true reverse KL.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import optax
import pandas as pd
import xarray as xr
from jax.tree_util import Partial

from analyses.core import tables
from analyses.core.settings import BaseSettings, seed_setting, setting
from inference import results
from inference.intervals import interval, interval_percent
from inference.training.loop import scale_by_name
from inference.training.train import train
from mixture_models.losses.kl import ReverseKL
from mixture_models.objectives import Objective, new_data, true_target
from mixture_models.objectives.published import (
    START,
    TARGET,
    FlooredForwardKL,
    PublishedRL,
    PublishedSingleModeLearner,
    PublishedTwoModeLearner,
    clip_to_bounds,
)
from mixture_models.types import ModelOrGuide, Scalar
from mixture_models.validation import integer

results.register(
    drop=("drop in overlap with the old mode", "1"),
    gain=("gain in overlap with the new mode", "1"),
    learnt_drop=("drop where the gain first reaches 0.9", "1"),
    learnt_step=("step where the gain first reaches 0.9", "step"),
    factor=("factor on the updates of the old mode and of the weight", "1"),
)

#: What the published code multiplies the updates of the weight and of the old mode by.
FACTOR = 0.005

#: Samples in a batch, and the gain at which a run counts as having learnt.
BATCH_SIZE, LEARNT = 1000, 0.9

_NEW_DATA = (Partial(new_data, None), "new data")
_TARGET = (Partial(true_target), "the true target")
_METHODS = {
    "forward KL": (*_NEW_DATA, FlooredForwardKL()),
    "published RL": (*_NEW_DATA, PublishedRL()),
    "reverse KL": (*_TARGET, ReverseKL()),
}


@dataclass(frozen=True)
class Run:
    """One line of the reproduction: a method at a learning rate, with the factor or without."""

    method: str
    learning_rate: float
    factor: float = 1.0

    @property
    def name(self) -> str:
        """What tables and results call it."""
        factor = "" if self.factor == 1.0 else f", factor {self.factor:g}"
        return f"{self.method}, rate {self.learning_rate:g}{factor}"

    def train(
        self, learner: ModelOrGuide, num_steps: int, num_replicates: int, seed: int, progress: bool
    ) -> xr.DataTree:
        """Train the replicates by clipped plain gradient steps on the published coordinates."""
        model, description, divergence = _METHODS[self.method]
        tree = train(
            Objective(self.name, model, learner, divergence, description),
            START,
            TARGET,
            num_steps=num_steps,
            batch_size=BATCH_SIZE,
            learning_rate=self.learning_rate,
            num_replicates=num_replicates,
            seed=seed,
            optimizer=published_steps(self.learning_rate, self.factor),
            progress=progress,
        )
        labels = {"method": self.method, "learning_rate": self.learning_rate, "factor": self.factor}
        return tree.map_over_datasets(_labelled, kwargs=labels)


#: As published, then with the factor set to 1, then with the true reverse KL, also at a larger rate.
BIMODAL = (
    Run("forward KL", 0.15, FACTOR),
    Run("forward KL", 0.01, FACTOR),
    Run("published RL", 0.01, FACTOR),
    Run("forward KL", 0.15),
    Run("forward KL", 0.01),
    Run("published RL", 0.01),
    Run("reverse KL", 0.01, FACTOR),
    Run("reverse KL", 0.01),
    Run("reverse KL", 0.15),
)

UNIMODAL = (Run("forward KL", 0.05), Run("published RL", 0.005), Run("reverse KL", 0.005))


@dataclass(frozen=True, kw_only=True)
class Settings(BaseSettings):
    """The settings of `run`; every training sees the same random numbers."""

    num_replicates: int = setting(integer, "Trainings of each run.", 64)
    seed: int = seed_setting()


def run(settings: Settings, *, progress: bool = True) -> xr.DataTree:
    """Reproduce both published settings, and the bi-modal one without the factor and with reverse KL.

    Returns:
        DataTree with children ``/bimodal`` and ``/unimodal``, each a result of `inference.training.train`.
        Their ``/trajectory`` and ``/final`` also hold ``drop`` and ``gain``; ``/learnt`` holds
        ``learnt_step`` and ``learnt_drop``, where the gain first reaches 0.9, NaN where it never does.
    """
    num_replicates, seed = settings.num_replicates, settings.seed
    parts = {
        "bimodal": (PublishedTwoModeLearner(), BIMODAL, 200),
        "unimodal": (PublishedSingleModeLearner(), UNIMODAL, 1000),
    }
    tree = xr.DataTree(xr.Dataset(attrs=results.provenance(settings.asdict())))
    for name, (learner, runs, num_steps) in parts.items():
        trees = [one.train(learner, num_steps, num_replicates, seed, progress) for one in runs]
        tree[name] = _with_forgetting(_concatenated(trees))
    return tree


def summary(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row a run: drop and gain where the gain first reaches 0.9 and at the end.

    Columns ``learnt_drop``, ``learnt_step``, ``drop`` and ``gain`` hold medians (the published importance
    weights are heavy-tailed), with ``_mean``, ``_lower`` and ``_upper`` beside them; ``num_learnt`` counts
    the replicates that reached the gain, of ``num_replicates`` that stayed finite; ``num_diverged`` did not.
    """
    frames = []
    for published in ("bimodal", "unimodal"):
        part = tree.children[published]
        kept = results.converged(part)
        final, learnt = (part[group].to_dataset() for group in ("final", "learnt"))
        values: dict[str, xr.DataArray] = {name: final[name] for name in ("drop", "gain")}
        values |= {name: learnt[name] for name in ("learnt_drop", "learnt_step")}
        columns = {"setting": xr.full_like(kept["objective"], published, dtype=object)}
        columns |= {name: kept[name] for name in ("method", "learning_rate", "factor")}
        for name, array in values.items():
            limits = interval(array.where(kept))
            columns[name] = array.where(kept).median(["chain", "draw"], skipna=True)
            columns[f"{name}_mean"] = array.where(kept).mean(["chain", "draw"], skipna=True)
            columns[f"{name}_lower"], columns[f"{name}_upper"] = limits.transpose("ci_bound", ...)
        columns["num_learnt"] = values["learnt_step"].where(kept).count(["chain", "draw"])
        columns["num_replicates"] = kept.sum(["chain", "draw"])
        columns["num_diverged"] = (~kept).sum(["chain", "draw"])
        index = pd.Index(kept["objective"].to_numpy(), name="run")
        frames.append(tables.frame_of(columns, index))
    return pd.concat(frames)


def table(tree: xr.DataTree) -> tables.Table:
    """Return the summary as a table for the terminal."""
    rows, ends, previous = [], set(), ""
    for place, (name, row) in enumerate(summary(tree).iterrows()):
        learnt = f"{row['num_learnt']} of {row['num_replicates']}"
        then = tables.with_interval(row, "learnt_drop") if row["num_learnt"] else "not reached"
        ended = [tables.with_interval(row, end) for end in ("drop", "gain")]
        rows.append(
            [f"{row['setting']}\n{name}" if row["setting"] != previous else str(name), learnt, then, *ended]
        )
        if previous and row["setting"] != previous:
            ends.add(place - 1)
        previous = row["setting"]
    return tables.Table(
        ["learner, method", "reached\ngain 0.9", "drop then", "final drop", "final gain"],
        rows,
        "Chen et al. 2025: what is lost of the old mode for what is gained of the new one",
        f"Median and {interval_percent()} interval of the replicates. Drop and gain are the "
        "change since the start of the overlap with the target's old and new mode, as published.",
        ends=ends,
    )


def remarks(tree: xr.DataTree) -> list[str]:
    """Return the conclusion, which the command prints below the table."""
    return [conclusion(tree)]


def conclusion(tree: xr.DataTree) -> str:
    """Say, from the numbers, how much of the published retention is the factor and how much the objective."""
    frame = summary(tree)
    rl, slow_rl = (frame.loc[Run("published RL", 0.01, factor).name] for factor in (1.0, FACTOR))
    kl, slow_kl = (frame.loc[Run("forward KL", 0.15, factor).name] for factor in (1.0, FACTOR))
    exact = frame.loc[Run("reverse KL", 0.01).name]
    return (
        f"With the factor {FACTOR:g} the published RL ends with a drop of {slow_rl['drop']:.3f} and forward "
        f"KL (rate 0.15) with {slow_kl['drop']:.3f}; where the gain first reaches {LEARNT:g} they stand at "
        f"{slow_rl['learnt_drop']:.3f} and {slow_kl['learnt_drop']:.3f}. With the factor set to 1 they end "
        f"at {rl['drop']:.3f} and {kl['drop']:.3f}. So without the factor the published RL loses "
        f"{rl['drop'] - slow_rl['drop']:.3f} more of the old overlap: that much of its retention is the "
        f"factor. It then keeps {kl['drop'] - rl['drop']:.3f} more than forward KL: that much is the "
        f"objective. The true reverse KL without the factor ends with a drop of {exact['drop']:.3f} and a "
        f"gain of {exact['gain']:.3f} (a negative drop is an old mode that got better): "
        f"{exact['num_learnt']} of {exact['num_replicates']} replicates reached a gain of {LEARNT:g}."
    )


def extras(tree: xr.DataTree) -> dict[str, str]:
    """Return ``conclusion.txt``."""
    return {"conclusion.txt": conclusion(tree) + "\n"}


def published_steps(learning_rate: float, factor: float) -> optax.GradientTransformation:
    """Return plain gradient steps: slowed for the weight and the old mode, then clipped.

    Rate and factor are numbers of the compiled program, so that all runs of a method share one.

    Args:
        learning_rate: of every param.
        factor: multiplies the updates of the weight, the old mean and the old scale, before the clip.
    """
    numbers = (learning_rate, factor)
    return optax.GradientTransformation(Partial(_first_state, *numbers), Partial(_step, *numbers))


def _first_state(learning_rate: Scalar, factor: Scalar, params: optax.Params) -> optax.OptState:
    return _chain(learning_rate, factor).init(params)


def _step(
    learning_rate: Scalar,
    factor: Scalar,
    updates: optax.Updates,
    state: optax.OptState,
    params: optax.Params | None = None,
) -> tuple[optax.Updates, optax.OptState]:
    return _chain(learning_rate, factor).update(updates, state, params)


def _chain(learning_rate: Scalar, factor: Scalar) -> optax.GradientTransformation:
    slowed = dict.fromkeys(("old_weight", "old_mean", "old_scale"), factor)
    return optax.chain(optax.sgd(learning_rate), scale_by_name(slowed), clip_to_bounds())


def _labelled(data: xr.Dataset, **labels: object) -> xr.Dataset:
    """Give the objective of a training its method, rate and factor as coordinates."""
    if "objective" not in data.sizes:
        return data
    return results.describe(data.assign_coords({k: ("objective", [value]) for k, value in labels.items()}))


def _concatenated(trees: Sequence[xr.DataTree]) -> xr.DataTree:
    """Join trainings of one learner along ``objective``."""
    joined = {
        name: xr.concat([tree[name].to_dataset() for tree in trees], "objective")
        for name in ("trajectory", "trajectory_stats")
    }
    joined["constant_data"] = trees[0]["constant_data"].to_dataset()
    return xr.DataTree.from_dict({f"/{name}": data for name, data in joined.items()})


def _with_forgetting(tree: xr.DataTree) -> xr.DataTree:
    """Add ``drop`` and ``gain`` to the trajectory, and what stands where a replicate has learnt."""
    trajectory = tree["trajectory"].to_dataset()
    first = trajectory.isel(step=0, drop=True)
    trajectory["drop"] = first["old_overlap"] - trajectory["old_overlap"]
    trajectory["gain"] = trajectory["new_overlap"] - first["new_overlap"]
    reached = trajectory["gain"] >= LEARNT
    at = reached.argmax("step")
    learnt = xr.Dataset(
        {"learnt_drop": trajectory["drop"].isel(step=at), "learnt_step": trajectory["step"][at]}
    )
    groups = {
        "trajectory": trajectory,
        "final": trajectory.isel(step=-1, drop=True),
        "learnt": learnt.drop_vars("step").where(reached.any("step")),
    }
    for name, group in groups.items():
        tree[name] = xr.DataTree(results.describe(group))
    return tree
