"""What is noise and what is not: trainings held against the exact descent in the same steps."""

import numpy as np
import xarray as xr
from scipy import stats

from inference import results

results.register(
    deviation=("largest deviation from the exact descent", "standard error"),
    noise_limit=("what noise alone explains", "standard error"),
    deviation_step=("step of the largest deviation", "step"),
    discretisation=("largest distance of the exact descent from the flow, in retention", "1"),
)

#: Familywise probability that noise alone exceeds its limit in one objective.
FALSE_ALARM = 1e-3

# Deviations of parameters below this are not called deviations: reverse KL has no noise left at its optimum.
_RESOLUTION = 1e-6

_PARAMS = ("old_logit", "old_mean", "new_mean", "mean")


def deviation(tree: xr.DataTree, descent: xr.Dataset) -> xr.Dataset:
    """Return how far the mean of the replicates strays from the exact descent, in standard errors.

    Every parameter at every recorded step gives z = (mean over replicates - descent)/error, with error² =
    variance/replicates + 1e-12. Noise alone exceeds ``noise_limit``, the Student-t quantile for the number
    of z (Bonferroni), with probability below 0.1 %. A larger ``deviation`` is systematic: a batch's noise
    acts on a curved loss, or an estimator is biased.

    Args:
        tree: result of `inference.train`.
        descent: ``/population`` of `inference.population_descent`, recorded at the same steps.

    Returns:
        Dataset over the objectives of ``descent``: ``deviation`` (the largest |z|), ``noise_limit`` and
        ``deviation_step``, where it occurs. NaN and -1 with fewer than two replicates left.
    """
    kept = results.converged(tree)
    trajectory = tree["trajectory"].to_dataset().where(kept).sel(objective=descent["objective"])
    exact = descent.swap_dims(time="step")
    scores, number = [], 0
    for name in _PARAMS:
        if name in exact and name in trajectory:
            samples = trajectory[name].stack(replicate=("chain", "draw"))
            count = samples.notnull().sum("replicate")
            error = np.sqrt(samples.var("replicate", ddof=1, skipna=True) / count + _RESOLUTION**2)
            distance = abs(samples.mean("replicate", skipna=True) - exact[name])
            score = (distance / error).where(count > 1)
            number += score.size // score.sizes["objective"]
            scores.append(score.max([dim for dim in score.dims if dim not in ("objective", "step")]))
    largest = xr.concat(scores, "parameter").max("parameter")
    freedom = kept.sel(objective=descent["objective"]).sum(["chain", "draw"]).to_numpy() - 1
    quantile = stats.t.isf(0.5 * FALSE_ALARM / number, np.maximum(freedom, 1))
    limit = np.where(freedom > 0, quantile, np.nan)
    steps = largest["step"].to_numpy()[largest.fillna(-1.0).argmax("step").to_numpy()]
    found = largest.max("step").to_numpy()
    return results.describe(
        xr.Dataset(
            {
                "deviation": ("objective", found),
                "noise_limit": ("objective", limit),
                "deviation_step": ("objective", np.where(np.isnan(found), -1, steps)),
            },
            {"objective": descent["objective"].to_numpy()},
        )
    )


def discretisation(descent: xr.Dataset, flow: xr.Dataset) -> xr.Dataset:
    """Return the largest distance of the exact descent from the gradient flow at its times.

    Args:
        descent: ``/population`` of `inference.population_descent`.
        flow: ``/population`` of `inference.gradient_flow` at the same times.

    Returns:
        Dataset over objective: ``discretisation`` of ``retention``, the largest absolute difference.
    """
    gap = np.abs(descent["retention"].to_numpy() - flow["retention"].to_numpy()).max(axis=-1)
    return results.describe(
        xr.Dataset({"discretisation": ("objective", gap)}, {"objective": descent["objective"].to_numpy()})
    )
