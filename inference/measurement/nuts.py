"""The same posterior by NUTS: the NumPyro model, started and scaled by the fast path."""

from functools import lru_cache, partial
from typing import Any

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr
from jax.scipy.special import logit
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import unconstrain_fn
from scipy import special

from inference.measurement import law
from inference.measurement.anchors import Anchors
from inference.measurement.laplace import Draws
from inference.measurement.law import CheckpointLaw, Neither, Unknowns
from inference.measurement.prior import (
    NEITHER_LOG_SCALE,
    NEITHER_SHARE,
    NEITHER_SPREAD,
    SCALE_DOF,
    Prior,
    log_sides,
    mean_covariance,
)

_WARMUP = 400


def model(anchors: Anchors, prior: Prior, rows: law.Rows, *, neither: bool = False) -> None:
    """The samples of one checkpoint, in the frame of the anchors.

    The reference means are integrated out: m ~ N(μ̂, V + T), see `inference.measurement.prior`.
    """
    d = anchors.means.shape[1]
    share = numpyro.sample("old_share", dist.Beta(*prior.weight_shapes))
    half_t = dist.FoldedDistribution(dist.StudentT(SCALE_DOF, 0.0, prior.displacement_scale))
    rate = 0.5 * SCALE_DOF * prior.displacement_scale**2
    along = numpyro.sample("axis_variance", dist.InverseGamma(0.5 * SCALE_DOF, rate).expand([2]).to_event(1))
    across = numpyro.sample("across_scale", half_t.expand([2]).to_event(1))
    scales = jnp.stack([jnp.sqrt(along), across], axis=-1)
    means = []
    for k, name in enumerate(("old", "new")):
        covariance = mean_covariance(anchors, k, scales[k])
        means.append(numpyro.sample(f"{name}_mean", dist.MultivariateNormal(anchors.means[k], covariance)))
    # h² dof is chi-squared with axis_dof: h² is Gamma(axis_dof/2, rate dof/2).
    squared = numpyro.sample("axis_factor", dist.Gamma(0.5 * anchors.axis_dof, 0.5 * anchors.dof).to_event(1))
    spread = jnp.broadcast_to(1.0 / jnp.sqrt(anchors.tilt_dof)[:, None], anchors.tilt.shape)
    tilt = numpyro.sample("tilt", dist.Normal(0.0, spread).to_event(2)) if d > 1 else jnp.zeros(spread.shape)
    third = None
    if neither:
        third = Neither(
            logit(numpyro.sample("neither_share", dist.Beta(*NEITHER_SHARE))),
            numpyro.sample("neither_mean", dist.Normal(anchors.means.mean(0), NEITHER_SPREAD).to_event(1)),
            numpyro.sample("neither_log_scale", dist.Normal(*NEITHER_LOG_SCALE)),
        )
    unknowns = Unknowns(logit(share), means[0], means[1], 0.5 * jnp.log(squared), tilt, third)
    numpyro.factor("sides", log_sides(anchors, unknowns))
    with numpyro.plate("samples", rows.weights.size), numpyro.handlers.mask(mask=rows.weights.ravel() > 0.0):
        numpyro.sample("y", CheckpointLaw(anchors, unknowns), obs=rows.y.reshape(-1, d))


def sample(
    anchors: Anchors,
    prior: Prior,
    rows: law.Rows,
    start: Draws,
    *,
    neither: bool,
    num: int,
    chains: int,
    rng: np.random.Generator,
) -> tuple[Draws, dict[str, float]]:
    """Return draws by NUTS from starts that the fast path drew, and their diagnostics.

    Args:
        anchors: the modes at the references.
        prior: the numbers of the prior.
        rows: the checkpoint's samples.
        start: draws of the fast path; each chain starts at one.
        neither: whether there is a third component.
        num: draws of all chains together.
        chains: number of chains.
        rng: for the starts and the seed.

    Returns:
        The draws, chain after chain, and ``r_hat`` (the largest), ``ess`` (the smallest, of bulk and tails)
        over weight, means and scales, and ``divergences``.
    """
    sampler = _sampler(neither, num // chains, chains)
    picked = rng.choice(len(start.scales), chains, replace=False)
    starts = start.unknowns, start.scales
    places = [_site_values(anchors, *jax.tree.map(lambda a, i=i: np.asarray(a)[i], starts)) for i in picked]
    unconstrained = [
        unconstrain_fn(sampler.sampler.model, (anchors, prior, rows), {}, place) for place in places
    ]
    initial = jax.tree.map(lambda *leaves: jnp.stack(leaves), *unconstrained)
    sampler.run(
        jax.random.key(rng.integers(2**63)),
        anchors,
        prior,
        rows,
        init_params=initial,
        extra_fields=("diverging",),
    )
    grouped = {k: np.asarray(v) for k, v in sampler.get_samples(group_by_chain=True).items()}
    # The sites' names differ from the reported ones; what is checked is what the report is made of.
    summary = xr.Dataset(
        {
            name: (("chain", "draw", *(f"{name}_{i}" for i in range(array.ndim - 2))), array)
            for name, array in grouped.items()
        }
    )
    r_hat, bulk, tail = az.rhat(summary), az.ess(summary), az.ess(summary, method="tail")
    diagnostics = {
        "r_hat": float(max(float(r_hat[name].max()) for name in summary)),
        "ess": float(min(min(float(bulk[name].min()), float(tail[name].min())) for name in summary)),
        "divergences": float(np.sum(sampler.get_extra_fields()["diverging"])),
    }
    flat = {name: array.reshape(-1, *array.shape[2:]) for name, array in grouped.items()}
    third = None
    if neither:
        third = Neither(special.logit(flat["neither_share"]), flat["neither_mean"], flat["neither_log_scale"])
    tilt = flat.get("tilt", np.zeros((num, *anchors.tilt.shape)))
    unknowns = Unknowns(
        special.logit(flat["old_share"]),
        flat["old_mean"],
        flat["new_mean"],
        0.5 * np.log(flat["axis_factor"]),
        tilt,
        third,
    )
    scales = np.stack([np.sqrt(flat["axis_variance"]), flat["across_scale"]], axis=-1)
    return Draws(unknowns, scales, start.k_hat, start.efficiency), diagnostics


@lru_cache
def _sampler(neither: bool, num: int, chains: int) -> MCMC:
    """Return a sampler that keeps its compiled program between checkpoints of equal size."""
    return MCMC(
        NUTS(partial(model, neither=neither), dense_mass=True, max_tree_depth=8),
        num_warmup=_WARMUP,
        num_samples=num,
        num_chains=chains,
        chain_method="vectorized",
        progress_bar=False,
        jit_model_args=True,
    )


def _site_values(anchors: Anchors, unknowns: Unknowns, scales: np.ndarray) -> dict[str, Any]:
    values = {
        "old_share": np.clip(special.expit(unknowns.old_logit), 1e-12, 1.0 - 1e-12),
        "axis_variance": scales[:, 0] ** 2,
        "across_scale": scales[:, 1],
        "old_mean": unknowns.old_mean,
        "new_mean": unknowns.new_mean,
        "axis_factor": np.exp(2.0 * unknowns.log_axis),
    }
    if anchors.means.shape[1] > 1:
        values["tilt"] = unknowns.tilt
    if unknowns.neither is not None:
        third = unknowns.neither
        values |= {
            "neither_share": special.expit(third.logit),
            "neither_mean": third.mean,
            "neither_log_scale": third.log_scale,
        }
    return values
