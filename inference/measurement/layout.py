"""The layout of a measurement: what was kept of every checkpoint, as one DataTree."""

from collections.abc import Hashable, Sequence

import numpy as np
import xarray as xr

from inference import results
from inference.measurement.checkpoint import Measured, Plan
from inference.measurement.references.anchors import NUM_DRAWS
from inference.measurement.references.projection import Projection
from inference.measurement.samples import inputs
from inference.measurement.verdict import checks

#: Of the posterior.
CHAINS = 4


def tree_of(
    measured: Sequence[Measured],
    names: list[Hashable],
    checked: inputs.Checked,
    projection: Projection,
    plan: Plan,
    settings: dict[str, object],
    extra: dict[str, object],
    prompt_groups: Sequence[Hashable] = (),
) -> xr.DataTree:
    """Return the result of a measurement, whose groups docs/measurement.md describes."""
    per_chain = plan.num_draws // CHAINS
    features = checked.features if projection.names is None else projection.names
    draws = {
        "chain": np.arange(CHAINS),
        "draw": np.arange(per_chain),
        "checkpoint": names,
        "reference_draw": ("draw", np.arange(per_chain) % NUM_DRAWS),
    }

    def stacked(part: str) -> dict[str, np.ndarray]:
        """Return the arrays of a part with a first axis over the checkpoints."""
        kept = [getattr(found, part) for found in measured]
        return {name: np.stack([np.asarray(arrays[name]) for arrays in kept]) for name in kept[0]}

    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    for name, array in stacked("posterior").items():
        split = array.reshape(len(names), CHAINS, per_chain, *array.shape[2:])
        last = ["prompt_group"] if name == "group_weight" else ["feature"] * (array.ndim == 3)
        dims = ("chain", "draw", "checkpoint", *last)
        variables[name] = (dims, np.moveaxis(split, 0, 2))
    stats = {name: ("checkpoint", array) for name, array in stacked("stats").items()}
    observed, check = stacked("observed"), stacked("check")
    checked_names = {"statistic": list(checks.STATISTICS)}
    replicated = check["replicated"]
    frame, means = plan.references.frame, plan.references.means
    groups = {
        "posterior": xr.Dataset(
            variables,
            draws | {"feature": features} | ({"prompt_group": list(prompt_groups)} if prompt_groups else {}),
        ),
        "sample_stats": xr.Dataset(stats, {"checkpoint": names}),
        "observed_data": xr.Dataset(
            {
                "check_statistic": (("checkpoint", "statistic"), check["observed"]),
            },
            {"checkpoint": names} | checked_names,
        ),
        "posterior_predictive": xr.Dataset(
            {
                "check_statistic": (
                    ("chain", "draw", "checkpoint", "statistic"),
                    np.moveaxis(replicated, 0, 1)[None],
                )
            },
            {"chain": [0], "draw": np.arange(replicated.shape[1]), "checkpoint": names} | checked_names,
        ),
        "constant_data": xr.Dataset(
            {
                "sample_mean": (("checkpoint", "source_feature"), observed["mean"]),
                "sample_sd": (("checkpoint", "source_feature"), observed["sd"]),
                "reference_mean": (
                    ("mode", "source_feature"),
                    np.stack([checked.old.mean(0), checked.new.mean(0)]),
                ),
                "frame_mean": (("mode", "coordinate"), means),
                "frame_origin": ("feature", frame.origin),
                "frame_forward": (("coordinate", "feature"), frame.forward),
                "projection": (("source_feature", "feature"), projection.matrix),
            },
            {
                "checkpoint": names,
                "mode": ["old", "new"],
                "feature": features,
                "source_feature": checked.features,
                "coordinate": np.arange(means.shape[1]),
            },
        ),
    }
    for name, array in stacked("log_likelihood").items():
        values = array.reshape(len(names), CHAINS, per_chain, -1)
        groups["log_likelihood"] = xr.Dataset(
            {name: (("chain", "draw", "checkpoint", "row"), np.moveaxis(values, 0, 2))},
            {k: draws[k] for k in ("chain", "draw", "checkpoint")} | {"row": np.arange(values.shape[-1])},
        )
    return results.assembled(groups, results.provenance(settings) | {"kind": "measurement"} | extra)
