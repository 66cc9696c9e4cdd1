"""How fast drift falls with separation: a Bayesian regression of its logarithm on δ² and log δ."""

from collections.abc import Mapping

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr
from jaxtyping import Array, Bool, Float
from numpy.typing import ArrayLike
from numpyro.distributions.transforms import AffineTransform
from numpyro.handlers import reparam
from numpyro.infer import MCMC, NUTS
from numpyro.infer.reparam import ExplicitReparam

from inference import results
from inference.engine.blas import on_one_thread
from mixture_models.types import AnyArray
from mixture_models.validation import InputError, increasing_array, integer

results.register(
    diverging=("whether the step diverged", "1"),
    acceptance_rate=("acceptance probability", "1"),
    n_steps=("leapfrog steps", "1"),
    tree_depth=("depth of the tree", "1"),
    reached_max_tree_depth=("whether the tree reached its greatest depth", "1"),
    measure=("measure of drift", "1"),
    fit_from=("least separation of the regression", "Mahalanobis"),
    centre=("log drift at the mean δ² and log δ", "1"),
    decay_rate=("decay rate k of drift ~ exp(-k δ²)", "1"),
    log_power=("power b of drift ~ δ^b", "1"),
    residual_sd=("standard deviation of the residual", "1"),
    residual_length=("correlation length of the residual", "Mahalanobis"),
    log_drift=("logarithm of a measure of drift", "1"),
)

#: What is inferred, for every measure of drift and every window.
PARAMETERS = ("centre", "decay_rate", "log_power", "residual_sd", "residual_length")


@on_one_thread
def decay_posterior(
    separations: ArrayLike,
    drifts: Mapping[str, ArrayLike],
    *,
    fit_from: ArrayLike = (5.0,),
    num_chains: int = 4,
    num_warmup: int = 1000,
    num_draws: int = 1000,
    seed: int = 0,
) -> xr.DataTree:
    """Sample the posterior of k and b in log drift = a - k δ² + b log δ + residual, by NUTS.

    Exact drifts have no noise: what the regression leaves is the smooth rest of an expansion in δ, correlated
    from one separation to the next. So the residual is an Ornstein-Uhlenbeck process along δ, its standard
    deviation and correlation length inferred; taken as independent it would make k look more certain than
    it is. An interval of k states how well these separations and this form determine it.

    Args:
        separations: δ, increasing, shape (separation,); at least four in every window.
        drifts: measures of drift by name, each of shape (separation,) and positive; regressed apart.
        fit_from: least δ of a window of separations, increasing; every window is regressed apart.
        num_chains: chains, sampled together.
        num_warmup: steps of adaptation a chain.
        num_draws: draws a chain.
        seed: of all random numbers.

    Returns:
        DataTree with ``/posterior``: ``decay_rate`` k, ``log_power`` b, ``centre`` (log drift at the mean
        δ² and log δ), ``residual_sd`` and ``residual_length`` over (chain, draw, measure, fit_from);
        ``/sample_stats`` and ``/observed_data``.

    Raises:
        InputError: an argument out of range.

    Source: arXiv:2603.12163 for the claim that k = 1/8; derivation: docs/theory.md.
    """
    apart = increasing_array("separations", separations, "(0, 100]")
    windows, kept = check_windows(apart, fit_from)
    observed = np.stack([np.asarray(values, np.float64) for values in drifts.values()])
    if observed.shape != (len(drifts), apart.size) or not np.all(observed > 0.0):
        raise InputError(f"drifts must be {apart.size} positive numbers a measure; got {observed}")
    counts = {
        "num_chains": integer("num_chains", num_chains),
        "num_warmup": integer("num_warmup", num_warmup),
        "num_samples": integer("num_draws", num_draws),
    }
    with jax.enable_x64(True):
        # Both covariates grow with δ, so their coefficients are strongly correlated.
        used = kept.any(axis=0)
        data = (apart[used], np.log(observed[:, None, used]), kept[:, used])
        kernel = NUTS(reparam(decay_model, config=_scaled(*data)), dense_mass=True, target_accept_prob=0.95)
        mcmc = MCMC(kernel, **counts, chain_method="vectorized", progress_bar=False)
        key = jax.random.key(integer("seed", seed, at_least=0, at_most=2**63 - 1))
        mcmc.run(key, *data, extra_fields=("diverging", "num_steps", "accept_prob"))
        grid = ["measure", "fit_from"]
        tree: xr.DataTree = az.from_numpyro(
            mcmc,
            coords={"measure": list(drifts), "fit_from": windows, "separation": apart[used]},
            dims={**dict.fromkeys(PARAMETERS, grid), "log_drift": [*grid, "separation"]},
            log_likelihood=False,
        )
    for name, group in tree.children.items():
        known = [v for v in group.data_vars if not str(v).endswith("_base")]
        # JAX arrays, and attributes that no file format takes, stay here.
        arrays = group.to_dataset()[known].map(np.asarray)
        tree[name] = xr.DataTree(results.describe(arrays.drop_attrs()))
    return tree


def check_windows(
    separations: Float[np.ndarray, "n"], fit_from: ArrayLike
) -> tuple[Float[np.ndarray, "w"], Bool[np.ndarray, "w n"]]:
    """Return the windows' least separations (w,) and what they hold (w, n), at least four each."""
    windows = increasing_array("fit_from", fit_from, "[0, 100]")
    kept = separations >= windows[:, None]
    least = kept.sum(axis=1).min()
    if least < 4:
        raise InputError(f"a regression needs at least 4 separations; got {least} from {windows[-1]:g} on")
    return windows, kept


def _scaled(
    separations: Float[np.ndarray, "n"], log_drifts: Float[np.ndarray, "m 1 n"], kept: Bool[np.ndarray, "w n"]
) -> dict[str, ExplicitReparam]:
    """Return coordinates of order 1 for the coefficients: least squares, in its standard errors.

    They change what NUTS moves in, not the posterior.
    """
    square, logarithm = _covariates(separations)
    design = np.stack([np.ones_like(square), -square, logarithm], axis=-1)
    values, errors = np.zeros((2, len(log_drifts), len(kept), 3))
    for i, log_drift in enumerate(log_drifts[:, 0]):
        for j, window in enumerate(kept):
            x, y = design[window], log_drift[window]
            values[i, j] = np.linalg.lstsq(x, y)[0]
            rest = max(float(np.std(y - x @ values[i, j])), 1e-6)
            errors[i, j] = 3.0 * rest * np.sqrt(np.diag(np.linalg.inv(x.T @ x)))
    return {
        name: ExplicitReparam(AffineTransform(-values[..., k] / errors[..., k], 1.0 / errors[..., k]))
        for k, name in enumerate(("centre", "decay_rate", "log_power"))
    }


def _covariates(separations: Float[AnyArray, "n"]) -> tuple[Float[Array, "n"], Float[Array, "n"]]:
    """Return δ² and log δ, each less its mean."""
    square, logarithm = separations**2, jnp.log(separations)
    return square - square.mean(), logarithm - logarithm.mean()


def decay_model(
    separations: Float[Array, "n"], log_drifts: Float[Array, "m 1 n"], kept: Bool[Array, "w n"]
) -> None:
    """Run the regressions of `decay_posterior`; a measure of drift and a window a row."""
    square, logarithm = _covariates(separations)
    with numpyro.plate("measures", len(log_drifts), dim=-2), numpyro.plate("windows", len(kept), dim=-1):
        centre = numpyro.sample("centre", dist.Normal(-10.0, 20.0))
        decay_rate = numpyro.sample("decay_rate", dist.Normal(0.0, 1.0))
        log_power = numpyro.sample("log_power", dist.Normal(0.0, 5.0))
        residual_sd = numpyro.sample("residual_sd", dist.HalfNormal(0.5))
        residual_length = numpyro.sample("residual_length", dist.LogNormal(1.0, 1.0))
        mean = centre[..., None] - decay_rate[..., None] * square + log_power[..., None] * logarithm
        rest = log_drifts - mean
        # Each residual given the one before it; a window's first has none.
        linked = kept[:, 1:] & kept[:, :-1]
        shared = jnp.where(linked, jnp.exp(-jnp.diff(separations) / residual_length[..., None]), 0.0)
        shared = jnp.concatenate([jnp.zeros_like(shared[..., :1]), shared], -1)
        before = jnp.concatenate([jnp.zeros_like(rest[..., :1]), rest[..., :-1]], -1)
        spread = residual_sd[..., None] * jnp.sqrt(1.0 - shared**2)
        density = dist.Normal(mean + shared * before, spread).mask(kept).to_event(1)
        numpyro.sample("log_drift", density, obs=jnp.broadcast_to(log_drifts, mean.shape))
