"""The same posterior by NUTS: a chain for each draw of the modes, started by the fast path."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import logit
from jaxtyping import Array, Float
from scipy import special

from inference.measurement.posterior.law import Rows
from inference.measurement.posterior.nuts import run_chains
from inference.measurement.posterior.prior import (
    NEITHER_LOG_SCALE,
    NEITHER_SHARE,
    NEITHER_SPREAD,
    SCALE_DOF,
)
from inference.measurement.tasks import law
from inference.measurement.tasks.draws import TaskDraws
from inference.measurement.tasks.law import TaskNeither, TaskUnknowns
from inference.measurement.tasks.prior import TaskPrior, log_sides
from inference.measurement.tasks.references import TaskModes
from mixture_models.types import AnyArray


def model(
    modes: TaskModes, prior: TaskPrior, rows: Rows, moved: Float[AnyArray, "K"], *, neither: bool = False
) -> None:
    """The samples of one checkpoint along the discriminants under one draw of the modes.

    Arguments as those of `posterior.nuts.model`.
    """
    num, q = modes.means.shape
    shares = numpyro.sample("shares", dist.Dirichlet(jnp.asarray(prior.shapes)))
    rate = 0.5 * SCALE_DOF * prior.displacement_scale**2
    variances = numpyro.sample("variance", dist.InverseGamma(0.5 * SCALE_DOF, rate).expand([num]).to_event(1))
    spread = (variances * moved)[:, None, None] * jnp.eye(q)
    place = dist.MultivariateNormal(modes.means, modes.mean_covariances + spread).to_event(1)
    means = numpyro.sample("means", place)
    numpyro.factor("sides", log_sides(modes, means))
    unknowns = TaskUnknowns(jnp.log(shares), means)
    if neither:
        share = numpyro.sample("neither_share", dist.Beta(*NEITHER_SHARE))
        centre = jnp.asarray(modes.means).mean(axis=0)
        third = TaskNeither(
            numpyro.sample("neither_mean", dist.Normal(centre, NEITHER_SPREAD).to_event(1)),
            numpyro.sample("neither_log_scale", dist.Normal(*NEITHER_LOG_SCALE)),
        )
        unknowns = TaskUnknowns(jnp.append(unknowns.logits, logit(share)), means, third)

    def of_block(block: Rows) -> Array:
        logs, _ = law.log_densities(modes, unknowns, block.y)
        return jnp.sum(block.weights * jax.nn.logsumexp(logs, axis=-1))

    numpyro.factor("y", jnp.sum(jax.vmap(of_block)(rows)))


def sample(
    modes: TaskModes, prior: TaskPrior, rows: Rows, start: TaskDraws, *, num: int, rng: np.random.Generator
) -> tuple[TaskDraws, dict[str, float]]:
    """Return draws by NUTS from starts that the fast path drew, and their diagnostics.

    Which modes have moved in a chain, and the scales beside the discriminants, are the fast path's.

    Arguments as those of `posterior.nuts.sample`, the samples along the discriminants.
    """
    (count, each), num_tasks = start.scales.shape[:2], start.scales.shape[2]
    neither = start.unknowns.neither is not None
    place = np.arange(count), rng.integers(each, size=count)
    scales = start.scales[place]
    moved = (scales[..., 0] > 0.0).astype(float)
    at = {
        "shares": np.clip(special.softmax(start.unknowns.logits[place][:, :num_tasks], axis=-1), 1e-9, None),
        "variance": np.where(moved > 0.0, scales[..., 0], prior.displacement_scale) ** 2,
        "means": start.unknowns.means[place],
    }
    at["shares"] /= at["shares"].sum(axis=-1, keepdims=True)
    if start.unknowns.neither is not None:
        share = special.softmax(start.unknowns.logits[place], axis=-1)[:, -1]
        at["neither_share"] = np.clip(share, 1e-9, 1.0 - 1e-9)
        at["neither_mean"], at["neither_log_scale"] = (part[place] for part in start.unknowns.neither)
    given = (modes, prior, rows, jnp.asarray(moved))
    sites, told = run_chains(model, given, at, ("shares", "means"), neither=neither, num=num, rng=rng)
    unknowns = TaskUnknowns(np.log(np.maximum(sites["shares"], 1e-300)), sites["means"])
    if neither:
        third = TaskNeither(sites["neither_mean"], sites["neither_log_scale"])
        beyond = special.logit(np.clip(sites["neither_share"], 1e-300, 1.0 - 1e-16))[..., None]
        unknowns = TaskUnknowns(np.append(unknowns.logits, beyond, axis=-1), unknowns.means, third)
    along = np.sqrt(sites["variance"])
    beside = np.ones_like(along)
    for k in range(moved.shape[1]):
        pool = start.scales[..., k, 1][start.scales[..., k, 0] > 0.0]
        if len(pool):
            beside[..., k] = rng.choice(pool, along.shape[:2])
    found = np.stack([along, beside], axis=-1) * moved[:, None, :, None]
    return TaskDraws(unknowns, found, start.k_hat, start.efficiency), told
