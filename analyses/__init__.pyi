from . import (
    calibration,
    chen2025,
    compare,
    compare_runs,
    drift,
    geometry,
    mass_forgetting,
    measure,
    near_on_policy,
    outputs,
    plan,
    replay,
)

__all__ = [
    "calibration",
    "chen2025",
    "compare",
    "compare_runs",
    "drift",
    "geometry",
    "mass_forgetting",
    "measure",
    "near_on_policy",
    "outputs",
    "plan",
    "replay",
]
