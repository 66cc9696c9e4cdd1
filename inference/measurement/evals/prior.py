"""What is held likely before the answers: each unknown as a function of a standard normal score.

A run's unknowns are m ~ Kumaraswamy(1/2, 2), δ ~ Logistic(0, 0.6), τ ~ Exponential(1): weakly informative,
with the most density near m = 0 and τ = 0, where most post-training stays. A task's are log σ ~ N(log 4,
0.7²), μ = z sqrt(σ² + 2.9) with z ~ N(0, 1.3²), so that the mean pass rate is spread widely whatever σ, and
the guess rate in parts of 1/k, γ ~ Beta(1, 1/2): most near 1. Every unknown is written as the quantile of a
score, so that the prior of scores is N(0, I), runs can be pooled by correlating their scores, and what lies
near a bound is far away on the scale on which it is proposed.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import log_ndtr, ndtr, ndtri
from jaxtyping import Array, Float

from inference.measurement.evals.item_integral import Numbers, Run, Task

LOG_SD, LOCATION_SCALE, DRIFT_SCALE = (jnp.log(4.0).item(), 0.7), 1.3, 0.6

# Of the logistic law, (16√3/(15π))² less: what makes a probit of a logit's mean.
_LOGISTIC_VARIANCE = 2.9


def task_of(scores: Float[Array, "*b 3"]) -> Task:
    """Return a task's unknowns from its scores."""
    sd = jnp.exp(LOG_SD[0] + LOG_SD[1] * scores[..., 1])
    return Task(_mean(LOCATION_SCALE * scores[..., 0], sd), sd, 1.0 - ndtr(-scores[..., 2]) ** 2)


def _mean(location: Array, sd: Array) -> Array:
    return location * jnp.sqrt(sd**2 + _LOGISTIC_VARIANCE)


def run_of(scores: Float[Array, "*b 3"]) -> Run:
    """Return a run's unknowns from its scores, of δ, τ and m in this order."""
    log_upper, log_lower = log_ndtr(-scores), log_ndtr(scores)
    return Run(
        (-jnp.expm1(0.5 * log_upper[..., 2])) ** 2,
        DRIFT_SCALE * (log_lower[..., 0] - log_upper[..., 0]),
        -log_upper[..., 1],
    )


def task_scores_of(location: Numbers, log_sd: Numbers, guess_share: Numbers) -> Float[Array, "*b 3"]:
    """Return the scores of a task's unknowns, as `sample_task` names them."""
    return jnp.stack(
        [
            jnp.asarray(location) / LOCATION_SCALE,
            (jnp.asarray(log_sd) - LOG_SD[0]) / LOG_SD[1],
            -ndtri(jnp.clip(jnp.sqrt(1.0 - jnp.asarray(guess_share)), 1e-12, 1.0 - 1e-12)),
        ],
        axis=-1,
    )


def run_scores_of(mass_lost: Numbers, drift: Numbers, drift_spread: Numbers) -> Float[Array, "*b 3"]:
    """Return the scores of a run's unknowns, of δ, τ and m in this order."""
    upper = [
        1.0 / (1.0 + jnp.exp(jnp.asarray(drift) / DRIFT_SCALE)),
        jnp.exp(-jnp.asarray(drift_spread)),
        (1.0 - jnp.sqrt(jnp.asarray(mass_lost))) ** 2,
    ]
    return -ndtri(jnp.clip(jnp.stack(upper, axis=-1), 1e-15, 1.0 - 1e-15))


def sample_task() -> Task:
    """Return a task's unknowns as NumPyro samples them."""
    location = numpyro.sample("location", dist.Normal(0.0, LOCATION_SCALE))
    sd = jnp.exp(numpyro.sample("log_item_sd", dist.Normal(*LOG_SD)))
    return Task(_mean(location, sd), sd, numpyro.sample("guess_share", dist.Beta(1.0, 0.5)))


def sample_run() -> Run:
    """Return a run's unknowns as NumPyro samples them."""
    return Run(
        numpyro.sample("mass_lost", dist.Kumaraswamy(0.5, 2.0)),
        numpyro.sample("drift", dist.Logistic(0.0, DRIFT_SCALE)),
        numpyro.sample("drift_spread", dist.Exponential(1.0)),
    )
