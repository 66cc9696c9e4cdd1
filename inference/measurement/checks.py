"""Whether a measurement can be trusted: posterior predictive checks, and the verdict in words."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from scipy import special

from inference.measurement import law
from inference.measurement.anchors import Anchors
from inference.measurement.laplace import MOST_K_HAT, Draws
from inference.measurement.law import Unknowns

#: What is compared between the samples and samples that the fitted law draws.
STATISTICS = ("spread_along_axis", "kurtosis_along_axis", "spread_across_axis", "far_from_both")

#: Samples that are looked at, at most.
MOST_ROWS = 1000

# Replicates; beyond this many of their standard deviations a statistic is off.
_REPLICATES, _MOST_DEVIATION = 60, 4.0

# Of R-hat and effective sample size: Vehtari et al. (arXiv:1903.08008).
_MOST_R_HAT, _LEAST_ESS = 1.01, 400.0

# Below this information on the weight, relative to samples whose mode is known, weight and drift blur.
_LEAST_INFORMATION = 0.1

# With fewer samples of a mode than this a feature, its displacement is mostly the prior's.
_LEAST_SAMPLES = 2.0


def predictive_check(
    anchors: Anchors, draws: Draws, y: Float[np.ndarray, "n d"], rng: np.random.Generator
) -> tuple[Float[np.ndarray, "statistic"], Float[np.ndarray, "replicate statistic"]]:
    """Return the statistics of some samples, and of as many that draws of the posterior predict.

    They are spread and kurtosis along the axis between the references, the mean squared distance from the
    mean across it, and the 99.5 % quantile of the distance to the nearer reference.
    """
    picked = rng.choice(len(draws.scales), _REPLICATES, replace=len(draws.scales) < _REPLICATES)
    replicates, unknowns = [], jax.tree.map(np.asarray, draws.unknowns)
    for index in picked:
        one = jax.tree.map(lambda a, i=index: a[i], unknowns)
        replicates.append(_statistics(anchors.means, simulate(anchors, one, len(y), rng)))
    return _statistics(anchors.means, y), np.stack(replicates)


def simulate(
    anchors: Anchors, unknowns: Unknowns, num: int, rng: np.random.Generator
) -> Float[np.ndarray, "n d"]:
    """Draw samples of the law of a checkpoint, in the frame, with NumPy: nothing is compiled."""
    d = anchors.means.shape[1]
    component = np.where(rng.uniform(size=num) < special.expit(unknowns.old_logit), 0, 1)
    if unknowns.neither is not None:
        component[rng.uniform(size=num) < special.expit(unknowns.neither.logit)] = 2
    y = rng.standard_normal((num, d))
    for mode, mean in enumerate((unknowns.old_mean, unknowns.new_mean)):
        rows = component == mode
        if anchors.tail_dof is not None:
            y[rows] /= np.sqrt(rng.chisquare(anchors.tail_dof, (rows.sum(), 1)) / anchors.tail_dof)
        kappa, tilt, b = law.precision_columns(anchors, unknowns, mode)
        # x = A⁻ᵀ z: the coordinates across the axis first, then the axis given them.
        beside = y[rows, 1:] @ np.linalg.inv(b)
        y[rows] = mean + np.column_stack([(y[rows, 0] - beside @ tilt) / kappa, beside])
    if unknowns.neither is not None:
        third, rows = unknowns.neither, component == 2
        y[rows] = third.mean + np.exp(third.log_scale) * y[rows]
    return y


def _statistics(
    means: Float[np.ndarray, "2 d"], y: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, "statistic"]:
    centred = y - y.mean(axis=0)
    along, beside = centred[:, 0], np.sum(centred[:, 1:] ** 2, axis=1)
    variance = np.mean(along**2)
    nearer = np.min([np.sum((y - mean) ** 2, axis=1) for mean in means], axis=0)
    return np.array(
        [
            np.sqrt(variance),
            np.mean(along**4) / variance**2,
            beside.mean(),
            np.sqrt(np.quantile(nearer, 0.995)),
        ]
    )


def deviation(observed: np.ndarray, replicated: np.ndarray) -> np.ndarray:
    """Return how many standard deviations of the replicates the samples' statistics lie from their mean."""
    return (observed - replicated.mean(axis=0)) / np.maximum(replicated.std(axis=0), 1e-300)


def verdict(stats: Mapping[str, Any], num_features: int) -> str:
    """Say in words what a reader must know before quoting a measurement; ``good`` if nothing.

    Args:
        stats: the entries of ``/sample_stats`` of one checkpoint.
        num_features: features that displacement has.
    """
    bad, weak = [], []
    if stats["method"] == "laplace" and not stats["k_hat"] <= MOST_K_HAT:
        text = f"the fast path cannot be trusted here (k-hat {stats['k_hat']:.2g} > {MOST_K_HAT:g})"
        if stats["streamed"]:
            text += ", and the samples take more memory than NUTS may have"
        bad.append(text)
    if stats["method"] == "nuts":
        if not stats["r_hat"] <= _MOST_R_HAT + 0.01:
            bad.append(f"the chains disagree (R-hat {stats['r_hat']:.3f})")
        elif not stats["ess"] >= 0.5 * _LEAST_ESS:
            weak.append(f"few independent draws (ESS {stats['ess']:.0f})")
        if stats["divergences"] > 0:
            weak.append(f"{stats['divergences']:.0f} divergent transitions")
    if stats["weight_information"] < _LEAST_INFORMATION:
        share = 100 * float(stats["weight_information"])
        weak.append(
            "the modes overlap so much that weight and drift can hardly be told apart (a sample holds "
            f"{share:.2g} % of the information on the weight that it would hold were its mode known)"
        )
    for mode, weight in (("old", stats["old_weight_mean"]), ("new", 1.0 - stats["old_weight_mean"])):
        if stats["num_samples"] * weight < _LEAST_SAMPLES * num_features:
            weak.append(f"too few samples of the {mode} mode to see how it has moved")
    off = [
        n.replace("_", " ") for n in STATISTICS if not abs(float(stats[f"deviation_{n}"])) < _MOST_DEVIATION
    ]
    if off:
        bad.append(f"two modes do not describe the samples (off: {', '.join(off)})")
    if bad:
        return "not to be trusted: " + "; ".join(bad + weak)
    return "weak: " + "; ".join(weak) if weak else "good"
