"""What draws of a checkpoint say of its prompts: spread, shift, and the old share of each."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int
from scipy import special

from inference.measurement.posterior.law import Unknowns, point_of
from inference.measurement.prompts import effects, integral
from inference.measurement.prompts.effects import Effects
from inference.measurement.prompts.integral import Arranged, PromptRows
from inference.measurement.references.anchors import Anchors
from inference.measurement.references.clusters import concentration_of

# Draws of a call.
_BATCH = 64


class PromptDraws(NamedTuple):
    """Draws of what every prompt of a checkpoint has of its own, N draws.

    Attributes:
        old_share: of the prompt, shape (N, prompt).
        place: v, shape (N, prompt).
    """

    old_share: Float[np.ndarray, "N prompt"]
    place: Float[np.ndarray, "N prompt"]


def prompt_draws(
    anchors: Anchors,
    unknowns: Unknowns,
    which: tuple[np.ndarray, np.ndarray],
    arranged: Arranged,
    rng: np.random.Generator,
) -> PromptDraws:
    """Draw what prompts have of their own under some of the draws of the unknowns.

    Args:
        anchors: R draws of them.
        unknowns: along the axis, batch (R, J).
        which: places (r, j) of the draws.
        arranged: the samples along the axis.
        rng: of the seed.
    """
    num = 1 + max(int(place.max()) for place in arranged.places)
    shares, places = (np.zeros((len(which[0]), num)) for _ in range(2))
    for piece, at in zip(arranged.pieces, arranged.places, strict=True):
        for first in range(0, len(which[0]), _BATCH):
            # One program for any number of draws: the last batch is filled by its last draw.
            some = np.minimum(np.arange(first, first + _BATCH), len(which[0]) - 1)
            r, j = which[0][some], which[1][some]
            keys = jax.random.split(jax.random.key(int(rng.integers(2**63))), _BATCH)
            drawn = _drawn(
                jax.tree.map(lambda a, r=r: np.asarray(a)[r], anchors),
                jax.tree.map(lambda a, r=r, j=j: np.asarray(a)[r, j], unknowns),
                piece,
                keys,
            )
            for found, values in zip((shares, places), drawn, strict=True):
                found[np.ix_(some, at[at >= 0])] = np.asarray(values)[:, at >= 0]
    return PromptDraws(shares, places)


@jax.jit
def _drawn(anchors: Anchors, unknowns: Unknowns, piece: PromptRows, keys: Array) -> tuple[Array, Array]:
    def one(given: tuple[Anchors, Unknowns, Array]) -> tuple[Array, Array]:
        point = point_of(given[0], given[1])
        u, v = integral.draw_effects(point, piece, given[2])
        return integral.share_of(point, u), v

    result: tuple[Array, Array] = jax.lax.map(one, (anchors, unknowns, keys))
    return result


def reported(unknowns: Unknowns) -> dict[str, np.ndarray]:
    """Return draws of the spread σ of prompts' logits and of their share ρ of variance along the axis."""
    if unknowns.prompts is None:
        return {}
    spread, shift = (np.asarray(score) for score in unknowns.prompts)
    return {"prompt_spread": effects.spread_of(spread), "prompt_shift": effects.shift_of(shift)}


def known_variance(
    unknowns: Unknowns, spread: Effects, num_samples: int, prompts: Int[np.ndarray, "n"]
) -> float:
    """Return the variance of the old weight of new prompts were the mode of every sample known.

    Args:
        unknowns: batch (R, J).
        spread: their effects.
        num_samples: of all the samples.
        prompts: of the samples.
    """
    logit, concentration = np.ravel(unknowns.old_logit), concentration_of(prompts)
    share = special.expit(logit)
    between = effects.share_variance(logit, effects.spread_of(np.ravel(spread.spread_score)))
    return float(np.mean((share * (1.0 - share) - between) / num_samples + between * concentration))
