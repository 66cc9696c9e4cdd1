"""Nodes of randomised quasi-Monte Carlo for integrals over the standard normal law in several dimensions.

Each resolution has its own scrambled Sobol' sequence, whose mean over scramblings is unbiased, so that the
difference between two is an estimate of the coarser one's error.

Source: Owen 1997, "Scrambled net variance for integrals of smooth functions"; `scipy.stats.qmc`.
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri
from scipy.stats import qmc

from mixture_models.types import Reals

#: Number of nodes by resolution, coarse to fine, and for what is only reported.
SIZES = (2**13, 2**13, 2**15, 2**12)

#: Where the nodes of a resolution begin among those of all.
FIRST = tuple(int(n) for n in np.cumsum((0, *SIZES[:-1])))

# Half of the distance between two coordinates of the net: the first of which may be 0.
_HALF = 2.0**-31


@lru_cache
def normal_nodes(dimensions: int) -> Float[Reals, "n k"]:
    """Return the nodes of all resolutions one after the other, mapped to the standard normal law."""
    parts = []
    for resolution, size in enumerate(SIZES):
        net = qmc.Sobol(dimensions, scramble=True, rng=np.random.default_rng([resolution, dimensions]))
        parts.append(ndtri(net.random_base2(int(size).bit_length() - 1) + _HALF))
    return np.concatenate(parts)
