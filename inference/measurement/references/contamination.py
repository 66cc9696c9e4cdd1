"""Whether a reference holds samples of the other task: what then counts as old is not old alone.

Along the axis a reference is fitted by one Gaussian, and by one Gaussian with a share of the other
reference's law where the other reference lies. If the second is much better, and no free shape of two
components is better still, that share looks like the other task.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from inference.measurement.references.anchors import References, unbatched
from inference.measurement.references.axis_shape import fit_axis_shape, log_density

# What the log-likelihood must gain by the share for it to be believed [nat].
_LEAST_GAIN = 6.0

_STEPS = 200


class Contamination(NamedTuple):
    """The share of each reference that looks like the other task, 0 where nothing speaks for it."""

    old: float
    new: float


def contamination_of(references: References) -> Contamination:
    """Return the share of each reference that looks like the other task."""
    along = [y[:, 0] for y in (references.old, references.new)]
    return Contamination(foreign_share(along[0], along[1]), foreign_share(along[1], along[0]))


def foreign_share(x: Float[np.ndarray, "n"], other: Float[np.ndarray, "m"]) -> float:
    """Return the share of samples along an axis that looks like those of another task."""
    strange = _normal(x, float(np.median(other)), _spread(other))
    alone = float(np.sum(np.log(_normal(x, x.mean(), x.std()))))
    share, mean, sd = 0.02, float(np.median(x)), _spread(x)
    for _ in range(_STEPS):
        own = _normal(x, mean, sd)
        held = share * strange / (share * strange + (1.0 - share) * own)
        share = float(held.mean())
        kept = 1.0 - held
        mean = float(kept @ x / kept.sum())
        sd = float(np.sqrt(kept @ (x - mean) ** 2 / kept.sum()))
    mixed = float(np.sum(np.log(share * strange + (1.0 - share) * _normal(x, mean, sd))))
    shape = fit_axis_shape([x - x.mean()], [np.ones((1, len(x)))])
    one = unbatched(shape)
    free = float(np.sum(log_density(one, 0, x - x.mean())))
    size = int(np.isfinite(one.log_weight[0]).sum())
    # The share has 3 numbers; a free shape of c components 3 c - 1.
    penalty = 0.5 * np.log(len(x)) * (3 * size - 1 - 3)
    return share if mixed - alone > _LEAST_GAIN and mixed > free - penalty else 0.0


def _normal(x: np.ndarray, mean: float, sd: float) -> np.ndarray:
    result: np.ndarray = np.exp(-0.5 * ((x - mean) / sd) ** 2) / (sd * np.sqrt(2.0 * np.pi)) + 1e-300
    return result


def _spread(x: np.ndarray) -> float:
    """Return the standard deviation of what is Gaussian in the middle."""
    return float(np.median(np.abs(x - np.median(x))) / 0.6745)
