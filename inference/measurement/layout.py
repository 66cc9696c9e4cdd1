"""The layout of a measurement: what was kept of every checkpoint, as one DataTree."""

from collections.abc import Hashable, Sequence

import numpy as np
import xarray as xr

from inference import results
from inference.measurement.checkpoint import Setup
from inference.measurement.run.groups import checks_of, coords_of, drawn, stacked
from inference.measurement.run.measured import Measured
from inference.measurement.samples import inputs
from inference.measurement.verdict import checks


def tree_of(
    measured: Sequence[Measured],
    checked: inputs.Checked,
    setup: Setup,
    settings: dict[str, object],
    extra: dict[str, object],
    prompt_groups: Sequence[Hashable] = (),
) -> xr.DataTree:
    """Return the result of a measurement, whose groups docs/measurement.md describes."""
    names, projection = checked.samples.names, setup.projection
    features = checked.features if projection.names is None else projection.names
    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    for name, array in stacked(measured, "posterior").items():
        last = ["prompt_group"] if name == "group_weight" else ["feature"] * (array.ndim == 3)
        variables[name] = (("chain", "draw", "checkpoint", *last), drawn(array))
    coords = coords_of(names, setup.num_draws) | {"feature": features}
    coords |= {"prompt_group": list(prompt_groups)} if prompt_groups else {}
    stats = {name: ("checkpoint", array) for name, array in stacked(measured, "stats").items()}
    observed = stacked(measured, "observed")
    frame, means = setup.references.frame, setup.references.means
    groups = {
        "posterior": xr.Dataset(variables, coords),
        "sample_stats": xr.Dataset(stats, {"checkpoint": names}),
        **checks_of(measured, names, checks.STATISTICS),
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
    return results.assembled(groups, results.provenance(settings) | {"kind": "measurement"} | extra)
