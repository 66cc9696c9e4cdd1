"""The same posterior by NUTS: a chain for each draw of the anchors, started by the fast path."""

from collections.abc import Callable, Sequence
from functools import partial

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr
from jax.scipy.special import logit
from jaxtyping import Array, Bool, Float
from numpyro.infer.hmc import HMCState, hmc
from numpyro.infer.util import constrain_fn, potential_energy, unconstrain_fn
from scipy import special

from inference.measurement.posterior import law
from inference.measurement.posterior.laplace import Draws
from inference.measurement.posterior.law import CheckpointLaw, Neither, Unknowns
from inference.measurement.posterior.prior import (
    NEITHER_LOG_SCALE,
    NEITHER_SHARE,
    NEITHER_SPREAD,
    SCALE_DOF,
    Prior,
    log_sides,
    mean_covariance,
)
from inference.measurement.prompts import integral
from inference.measurement.prompts.effects import Effects, shift_of
from inference.measurement.prompts.integral import PromptRows
from inference.measurement.references.anchors import Anchors
from mixture_models.types import AnyArray

_WARMUP, _MOST_DEPTH = 300, 7

#: Samples that are held in memory: one piece, or where they have prompts one for every size of a prompt.
type Held = law.Rows | list[PromptRows]


def model(
    anchors: Anchors, prior: Prior, rows: Held, moved: Float[AnyArray, "2"], *, neither: bool = False
) -> None:
    """The samples of one checkpoint under one draw of the anchors, in their frame.

    The reference means are integrated out: m ~ N(μ̂, V + T), see `prior`. Which modes have moved is given:
    the fast path has drawn it.

    Args:
        anchors: one draw, unbatched.
        prior: the numbers of the prior.
        rows: the samples.
        moved: 1 for a mode that has moved, else 0, shape (2,).
        neither: whether there is a third component.
    """
    d = anchors.means.shape[1]
    share = numpyro.sample("old_share", dist.Beta(*prior.weight_shapes))
    half_t = dist.FoldedDistribution(dist.StudentT(SCALE_DOF, 0.0, prior.displacement_scale))
    rate = 0.5 * SCALE_DOF * prior.displacement_scale**2
    along = numpyro.sample("axis_variance", dist.InverseGamma(0.5 * SCALE_DOF, rate).expand([2]).to_event(1))
    across = numpyro.sample("across_scale", half_t.expand([2]).to_event(1))
    scales = jnp.stack([jnp.sqrt(along), across], axis=-1) * jnp.asarray(moved)[:, None]
    means = []
    for k, name in enumerate(("old", "new")):
        covariance = mean_covariance(anchors, k, scales[k])
        means.append(numpyro.sample(f"{name}_mean", dist.MultivariateNormal(anchors.means[k], covariance)))
    shape = (anchors.tilt_dof.shape[0], d - 1)
    spread = jnp.broadcast_to(1.0 / jnp.sqrt(anchors.tilt_dof)[:, None], shape)
    tilt = numpyro.sample("tilt", dist.Normal(0.0, spread).to_event(2)) if d > 1 else jnp.zeros(shape)
    third = None
    if neither:
        third = Neither(
            logit(numpyro.sample("neither_share", dist.Beta(*NEITHER_SHARE))),
            numpyro.sample("neither_mean", dist.Normal(anchors.means.mean(0), NEITHER_SPREAD).to_event(1)),
            numpyro.sample("neither_log_scale", dist.Normal(*NEITHER_LOG_SCALE)),
        )
    prompts = None
    if anchors.likeness is not None:
        scores = [numpyro.sample(name, dist.Normal(0.0, 1.0)) for name in ("spread_score", "shift_score")]
        prompts = Effects(*scores)
        numpyro.factor("likeness", anchors.likeness.log_likelihood(shift_of(prompts.shift_score)))
    unknowns = Unknowns(logit(share), means[0], means[1], tilt, third, prompts)
    numpyro.factor("sides", log_sides(anchors, unknowns))
    if isinstance(rows, list):
        for piece in rows:
            value = integral.log_likelihood(law.point_of(anchors, unknowns), piece)
            numpyro.factor(f"prompts of {piece.weights.shape[-1]}", value)
        return
    with numpyro.plate("samples", rows.weights.size), numpyro.handlers.mask(mask=rows.weights.ravel() > 0.0):
        numpyro.sample("y", CheckpointLaw(anchors, unknowns), obs=rows.y.reshape(-1, d))


def sample(
    anchors: Anchors,
    prior: Prior,
    rows: Held,
    start: Draws,
    *,
    neither: bool,
    num: int,
    rng: np.random.Generator,
) -> tuple[Draws, dict[str, float]]:
    """Return draws by NUTS from starts that the fast path drew, and their diagnostics.

    There is a chain for each draw of the anchors; which modes have moved in it is drawn from the fast path.

    Args:
        anchors: R draws of them.
        prior: the numbers of the prior.
        rows: the checkpoint's samples, held in memory.
        start: draws of the fast path; each chain starts at one.
        neither: whether there is a third component.
        num: draws for each draw of the anchors.
        rng: for the starts and the seed.

    Returns:
        The draws, and ``r_hat`` (the largest, between the halves of chains), ``ess`` (the smallest) over
        weight and means, and ``divergences``.
    """
    count = len(start.scales)
    place = np.arange(count), rng.integers(start.scales.shape[1], size=count)
    moved = (start.scales[place][:, :, 0] > 0.0).astype(float)
    seen = ["old_share", "old_mean", "new_mean"]
    seen += [] if start.unknowns.prompts is None else Effects._fields
    at = _site_values(
        jax.tree.map(lambda a: np.asarray(a)[place], start.unknowns), start.scales[place], prior
    )
    given = (anchors, prior, rows, jnp.asarray(moved))
    sites, found = run_chains(model, given, at, seen, neither=neither, num=num, rng=rng)
    third = None
    if neither:
        third = Neither(
            special.logit(sites["neither_share"]), sites["neither_mean"], sites["neither_log_scale"]
        )
    tilt = sites.get("tilt", np.zeros((count, num, *start.unknowns.tilt.shape[2:])))
    prompts = None
    if start.unknowns.prompts is not None:
        prompts = Effects(sites["spread_score"], sites["shift_score"])
    weight = special.logit(sites["old_share"])
    unknowns = Unknowns(weight, sites["old_mean"], sites["new_mean"], tilt, third, prompts)
    scales = np.stack([np.sqrt(sites["axis_variance"]), sites["across_scale"]], axis=-1)
    return Draws(unknowns, scales * moved[:, None, :, None], start.k_hat, start.efficiency), found


def run_chains[Law, Beliefs](
    program: Callable[..., None],
    given: tuple[Law, Beliefs, Held, Float[AnyArray, "R K"]],
    at: dict[str, AnyArray],
    seen: Sequence[str],
    *,
    neither: bool,
    num: int,
    rng: np.random.Generator,
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Return draws (R, num, ...) of the sites of a NumPyro model, and their diagnostics.

    Args:
        program: the model.
        given: its arguments: the modes, the prior, the samples, and which modes have moved; every chain has
            its own of the first and of the last.
        at: sites where every chain starts.
        seen: sites whose chains are diagnosed.
        neither: whether the model has a component for neither task.
        num: draws of every chain, after warm-up.
        rng: for the seed.
    """
    keys = jax.random.split(jax.random.key(rng.integers(2**63)), len(given[-1]))
    drawn, diverging = _chains(program, given, at, keys, neither=neither, num=num)
    sites = {name: np.asarray(array) for name, array in drawn.items()}
    found = diagnostics({name: sites[name] for name in seen})
    return sites, found | {"divergences": float(np.sum(np.asarray(diverging)))}


@partial(jax.jit, static_argnames=("program", "neither", "num"))
def _chains[Given: tuple[object, ...]](
    program: Callable[..., None],
    given: Given,
    at: dict[str, AnyArray],
    keys: Array,
    *,
    neither: bool,
    num: int,
) -> tuple[dict[str, Array], Bool[Array, "R num"]]:
    """Return draws of the sites of a chain for each draw of the modes, and what diverged."""
    model_of = partial(program, neither=neither)

    def one(given: Given, at: dict[str, AnyArray], key: Array) -> tuple[dict[str, Array], Array]:
        init, step = hmc(lambda z: potential_energy(model_of, given, {}, z), algo="NUTS")
        state = init(
            unconstrain_fn(model_of, given, {}, at),
            _WARMUP,
            dense_mass=True,
            max_tree_depth=_MOST_DEPTH,
            rng_key=key,
        )
        state = jax.lax.fori_loop(0, _WARMUP, lambda _, s: step(s), state)

        def kept(state: HMCState, _: None) -> tuple[HMCState, tuple[dict[str, Array], Array]]:
            state = step(state)
            return state, (state.z, state.diverging)

        _, (drawn, diverging) = jax.lax.scan(kept, state, None, num)
        return jax.vmap(lambda z: constrain_fn(model_of, given, {}, z))(drawn), diverging

    return jax.vmap(one, in_axes=((0, None, None, 0), 0, 0))(given, at, keys)


def diagnostics(sites: dict[str, np.ndarray]) -> dict[str, float]:
    """Return R̂ and effective sample size of what the chains share: their draws less their chain's mean."""
    half = next(iter(sites.values())).shape[1] // 2
    data = {}
    for name, array in sites.items():
        centred = array - array.mean(axis=1, keepdims=True)
        halves = np.stack([centred[:, :half], centred[:, half : 2 * half]])
        halves = halves.reshape(2, -1, *array.shape[2:])
        data[name] = (("chain", "draw", *(f"{name}_{i}" for i in range(halves.ndim - 2))), halves)
    summary = xr.Dataset(data)
    r_hat, bulk = az.rhat(summary), az.ess(summary)
    return {
        "r_hat": float(max(float(r_hat[name].max()) for name in summary)),
        "ess": float(min(float(bulk[name].min()) for name in summary)),
    }


def _site_values(unknowns: Unknowns, scales: np.ndarray, prior: Prior) -> dict[str, np.ndarray]:
    """Return the model's sites at unknowns, their first axis over chains."""
    scales = np.where(scales > 0.0, scales, float(prior.displacement_scale))
    values = {
        "old_share": np.clip(special.expit(unknowns.old_logit), 1e-12, 1.0 - 1e-12),
        "axis_variance": scales[..., 0] ** 2,
        "across_scale": scales[..., 1],
        "old_mean": unknowns.old_mean,
        "new_mean": unknowns.new_mean,
    }
    if unknowns.old_mean.shape[-1] > 1:
        values["tilt"] = unknowns.tilt
    if unknowns.neither is not None:
        third = unknowns.neither
        values |= {
            "neither_share": special.expit(third.logit),
            "neither_mean": third.mean,
            "neither_log_scale": third.log_scale,
        }
    if unknowns.prompts is not None:
        values |= unknowns.prompts._asdict()
    return values
