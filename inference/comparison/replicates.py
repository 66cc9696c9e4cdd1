"""Which of two objectives forgets less: probabilities and mean differences over replicates."""

import numpy as np
import xarray as xr
from scipy import stats

from inference import results
from inference.intervals import mean_difference_interval, mean_interval
from mixture_models.mixture import covariance as cov

results.register(
    mean_displacement=("old drift of the mean over trainings", "Mahalanobis"),
    mean_displacement_error=("root mean square error of that drift", "Mahalanobis"),
)


def compare(tree: xr.DataTree, variable: str = "retention") -> xr.Dataset:
    """Compare the final values of every objective with those of every other.

    The probability is the share of pairs of replicates in which the objective has the larger value, a tie
    counted half. Under common random numbers a pair is one replicate of both, otherwise any two. A
    replicate that diverged under either objective is left out of its pairs.

    Args:
        tree: result of a training.
        variable: a scalar variable of its ``/final``.

    Returns:
        Dataset over (objective, other): ``probability_larger``, ``mean_difference`` (objective minus
        other), its Student-t or Welch interval ``mean_difference_interval`` (dim ci_bound), and
        ``num_pairs``. Where fewer than two replicates are left the interval is NaN, where none is, all are.
    """
    final = tree["final"].to_dataset()[variable].where(results.converged(tree))
    names = final["objective"].to_numpy()
    values = [final.sel(objective=name).stack(replicate=("chain", "draw")).to_numpy() for name in names]
    paired = bool(tree.attrs["common_random_numbers"])
    compared = [[_compare(a, b, paired) for b in values] for a in values]
    table = np.array(compared)
    dims = ("objective", "other")
    units = final.attrs["units"]
    label = f"{final.attrs['long_name']}: "
    comparison = xr.Dataset(
        {
            "probability_larger": (dims, table[..., 0], _attrs(label + "probability to be larger", "1")),
            "mean_difference": (dims, table[..., 1], _attrs(label + "mean difference", units)),
            "mean_difference_interval": (
                (*dims, "ci_bound"),
                table[..., 2:4],
                _attrs(label + "interval of the mean difference", units),
            ),
            "num_pairs": (dims, table[..., 4].astype(int), _attrs("pairs of replicates", "1")),
        },
        {
            "objective": names,
            "other": ("other", names, _attrs("objective compared with", "1")),
            "ci_bound": ["lower", "upper"],
        },
        {"paired": int(paired), "variable": variable},
    )
    return results.describe(comparison)


def systematic_displacement(tree: xr.DataTree, mode: str = "old") -> xr.Dataset:
    """Return how far the mean over replicates of a mode's final mean is from the target's.

    The norm of one noisy displacement is biased upward by about √(d · variance), so its mean has a floor
    even without drift. The norm of the mean displacement, ‖mean_i(m_i) - μ‖ in the target's metric, has
    that floor divided by √replicates; ``error`` is its root mean square error √(Σ_j var_j / replicates).

    Args:
        tree: result of a training of two-mode learners.
        mode: ``"old"`` or ``"new"``.

    Returns:
        Dataset over objective: ``displacement`` and ``error`` (NaN with fewer than two replicates left).
    """
    target = results.two_mode(tree, "target")
    index = ("old", "new").index(mode)
    centre, scale = (target.old_mean, target.new_mean)[index], target.scales[index]
    kept = results.converged(tree)
    final = tree["final"].to_dataset()[f"{mode}_mean"]
    rows = []
    for name in final["objective"].to_numpy():
        stacked = final.sel(objective=name).where(kept.sel(objective=name)).stack(replicate=("chain", "draw"))
        u = cov.whiten(
            scale, stacked.transpose("replicate", "feature").dropna("replicate").to_numpy() - centre
        )
        error = np.sqrt(u.var(axis=0, ddof=1).sum() / len(u)) if len(u) > 1 else np.nan
        rows.append((np.linalg.norm(u.mean(axis=0)) if len(u) else np.nan, error))
    norms, errors = np.array(rows).T
    return xr.Dataset(
        {
            "displacement": ("objective", norms, _attrs(f"distance of the mean {mode} mean", "Mahalanobis")),
            "error": ("objective", errors, _attrs("its root mean square error", "Mahalanobis")),
        },
        {"objective": final["objective"].to_numpy()},
    )


def _compare(a: np.ndarray, b: np.ndarray, paired: bool) -> tuple[float, float, float, float, int]:
    """Return probability, mean difference, its interval and the number of pairs."""
    kept_a, kept_b = np.isfinite(a), np.isfinite(b)
    if paired:
        kept_a = kept_b = kept_a & kept_b
    a, b = a[kept_a], b[kept_b]
    if min(a.size, b.size) == 0:
        return np.nan, np.nan, np.nan, np.nan, 0
    if paired:
        difference = a - b
        larger = float(np.mean(difference > 0.0) + 0.5 * np.mean(difference == 0.0))
        return larger, float(difference.mean()), *mean_interval(difference), difference.size
    # Mann and Whitney's U counts the pairs, ties half, without forming them.
    larger = float(stats.mannwhitneyu(a, b, method="asymptotic").statistic / (a.size * b.size))
    return larger, float(a.mean() - b.mean()), *mean_difference_interval(a, b), a.size * b.size


def _attrs(long_name: str, units: str) -> dict[str, str]:
    return {"long_name": long_name, "units": units}
