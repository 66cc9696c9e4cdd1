"""Ends of objectives by brute force: losses on a dense grid, gradients by JAX, descent step by step."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm as jnorm
from scipy.special import logit
from scipy.stats import norm

from analyses import plan
from mixture_models.theory import weight_paths
from mixture_models.theory.paths import Setting

APART, ALPHA, START, STEPS, RATE = 2.5, 0.4, 0.7, 300, 0.05
SETTING = Setting(APART, ALPHA, START, STEPS, RATE)
LAG = 80

TTT, OAPL = "ttt_discover:eta=1.5", f"oapl:lag={LAG}"

# The brute force: losses as they are defined on a dense grid in float64, their gradients by JAX.
Y = np.linspace(-12.0, APART + 12.0, 1201)
DY = Y[1] - Y[0]
OLD, NEW = norm.pdf(Y), norm.pdf(Y, APART)
CLAIM = ALPHA * OLD / (ALPHA * OLD + (1.0 - ALPHA) * NEW)
GOAL, FIRST = ((logit(weight), 0.0, APART) for weight in (ALPHA, START))


def density(theta):
    phi, old, new = theta
    weight = jax.nn.sigmoid(phi)
    return weight * jnorm.pdf(Y, old) + (1.0 - weight) * jnorm.pdf(Y, new)


def divergence(p, q):
    return DY * jnp.sum(p * jnp.log(p / q))


def sft_loss(theta, _, replay):
    return divergence((1.0 - replay) * NEW + replay * OLD, density(theta))


def reverse_loss(theta, *_):
    return divergence(density(theta), density(GOAL))


def sdft_loss(theta, teacher, _):
    return divergence(density(theta), density(teacher))


def ttt_loss(theta, _, kl_weight, eta=1.5):
    tilted = DY * jnp.sum(density(theta) * jnp.exp(eta * (1.0 - CLAIM)))
    return kl_weight * divergence(density(theta), density(FIRST)) - jnp.log(tilted)


def oapl_loss(theta, lagged, beta):
    law = density(lagged)
    best = beta * jnp.log(DY * jnp.sum(law * jnp.exp((1.0 - CLAIM) / beta)))
    return DY * jnp.sum(law * (beta * jnp.log(density(theta) / law) - (1.0 - CLAIM) + best) ** 2)


def stays(beside, theta, step, value):
    return beside


def teaches(teacher, theta, step, anchor, ema=0.05):
    return teacher + ema * ((1.0 - anchor) * theta + anchor * jnp.asarray(GOAL) - teacher)


def syncs(lagged, theta, step, beta):
    return jnp.where((step + 1) % LAG == 0, theta, lagged)


def brute_force(loss, beside):
    """Return where the steps of a training lead, by value: weight, retention, drift, then the learner."""

    @jax.jit
    def descend(value):
        def step(at, state):
            theta, other = state
            theta = theta - RATE * jax.grad(loss)(theta, other, value)
            return theta, beside(other, theta, at, value)

        theta, _ = jax.lax.fori_loop(0, STEPS, step, (jnp.asarray(FIRST), jnp.asarray(FIRST)))
        kept, old, new = (DY * jnp.sum(law * CLAIM) for law in (density(theta), OLD, NEW))
        seen = jnp.stack([jax.nn.sigmoid(theta[0]), (kept - new) / (old - new), jnp.abs(theta[1])])
        return jnp.concatenate([seen, theta])

    def end(value):
        with jax.enable_x64(True):
            return np.asarray(descend(float(value)))

    return end


ENDS = {
    "sft": brute_force(sft_loss, stays),
    "reverse_kl": brute_force(reverse_loss, stays),
    "sdft": brute_force(sdft_loss, teaches),
    "ttt_discover": brute_force(ttt_loss, stays),
    "oapl": brute_force(oapl_loss, syncs),
}

CASES = {
    "sft": (lambda value: weight_paths.sft(SETTING, value), (0.0, 0.3)),
    "reverse_kl": (lambda value: weight_paths.reverse_kl(SETTING, value), (0.0,)),
    "sdft": (lambda value: weight_paths.sdft(SETTING, value, 0.05), (0.0, 0.2, 1.0)),
    "ttt_discover": (lambda value: weight_paths.ttt_discover(SETTING, value, 1.5), (0.0, 0.5, 5.0)),
    "oapl": (lambda value: weight_paths.oapl(SETTING, value, LAG), (0.05, 0.2, 1.0, 3.0)),
}


def planned(objectives=(), **settings):
    return plan.run(plan.Settings(objectives=objectives, **settings))


def retained(name, value):
    return ENDS[name](value)[1]
