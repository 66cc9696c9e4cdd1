"""Which objective keeps old tasks over a sequence of new ones, and learns these?"""

from collections.abc import Sequence

import pandas as pd
import xarray as xr
from rich.console import RenderableType
from tqdm.auto import tqdm

from analyses.core import outputs, tables
from analyses.sequence.settings import Settings
from inference import results
from inference.exact.population import has_exact
from inference.exact.sequence import sequence_flow
from inference.progress import hidden
from inference.training.sequence import train_sequence
from inference.training.stages import Stage
from mixture_models.mixture.mixture import Mixture
from mixture_models.objectives import Objective
from mixture_models.validation import InputError

# In more dimensions of the means' span the exact flow takes minutes an objective.
_MOST_DIMENSIONS = 3

# Records of the flow in each stage.
_NUM_RECORDS = 50

#: Both published senses of forgetting.
SENSES = ("forgetting_from_best", "forgetting_from_own_stage")


def run(settings: Settings, *, progress: bool = True) -> xr.DataTree:
    """Train every objective through all stages, and follow its exact flow.

    Returns:
        DataTree with the groups of `inference.train_sequence`, which have a dim objective (``/trajectory``,
        ``/stages``, ``/forgetting``, ``/trajectory_stats``), ``/constant_data``, and ``/population`` and
        ``/population_stages`` of the flows. Where there is none, the attribute ``no_exact_side`` says why.
    """
    chosen, start, sequences = settings.sequences()
    trained = [
        train_sequence(
            stages,
            start,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            num_replicates=settings.num_replicates,
            seed=settings.seed,
            record_every=settings.record_every,
            progress=False,
        )
        for stages in tqdm(sequences, desc="trained", unit="objective", disable=hidden(progress))
    ]
    names = ("trajectory", "stages", "forgetting", "trajectory_stats")
    groups = {name: _joined([tree[name].to_dataset() for tree in trained], chosen) for name in names}
    groups["constant_data"] = trained[0]["constant_data"].to_dataset()
    reasons = []
    flows, followed = [], []
    for objective, stages in zip(
        tqdm(chosen, desc="followed exactly", unit="objective", disable=hidden(progress)),
        sequences,
        strict=True,
    ):
        reason = _no_flow(stages, start)
        if reason is None:
            try:
                flows.append(
                    sequence_flow(
                        stages, start, learning_rate=settings.learning_rate, num_records=_NUM_RECORDS
                    )
                )
            except InputError as error:  # trainings stand by themselves where their flow cannot be followed
                reason = str(error)
            else:
                followed.append(objective)
        if reason is not None:
            reasons.append(f"{objective.name}: {reason}")
    for source, name in (("population", "population"), ("stages", "population_stages")):
        if flows:
            groups[name] = _joined([tree[source].to_dataset() for tree in flows], followed)
    if "population" in groups:
        steps = groups["population"]["time"] / settings.learning_rate
        groups["population"] = groups["population"].assign_coords(step=steps)
    tree = outputs.result(settings.asdict(), groups)
    if reasons:
        tree.attrs["no_exact_side"] = "; ".join(reasons)
    return tree


def _no_flow(stages: Sequence[Stage], start: Mixture) -> str | None:
    """Say why no exact flow is followed, or return None."""
    if not all(has_exact(stage.objective, start, stage.target) for stage in stages):
        return "it has no exact form"
    if start.dim > _MOST_DIMENSIONS:
        return f"the means span {start.dim} dimensions, and flows are followed in up to {_MOST_DIMENSIONS}"
    return None


def _joined(parts: Sequence[xr.Dataset], chosen: Sequence[Objective]) -> xr.Dataset:
    """Return what sequences recorded, an objective each, along a dim objective."""
    own = [part.drop_vars("stage_objective", errors="ignore") for part in parts]
    along = xr.DataArray([one.name for one in chosen], dims="objective", name="objective")
    return xr.concat(own, along).assign_coords(results.objective_coords(chosen))


def summary(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row an objective: what is forgotten of earlier tasks, and how well new ones are learnt.

    Columns ``X``, ``X_lower``, ``X_upper`` for ``forgetting_from_best`` and ``forgetting_from_own_stage``,
    means over the earlier tasks; ``plasticity``, ``backward_transfer``, ``average_performance``;
    ``last_TASK``, the last performance R[S, task]; and ``num_diverged``, left out of the rest.
    """
    kept = results.converged(tree)
    found = tree["forgetting"].to_dataset().where(kept)
    performance = tree["stages"]["task_performance"].where(kept).isel(stage=-1, drop=True)
    # Of the last task there is no forgetting.
    columns = {name: found[name].mean("task", skipna=True) for name in SENSES}
    columns |= {name: found[name] for name in ("plasticity", "backward_transfer", "average_performance")}
    columns |= {
        f"last_{task}": performance.sel(task=task, drop=True) for task in performance["task"].to_numpy()
    }
    shown = {
        key: value
        for name, one in columns.items()
        for key, value in tables.interval_columns(name, one).items()
    }
    shown["num_diverged"] = (~kept).sum(["chain", "draw"])
    return tables.frame_of(shown, pd.Index(kept["objective"].to_numpy(), name="objective"))


def table(tree: xr.DataTree) -> RenderableType:
    """Return the summary as a table for the terminal."""
    frame = summary(tree)
    over = tables.over_replicates(tree, one="sequence of each objective", many="sequences")
    tasks = [str(task) for task in tree["stages"]["task"].to_numpy()]
    return tables.by_name(
        frame,
        [
            ("forgetting from best", "forgetting_from_best"),
            ("forgetting from own stage", "forgetting_from_own_stage"),
            ("plasticity", "plasticity"),
            ("backward transfer", "backward_transfer"),
            ("average performance", "average_performance"),
            *((f"last performance on {task}", f"last_{task}") for task in tasks),
            ("diverged sequences, left out", "num_diverged"),
        ],
        title="What is forgotten of earlier tasks, and how well new ones are learnt",
        brief=(*SENSES, "plasticity"),
        caption=(
            f"{over}. The performance R on a task is the part of its share in the target that is retained, "
            "from 0 to 1. Forgetting from best: the best R of a task before the last stage minus its last R; "
            "from own stage: its R after the stage that taught it, or at the start, minus its last R; each a "
            "mean over the tasks before the last. Backward transfer is minus the second. Plasticity: R of a "
            "new task after its own stage, a mean over the new tasks."
        ),
    )


def remarks(tree: xr.DataTree) -> list[str]:
    """Say which sequences diverged, and where no exact flow is drawn."""
    lost = ~results.converged(tree)
    counts = lost.sum(["chain", "draw"]).to_series()
    found = [
        f"{count} of {lost.sizes['draw']} sequences of {name} diverged, and are left out."
        for name, count in counts.items()
        if count
    ]
    reason = tree.attrs.get("no_exact_side")
    return found if reason is None else [*found, f"Trainings without an exact flow beside them: {reason}."]
