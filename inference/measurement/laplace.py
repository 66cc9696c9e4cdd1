"""The fast path: a Laplace approximation with its scales integrated on a grid, corrected by importance.

The log-likelihood is replaced by its quadratic at the posterior mode. Given the scales of displacement the
posterior is then Gaussian and the scales' own posterior a closed form on a grid. Scales, weight and means are
drawn in this order: the weight from the Beta law of equal mode and curvature, the means given the weight with
a precision in proportion to it. Every draw is weighted by its exact posterior density over that of the
proposal, smoothed by a generalised Pareto fit to the largest weights, whose shape k̂ says whether the draws
can be trusted (Vehtari et al., arXiv:1507.02646). Derivation: docs/measurement.md.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from arviz_stats.base import array_stats
from jax.flatten_util import ravel_pytree
from jax.scipy.special import betaln
from jaxtyping import Array, Float
from scipy import special

from inference.measurement import law
from inference.measurement.anchors import Anchors
from inference.measurement.curvature import derivatives
from inference.measurement.law import Rows, Unknowns
from inference.measurement.pieces import total
from inference.measurement.prior import Prior, log_prior, log_sides, mean_covariance, scale_grid

#: Above this k̂ the importance weights have no useful mean.
MOST_K_HAT = 0.7

_SIGNS = np.array([-1.0, 1.0])

_STEPS, _TOLERANCE = 60, 1e-7

# Blocks of rows that are climbed before all are.
_FIRST_BLOCKS = 8


class Draws(NamedTuple):
    """Draws of a checkpoint's posterior in the frame, equally weighted.

    Attributes:
        unknowns: batch of `Unknowns`.
        scales: (τ_a, τ_p) of the old and of the new mode, shape (draw, 2, 2).
        k_hat: Pareto shape of the importance weights, NaN where there were none.
        efficiency: effective sample size of the weights over their number.
    """

    unknowns: Unknowns
    scales: Float[np.ndarray, "draw 2 2"]
    k_hat: float
    efficiency: float


class Mode(NamedTuple):
    """The posterior mode given scales: where it is, how high, and the quadratic log-likelihood there."""

    flat: Float[np.ndarray, "D"]
    gradient: Float[np.ndarray, "D"]
    hessian: Float[np.ndarray, "D D"]
    scales: Float[np.ndarray, "2 2"]
    converged: bool
    height: float


def find_mode(anchors: Anchors, prior: Prior, rows: Iterable[Rows], *, neither: bool) -> Mode:
    """Return the posterior mode that starts at the references, its scales fitted along.

    Many rows are first climbed by some of them: the steps are many there and few at the end. Where modes have
    moved far across the axis, the climb may end with each on the other's side of the middle: then it is
    climbed from there with the two exchanged as well, and the higher end is taken.
    """
    scales = np.full((2, 2), float(prior.displacement_scale))
    some = [jax.tree.map(lambda a: a[:_FIRST_BLOCKS], next(iter(rows)))]
    start = law.start_of(anchors, _first_logit(anchors, prior, some[0], neither), neither)
    flat = np.asarray(ravel_pytree(start)[0])
    for climbed in (some, rows):
        mode = _climb(anchors, prior, climbed, start, flat, scales)
        if climbed is some:
            exchanged = _exchanged(anchors, mode.flat)
            if _sides(anchors, start, exchanged) > _sides(anchors, start, mode.flat):
                other = _climb(anchors, prior, climbed, start, exchanged, scales)
                mode = max(mode, other, key=lambda one: one.height)
        flat = mode.flat
        grids, tau = _scale_posterior(anchors, prior, start, mode)
        means = [np.exp([np.sum(g.sum(axis=1 - k) * np.log(tau)) for g in grids]) for k in (0, 1)]
        scales = np.stack(means)
    return _climb(anchors, prior, rows, start, flat, scales)


def draw(
    anchors: Anchors,
    prior: Prior,
    rows: Iterable[Rows],
    mode: Mode,
    *,
    neither: bool,
    num: int,
    rng: np.random.Generator,
) -> Draws:
    """Return draws of the posterior by importance resampling from the approximation around a mode."""
    start = law.start_of(anchors, 0.0, neither)
    proposed = 2 * num
    scales, log_scale_odds = _propose_scales(anchors, prior, start, mode, proposed, rng)
    key = jax.random.key(rng.integers(2**63))
    flat, log_q = (
        np.asarray(part)
        for part in _propose_unknowns(anchors, _quadratic(anchors, prior, start, mode), scales, key)
    )
    unknowns = _restore_batch(start, flat)
    log_p = _log_prior_batch(anchors, prior, unknowns, _factors(anchors, scales))
    log_likelihood = total(lambda piece: law.log_likelihoods(anchors, unknowns, piece), rows)
    log_weight = np.asarray(log_likelihood) + np.asarray(log_p) - log_q
    log_weight = log_weight + log_scale_odds
    log_weight = np.where(np.isfinite(log_weight), log_weight, -np.inf)
    if not np.any(np.isfinite(log_weight)):
        return Draws(_restore_batch(start, flat[:num]), scales[:num], np.inf, 0.0)
    floor = log_weight[np.isfinite(log_weight)].min()
    # It takes what has to be negated, as a log-likelihood has for leave-one-out.
    smoothed, k_hat = array_stats.psislw(log_weight.max() - np.maximum(log_weight, floor))
    weight = np.exp(smoothed - special.logsumexp(smoothed))
    # Systematic resampling, then shuffled.
    places = (np.arange(num) + rng.uniform()) / num
    chosen = rng.permutation(np.minimum(np.searchsorted(np.cumsum(weight), places), proposed - 1))
    return Draws(
        _restore_batch(start, flat[chosen]),
        scales[chosen],
        float(k_hat),
        float(1.0 / np.sum(weight**2) / proposed),
    )


def _first_logit(anchors: Anchors, prior: Prior, rows: Rows, neither: bool) -> float:
    """Return the logit of the old share with the modes at the references, by EM steps."""
    unknowns = law.start_of(anchors, 0.0, neither)
    return float(_weight_steps(anchors, unknowns, rows))


@jax.jit
def _weight_steps(anchors: Anchors, unknowns: Unknowns, rows: Rows) -> Array:
    y, across, weights = (a.reshape(-1, *a.shape[2:]) for a in rows)

    def step(_: int, logit: Array) -> Array:
        logs = law.log_densities(anchors, unknowns._replace(old_logit=logit), y, across)
        shares = [jnp.sum(weights * s) for s in jax.nn.softmax(jnp.stack(logs), axis=0)]
        return jnp.log(shares[0] + 1.0) - jnp.log(shares[1] + 1.0)

    return jax.lax.fori_loop(0, 30, step, unknowns.old_logit)


def _climb(
    anchors: Anchors,
    prior: Prior,
    rows: Iterable[Rows],
    start: Unknowns,
    flat: np.ndarray,
    scales: np.ndarray,
) -> Mode:
    """Maximise likelihood times prior given the scales by Newton steps, damped where they fail."""
    factors = _factors(anchors, scales[None])[:, 0]
    damping, here = 0.0, _evaluate(anchors, prior, rows, start, flat, factors)
    converged = False
    for _ in range(_STEPS):
        value, gradient, hessian = here[0] + here[3], here[1] + here[4], here[2] + here[5]
        eigenvalues, vectors = np.linalg.eigh(-hessian)
        # A direction in which the posterior is not concave is climbed with the steepness it has.
        curvature = np.maximum(np.abs(eigenvalues), 1e-3 * np.abs(eigenvalues).max() * 1e-3) + damping
        slope = vectors.T @ gradient
        step = vectors @ (slope / curvature)
        gain = 0.5 * np.sum(slope**2 / curvature)
        if gain < _TOLERANCE and eigenvalues.min() > 0.0:
            converged = True
            break
        tried = _evaluate(anchors, prior, rows, start, flat + step, factors)
        if tried[0] + tried[3] >= value:
            flat, here, damping = flat + step, tried, damping / 4.0 if damping > 1e-3 else 0.0
        else:
            damping = max(4.0 * damping, 0.05 * float(np.abs(eigenvalues).max()))
    return Mode(flat, here[1], here[2], scales, converged, float(here[0] + here[3]))


def _exchanged(anchors: Anchors, flat: np.ndarray) -> np.ndarray:
    """Return unknowns with the means of the two modes, and their shares, exchanged."""
    d = anchors.means.shape[1]
    return np.concatenate([-flat[:1], flat[1 + d : 1 + 2 * d], flat[1 : 1 + d], flat[1 + 2 * d :]])


def _sides(anchors: Anchors, start: Unknowns, flat: np.ndarray) -> float:
    return float(log_sides(anchors, _restore(start, flat)))


def _evaluate(
    anchors: Anchors,
    prior: Prior,
    rows: Iterable[Rows],
    start: Unknowns,
    flat: np.ndarray,
    factors: np.ndarray,
) -> list[np.ndarray]:
    """Return value, gradient and Hessian of the log-likelihood, then those of the log prior."""
    unknowns = _restore(start, flat)
    parts = [
        *total(lambda piece: derivatives(anchors, unknowns, piece), rows),
        *_prior_derivatives(anchors, prior, unknowns, factors),
    ]
    arrays = [np.asarray(part) for part in parts]
    if all(np.all(np.isfinite(a)) for a in arrays):
        return arrays
    return [np.array(-np.inf), *arrays[1:3], np.array(0.0), *arrays[4:]]


@jax.jit
def _prior_derivatives(
    anchors: Anchors, prior: Prior, unknowns: Unknowns, factors: Array
) -> tuple[Array, Array, Array]:
    flat, restore = ravel_pytree(unknowns)

    def value(flat: Array) -> Array:
        return log_prior(anchors, prior, restore(flat), factors)

    return value(flat), jax.grad(value)(flat), jax.hessian(value)(flat)


@jax.jit
def _log_prior_batch(anchors: Anchors, prior: Prior, unknowns: Unknowns, factors: Array) -> Array:
    return jax.vmap(lambda one, f: log_prior(anchors, prior, one, f), in_axes=(0, 1))(unknowns, factors)


def _scale_posterior(
    anchors: Anchors, prior: Prior, start: Unknowns, mode: Mode
) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the probability of (τ of old, τ of new) along and across the axis, on the grid.

    The other unknowns are integrated out of the quadratic; across the axis it is replaced by its mean over
    coordinates, which makes the evidence a product of equal factors.
    """
    tau, log_probability = scale_grid(prior)
    d = anchors.means.shape[1]
    precision, linear = _means_quadratic(anchors, prior, start, mode)
    grids = []
    for part, coordinates in enumerate((slice(0, 1), slice(1, d))):
        joint = log_probability[part][:, None] + log_probability[part][None, :]
        num = len(range(d)[coordinates])
        blocks = precision.reshape(2, d, 2, d)[:, coordinates, :, coordinates]
        h = np.trace(blocks, axis1=1, axis2=3) / max(num, 1)
        g = linear.reshape(2, d)[:, coordinates]
        noise = [np.trace(v[coordinates, coordinates]) / max(num, 1) for v in anchors.mean_covariances]
        variances = [v + tau**2 for v in noise]
        t = np.zeros((len(tau), len(tau), 2, 2))
        t[..., 0, 0], t[..., 1, 1] = variances[0][:, None], variances[1][None, :]
        # T (1 + h T)⁻¹ = (h + T⁻¹)⁻¹, without the inverse of a small T.
        factor = np.eye(2) + h @ t
        spread = t @ np.linalg.inv(factor)
        evidence = 0.5 * np.einsum("abij,ij->ab", spread, g @ g.T) - 0.5 * num * np.log(np.linalg.det(factor))
        log_posterior = joint + evidence
        grids.append(np.exp(log_posterior - special.logsumexp(log_posterior)))
    return grids, tau


def _means_quadratic(
    anchors: Anchors, prior: Prior, start: Unknowns, mode: Mode
) -> tuple[np.ndarray, np.ndarray]:
    """Return precision and linear term of the likelihood in (m_o - μ̂_o, m_n - μ̂_n), the rest integrated."""
    d = anchors.means.shape[1]
    means = np.arange(1, 1 + 2 * d)
    others = np.setdiff1d(np.arange(len(mode.flat)), means)
    factors = _factors(anchors, mode.scales[None])[:, 0]
    _, prior_gradient, prior_hessian = (
        np.asarray(part) for part in _prior_derivatives(anchors, prior, _restore(start, mode.flat), factors)
    )
    precision, gradient = _concave(-mode.hessian), mode.gradient.copy()
    precision[np.ix_(others, others)] -= prior_hessian[np.ix_(others, others)]
    gradient[others] += prior_gradient[others]
    inner = np.linalg.solve(
        precision[np.ix_(others, others)],
        np.column_stack([precision[np.ix_(others, means)], gradient[others]]),
    )
    coupling = precision[np.ix_(means, others)]
    schur = precision[np.ix_(means, means)] - coupling @ inner[:, :-1]
    slope = gradient[means] - coupling @ inner[:, -1]
    return schur, slope + schur @ (mode.flat[means] - anchors.means.ravel())


def _propose_scales(
    anchors: Anchors, prior: Prior, start: Unknowns, mode: Mode, num: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw scales; return them, shape (draw, 2, 2), and the log of their prior over their proposal."""
    grids, tau = _scale_posterior(anchors, prior, start, mode)
    _, log_probability = scale_grid(prior)
    scales, log_odds = np.zeros((num, 2, 2)), np.zeros(num)
    for part, grid in enumerate(grids):
        # A little of the prior keeps the proposal from missing what the quadratic misses.
        proposal = 0.95 * grid + 0.05 * np.exp(np.add.outer(log_probability[part], log_probability[part]))
        picked = rng.choice(grid.size, size=num, p=proposal.ravel() / proposal.sum())
        index = np.stack(np.unravel_index(picked, grid.shape))
        scales[:, :, part] = tau[index].T
        log_odds += log_probability[part][index].sum(axis=0) - np.log(proposal.ravel()[picked])
    return scales, log_odds


class _Quadratic(NamedTuple):
    """The log posterior around its mode, without the Gaussian prior of the means, whose scales vary.

    Attributes:
        flat: the mode, shape (D,).
        slope: shape (D,).
        precision: shape (D, D).
        likelihood: the samples' part of the precision, shape (D, D).
    """

    flat: Any
    slope: Any
    precision: Any
    likelihood: Any


def _quadratic(anchors: Anchors, prior: Prior, start: Unknowns, mode: Mode) -> _Quadratic:
    d = anchors.means.shape[1]
    factors = _factors(anchors, mode.scales[None])[:, 0]
    _, gradient, hessian = (
        np.asarray(part) for part in _prior_derivatives(anchors, prior, _restore(start, mode.flat), factors)
    )
    likelihood = _concave(-mode.hessian)
    slope, precision = mode.gradient + gradient, likelihood - hessian
    for k, factor in enumerate(factors):
        place = slice(1 + k * d, 1 + (k + 1) * d)
        inverse = np.linalg.inv(factor @ factor.T)
        slope[place] += inverse @ (mode.flat[place] - anchors.means[k])
        precision[place, place] -= inverse
    return _Quadratic(mode.flat, slope, precision, likelihood)


@jax.jit
def _propose_unknowns(
    anchors: Anchors, quadratic: _Quadratic, scales: Float[Array, "draw 2 2"], key: Array
) -> tuple[Float[Array, "draw D"], Float[Array, "draw"]]:
    """Draw the unknowns given scales; return them and their log density."""
    d, size = anchors.means.shape[1], quadratic.flat.shape[0]
    solve = jax.scipy.linalg.solve_triangular

    def one(scales: Array, key: Array) -> tuple[Array, Array]:
        precision, slope = quadratic.precision, quadratic.slope
        gaussian = jnp.zeros((size, size))
        for k in (0, 1):
            place = slice(1 + k * d, 1 + (k + 1) * d)
            inverse = jnp.linalg.inv(mean_covariance(anchors, k, scales[k]))
            gaussian = gaussian.at[place, place].set(inverse)
            slope = slope.at[place].add(-inverse @ (quadratic.flat[place] - anchors.means[k]))
        # With the weight last, the factor of the rest and the weight's marginal lie in one triangle.
        factor = jnp.linalg.cholesky(jnp.roll(precision + gaussian, -1, (0, 1)))
        u = solve(factor, jnp.roll(slope, -1), lower=True)
        width = 1.0 / factor[-1, -1]
        centre = quadratic.flat[0] + width * u[-1]
        # The Beta law whose logit has this mode and this curvature.
        share = jax.nn.sigmoid(jnp.clip(centre, -30.0, 30.0))
        count = jnp.maximum(1.0 / (width**2 * share * (1.0 - share)), 1e-3)
        shapes = count * jnp.stack([share, 1.0 - share])
        keys = jax.random.split(key)
        logs = jax.random.loggamma(keys[0], shapes)
        logit = jnp.clip(logs[0] - logs[1], -600.0, 600.0)
        log_q = shapes @ jax.nn.log_sigmoid(jnp.stack([logit, -logit])) - betaln(*shapes)
        # The rest given the weight: samples of a mode are as many as its weight says.
        shift = jnp.clip(logit - quadratic.flat[0], *(centre - quadratic.flat[0] + 4.0 * width * _SIGNS))
        mean = solve(factor[:-1, :-1].T, u[:-1] - factor[-1, :-1] * shift, lower=False)
        ratios = [
            jnp.clip(
                jnp.exp(jax.nn.log_sigmoid(s * logit) - jax.nn.log_sigmoid(s * quadratic.flat[0])), 0.2, 5.0
            )
            for s in (1.0, -1.0)
        ]
        root = jnp.sqrt(jnp.concatenate([jnp.repeat(jnp.stack(ratios), d), jnp.ones(size - 1 - 2 * d)]))
        samples = quadratic.likelihood[1:, 1:]
        conditional = precision[1:, 1:] + gaussian[1:, 1:] - samples + root[:, None] * samples * root
        factor = jnp.linalg.cholesky(conditional)
        z = jax.random.normal(keys[1], (size - 1,))
        rest = quadratic.flat[1:] + mean + solve(factor.T, z, lower=False)
        log_q += jnp.sum(jnp.log(jnp.diagonal(factor))) - 0.5 * z @ z
        return jnp.concatenate([logit[None], rest]), log_q

    return jax.vmap(one)(scales, jax.random.split(key, len(scales)))


def _factors(anchors: Anchors, scales: np.ndarray) -> np.ndarray:
    """Return the Cholesky factors of V + T, shape (2, draw, d, d)."""
    return np.stack([np.linalg.cholesky(mean_covariance(anchors, k, scales[:, k])) for k in (0, 1)])


def _concave(precision: np.ndarray) -> np.ndarray:
    """Return the nearest positive semidefinite matrix."""
    eigenvalues, vectors = np.linalg.eigh(precision)
    return (vectors * np.maximum(eigenvalues, 0.0)) @ vectors.T


def _restore(start: Unknowns, flat: np.ndarray) -> Unknowns:
    return ravel_pytree(start)[1](jnp.asarray(flat))


@jax.jit
def _restore_batch(start: Unknowns, flat: Array) -> Unknowns:
    return jax.vmap(ravel_pytree(start)[1])(flat)
