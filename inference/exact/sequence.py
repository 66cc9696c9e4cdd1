"""The exact gradient flow of a sequence of post-trainings."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from inference.exact.flow import gradient_flow
from inference.results.schema import describe
from inference.results.sequence import sequence_tree
from inference.training.stages import Stage, check_stages
from mixture_models.mixture.mixture import Mixture
from mixture_models.validation import integer, positive

# What a result has for trainings, and not for the population.
_OF_TRAINING = {"chain": 0, "draw": 0}


def sequence_flow(
    stages: Sequence[Stage],
    start: Mixture,
    *,
    learning_rate: float,
    num_records: int = 20,
    metric: str = "euclidean",
    learning_rate_factors: Mapping[str, float] | None = None,
    rtol: float = 1e-8,
    atol: float = 1e-12,
) -> xr.DataTree:
    """Follow the exact gradient flow of stage after stage: what `train_sequence` does without its noise.

    A stage lasts for its steps times the learning rate, and begins where the one before it ended; companions
    begin with their stage. See `gradient_flow` for the rest, `inference.storage.kept.keeping` included.

    Args:
        stages: what is trained, in this order; objectives with an exact form.
        start: the learner before the first stage; tasks that no stage teaches count as known.
        learning_rate: η.
        num_records: of every stage, after its start.
        metric: ``"euclidean"`` or ``"whitened"``.
        learning_rate_factors: f by name of the param; 0 freezes one.
        rtol: relative tolerance of a step.
        atol: absolute tolerance of a step.

    Returns:
        DataTree with ``/population`` (dims time over all stages, and task or feature; coordinate ``stage``
        along time), ``/stages`` (dim stage, 0 the start), ``/forgetting`` and ``/constant_data``, as
        `train_sequence` returns them, without chain and draw.

    Raises:
        InputError: an argument out of range, an objective without an exact form, or a flow that cannot be
            followed to the end.
    """
    checked = check_stages(stages, start)
    rate, count = positive("learning_rate", learning_rate), integer("num_records", num_records)
    records, times, learner = [], [], start
    for stage in checked:
        when = np.linspace(0.0, stage.num_steps * rate, count + 1)
        tree = gradient_flow(
            stage.objective,
            learner,
            stage.target,
            times=when,
            metric=metric,
            learning_rate_factors=learning_rate_factors,
            learning_rate=rate,
            rtol=rtol,
            atol=atol,
        )
        found = tree["population"].to_dataset().isel(objective=0, drop=True)
        records.append({str(name): array.to_numpy()[None] for name, array in found.data_vars.items()})
        times.append(when)
        learner = learner.recorded({str(name): array[0, -1] for name, array in records[-1].items()})
    settings = {
        "learning_rate": rate,
        "metric": metric,
        "learning_rate_factors": dict(learning_rate_factors or {}),
        "rtol": rtol,
        "atol": atol,
    }
    tree = sequence_tree(checked, start, records, times, np.full(1, -1), settings)
    groups = {
        name: tree[name].to_dataset().isel(_OF_TRAINING, drop=True, missing_dims="ignore")
        for name in tree.children
        if name != "trajectory_stats"
    }
    population = describe(groups.pop("trajectory").rename(step="time"))
    population["loss"].attrs["long_name"] = "divergence, exact"
    return xr.DataTree.from_dict(
        {"/": tree.to_dataset(), "/population": population} | {f"/{name}": g for name, g in groups.items()}
    )
