"""The check of a plan: the objectives trained with free means from the start that was planned for."""

from collections.abc import Sequence

import xarray as xr

from inference import results
from inference.training.train import train
from mixture_models.mixture.two_mode import TwoMode
from mixture_models.objectives import Objective
from mixture_models.theory.paths import Setting

_NUM_REPLICATES, _DIMENSION = 32, 2


def simulate(chosen: Sequence[Objective], setting: Setting, size: int, seed: int) -> xr.Dataset:
    """Train every objective; return final old weight and retention and peak drift of the replicates."""
    target = TwoMode.on_axis(setting.target_weight, setting.separation, _DIMENSION)
    runs = train(
        chosen,
        target.replace(old_weight=setting.start_weight),
        target,
        num_steps=setting.num_steps,
        batch_size=size,
        learning_rate=setting.learning_rate,
        num_replicates=_NUM_REPLICATES,
        seed=seed,
        progress=False,
    )
    kept, trajectory = results.converged(runs), runs["trajectory"].to_dataset()
    drift = trajectory["old_drift"].max("step", skipna=False)
    return xr.Dataset(
        {
            **{
                name: trajectory[name].isel(step=-1, drop=True).where(kept)
                for name in ("old_weight", "retention")
            },
            "peak_old_drift": drift.where(kept),
        }
    )
