"""The same posteriors by NUTS: one run beside the base, where the fast path cannot be trusted."""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import Float
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

from inference.engine.programs import traced_alone
from inference.measurement.evals.prior import run_scores_of, task_scores_of
from mixture_models.types import ModelOrGuide

_CHAINS, _WARMUP = 4, 400


class NutsDraws(NamedTuple):
    """Draws of one run.

    Attributes:
        sites: by the name of NumPyro's site.
        r_hat: the largest.
        ess: the smallest effective sample size.
        divergences: divergent transitions.
    """

    sites: dict[str, np.ndarray]
    r_hat: float
    ess: float
    divergences: int


@cache
def _sampler(model: ModelOrGuide, num: int) -> numpyro.infer.MCMC:
    kernel = numpyro.infer.NUTS(model, dense_mass=True, target_accept_prob=0.95)
    return numpyro.infer.MCMC(
        kernel,
        num_warmup=_WARMUP,
        num_samples=num // _CHAINS,
        num_chains=_CHAINS,
        chain_method="vectorized",
        progress_bar=False,
        jit_model_args=True,
    )


@traced_alone
def sample(model: ModelOrGuide, num: int, seed: int, *args: object) -> NutsDraws:
    """Return draws of a run by NUTS of one of the programs of `model`, given its arguments."""
    with jax.enable_x64(True):
        sampler = _sampler(model, num)
        args = jax.tree.map(jnp.asarray, args)
        sampler.run(jax.random.key(seed), *args, extra_fields=("diverging",))
        sites = {name: np.asarray(array) for name, array in sampler.get_samples(group_by_chain=True).items()}
        divergences = int(np.sum(sampler.get_extra_fields()["diverging"]))
    r_hat = max(float(np.max(split_gelman_rubin(array))) for array in sites.values())
    ess = min(float(np.min(effective_sample_size(array))) for array in sites.values())
    flat = {name: array.reshape(-1, *array.shape[2:]) for name, array in sites.items()}
    return NutsDraws(flat, r_hat, ess, divergences)


def scores_of(draws: NutsDraws) -> tuple[Float[np.ndarray, "D 3"], Float[np.ndarray, "D 3"]]:
    """Return draws of `repeats_model` as scores of the task and of the run."""
    with jax.enable_x64(True):
        sites = draws.sites
        task = task_scores_of(sites["location"], sites["log_item_sd"], sites["guess_share"])
        run = run_scores_of(sites["mass_lost"], sites["drift"], sites["drift_spread"])
        return np.asarray(task), np.asarray(run)
