"""Whether a measurement can be trusted: posterior predictive checks, and the verdict in words."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from inference.measurement import law
from inference.measurement.anchors import Anchors
from inference.measurement.laplace import MOST_K_HAT, Draws
from inference.measurement.law import Unknowns

#: What is compared between the samples and samples that the fitted law draws.
STATISTICS = ("spread_along_axis", "kurtosis_along_axis", "spread_across_axis", "far_from_both")

# Replicates, and the rows of each; a statistic is off when fewer than this share of replicates lie beyond it.
_REPLICATES, _ROWS, _TAIL = 200, 2000, 0.0051

# Of R-hat and effective sample size: Vehtari et al. (arXiv:1903.08008).
_MOST_R_HAT, _LEAST_ESS = 1.01, 400.0

# Below this information on the weight, relative to samples whose mode is known, weight and drift blur.
_LEAST_INFORMATION = 0.1

# With fewer samples of a mode than this a feature, its displacement is mostly the prior's.
_LEAST_SAMPLES = 2.0


def predictive_check(
    anchors: Anchors, draws: Draws, y: Float[np.ndarray, "n d"], rng: np.random.Generator
) -> tuple[Float[np.ndarray, "statistic"], Float[np.ndarray, "replicate statistic"]]:
    """Return the statistics of the samples, and of replicates that draws of the posterior predict.

    Both are of at most 2,000 rows: spread and kurtosis along the axis between the references, the mean squared
    distance from the mean across it, and the 99.5 % quantile of the distance to the nearer reference mean.
    """
    rows = min(_ROWS, len(y))
    chosen = y[rng.choice(len(y), rows, replace=False)]
    picked = rng.choice(len(draws.scales), _REPLICATES, replace=len(draws.scales) < _REPLICATES)
    unknowns = jax.tree.map(lambda a: np.asarray(a)[picked], draws.unknowns)
    keys = jax.random.split(jax.random.key(rng.integers(2**63)), _REPLICATES)
    return np.asarray(_statistics(anchors.means, chosen)), np.asarray(
        _replicate(anchors, unknowns, keys, rows)
    )


@partial(jax.jit, static_argnums=3)
def _replicate(anchors: Anchors, unknowns: Unknowns, keys: Array, rows: int) -> Float[Array, "n statistic"]:
    return jax.lax.map(
        lambda one: _statistics(anchors.means, law.CheckpointLaw(anchors, one[0]).sample(one[1], (rows,))),
        (unknowns, keys),
    )


@jax.jit
def _statistics(means: Float[Array, "2 d"], y: Float[Array, "n d"]) -> Float[Array, "statistic"]:
    centred = y - y.mean(axis=0)
    along, beside = centred[:, 0], jnp.sum(centred[:, 1:] ** 2, axis=1)
    variance = jnp.mean(along**2)
    nearer = jnp.min(jnp.stack([jnp.sum((y - mean) ** 2, axis=1) for mean in means]), axis=0)
    return jnp.stack(
        [
            jnp.sqrt(variance),
            jnp.mean(along**4) / variance**2,
            beside.mean(),
            jnp.sqrt(jnp.quantile(nearer, 0.995)),
        ]
    )


def predictive_probability(observed: np.ndarray, replicated: np.ndarray) -> np.ndarray:
    """Return the share of replicates at or above the observed statistics, a tie counted half."""
    return np.mean(replicated > observed, axis=0) + 0.5 * np.mean(replicated == observed, axis=0)


def verdict(stats: Mapping[str, Any], num_features: int) -> str:
    """Say in words what a reader must know before quoting a measurement; ``good`` if nothing.

    Args:
        stats: the entries of ``/sample_stats`` of one checkpoint.
        num_features: features that displacement has.
    """
    bad, weak = [], []
    if stats["method"] == "laplace" and not stats["k_hat"] <= MOST_K_HAT:
        bad.append(f"the fast path cannot be trusted here (k-hat {stats['k_hat']:.2g} > {MOST_K_HAT:g})")
    if stats["method"] == "nuts":
        if not stats["r_hat"] <= _MOST_R_HAT + 0.01:
            bad.append(f"the chains disagree (R-hat {stats['r_hat']:.3f})")
        elif not stats["ess"] >= 0.5 * _LEAST_ESS:
            weak.append(f"few independent draws (ESS {stats['ess']:.0f})")
        if stats["divergences"] > 0:
            weak.append(f"{stats['divergences']:.0f} divergent transitions")
    if stats["weight_information"] < _LEAST_INFORMATION:
        weak.append(
            "the modes overlap so much that weight and drift can hardly be told apart (a sample holds "
            f"{100 * stats['weight_information']:.2g} % of the information on the weight that it would hold were its mode known)"
        )
    for mode, weight in (("old", stats["old_weight_mean"]), ("new", 1.0 - stats["old_weight_mean"])):
        if stats["num_samples"] * weight < _LEAST_SAMPLES * num_features:
            weak.append(f"too few samples of the {mode} mode to see how it has moved")
    tails = {
        name: float(stats[f"predictive_{name}"])
        for name in STATISTICS
        if not _TAIL < float(stats[f"predictive_{name}"]) < 1.0 - _TAIL
    }
    if tails:
        names = ", ".join(name.replace("_", " ") for name in tails)
        bad.append(f"two modes do not describe the samples (off: {names})")
    if bad:
        return "not to be trusted: " + "; ".join(bad + weak)
    return "weak: " + "; ".join(weak) if weak else "good"
