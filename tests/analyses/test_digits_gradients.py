"""The gradient of every objective of `massdrift digits`, against the sum over all images of a tiny network.

Two pixels of two levels are four images, so that a batch of three is one of 64: the mean of an estimate is a
sum over batches. Its formula is written out here from `docs/theory.md`, without the library's divergences.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, logsumexp

from analyses.digits import objectives
from analyses.digits.choices import choices
from analyses.digits.laws import NetworkLaw
from analyses.digits.objectives import DigitsTask
from analyses.digits.settings import NetworkSettings
from analyses.digits.transformer import Transformer

EVERY = jnp.array(list(itertools.product(range(2), repeat=2)))
OLD, NEW = EVERY[:2], EVERY[2:]
BATCH, NUM_ESTIMATES = 3, 4000
SHARE, TAU, LAMBDA, BETA = 0.3, 0.45, 0.5, 0.7

CHOSEN = choices(
    NetworkSettings(kl_weight=TAU, utility_kl_weight=LAMBDA, beta=BETA, lag=40), replay=SHARE, num_steps=40
)


@jax.jit
def network(seed: int) -> Transformer:
    return Transformer(2, 2, width=4, num_blocks=1, num_heads=2, key=jax.random.key(seed))


LEARNER, BESIDE = network(0), network(3)
# Log odds of the old task 3, 1, -1 and -3: rewards far apart.
VERIFIER = jax.tree_util.Partial(lambda images: 3.0 - images @ jnp.array([4.0, 2.0]))
# Where a training starts is neither the learner nor its companion, so that neither is mistaken for it.
TASK = DigitsTask(OLD, NEW, jnp.log(SHARE) - jnp.log1p(-SHARE), network(5), VERIFIER)


@jax.jit
def log_probs(params) -> jax.Array:
    return NetworkLaw(objectives.network_of(params, LEARNER)).log_prob(EVERY)


PARAMS = objectives.params_of(LEARNER)
LOG_Q = np.asarray(log_probs(PARAMS), np.float64)
LOG_BESIDE = np.asarray(log_probs(objectives.params_of(BESIDE)), np.float64)
REWARD = expit(-np.asarray(VERIFIER(EVERY), np.float64))


def flat(tree, axis: int) -> np.ndarray:
    """Return the params of a tree in a row, behind the first ``axis`` dimensions."""
    leaves = [np.asarray(tree[name], np.float64) for name in sorted(tree)]
    return np.concatenate([leaf.reshape(*leaf.shape[:axis], -1) for leaf in leaves], axis=axis)


SCORES = flat(jax.jit(jax.jacobian(log_probs))(PARAMS), 1)


def over_batches(law: np.ndarray, coefficients) -> np.ndarray:
    """Return E[Σ_i c_i(batch) ∇ log q(y_i)/n] over every batch of independent images of a law."""
    total = 0.0
    for batch in itertools.product(range(len(law)), repeat=BATCH):
        images = np.array(batch)
        total = total + np.prod(law[images]) * coefficients(images) @ SCORES[images] / BATCH
    return total


def entropic(images: np.ndarray) -> np.ndarray:
    """-(w - 1 - λ log(q/q_0)), w_i = e^{r_i} over the mean of the others' (η = 1)."""
    e = np.exp(REWARD[images])
    w = e / ((e.sum() - e) / (BATCH - 1))
    return -(w - 1.0 - LAMBDA * (LOG_Q - LOG_BESIDE)[images])


def regressed(images: np.ndarray) -> np.ndarray:
    """2 β (β log(q/π) - (r - V*)), V* = β log mean exp(r/β) of the batch."""
    best = BETA * (logsumexp(REWARD[images] / BETA) - np.log(BATCH))
    return 2.0 * BETA * (BETA * (LOG_Q - LOG_BESIDE)[images] - REWARD[images] + best)


def exact(name: str) -> np.ndarray:
    q, beside = np.exp(LOG_Q), np.exp(LOG_BESIDE)
    new = np.array([0.0, 0.0, 0.5, 0.5])
    both = np.array([SHARE / 2, SHARE / 2, (1 - SHARE) / 2, (1 - SHARE) / 2])
    means = {
        "sft": lambda: -new @ SCORES,
        "sft_replay": lambda: -both @ SCORES,
        "rl": lambda: (q * (LOG_Q - LOG_BESIDE - REWARD / TAU)) @ SCORES,
        "sdft": lambda: (q * (LOG_Q - LOG_BESIDE)) @ SCORES,
        "ttt_discover": lambda: over_batches(q, entropic),
        "oapl": lambda: over_batches(beside, regressed),
    }
    return means[name]()


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CHOSEN))
def test_the_mean_of_a_gradient_is_the_sum_over_all_images(name):
    objective = CHOSEN[name].objective
    divergence = objective.loss.with_samples(BATCH)
    told = {} if objective.companion is None else {"companion": objectives.params_of(BESIDE)}
    model = partial(objective.model, **told)

    def loss(params, key):
        found = divergence.loss_with_mutable_state(key, params, model, objective.guide, TASK, TASK)
        return found["loss"]

    keys = jax.random.split(jax.random.key(3), NUM_ESTIMATES)
    estimates = flat(jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(PARAMS, keys), 1)
    mean, expected = estimates.mean(0), exact(name)
    standard_error = estimates.std(0) / np.sqrt(NUM_ESTIMATES) + 1e-6
    assert np.all(np.abs(mean - expected) < 5.0 * standard_error)
    # Power: a gradient that is off by a fifth lies beyond twice that somewhere.
    assert np.max(np.abs(0.2 * expected) / standard_error) > 10.0
