"""Integrals over the line through two modes in 25 digits, by mpmath: nothing here calls the library.

Whitened and measured from the midpoint, the old mode is N(-δ/2, 1), the new one N(δ/2, 1). Composite
Gauss-Legendre rules on short pieces, with densities as they are: 25 digits make every cancellation harmless.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import mpmath as mp
import numpy as np

mp.mp.dps = 25

_NODES, _WEIGHTS = ([mp.mpf(float(x)) for x in values] for values in np.polynomial.legendre.leggauss(16))


class Line(NamedTuple):
    """Densities of the modes, and the mixture's, at a point."""

    old: mp.mpf
    new: mp.mpf
    mixture: mp.mpf
    y: mp.mpf


def rule(low: float, high: float, piece: float) -> list[tuple[mp.mpf, mp.mpf]]:
    """Return weights and points of Gauss-Legendre rules on equal pieces no longer than ``piece``."""
    count = int(np.ceil((high - low) / piece))
    half = (mp.mpf(high) - mp.mpf(low)) / (2 * count)
    return [
        (half * weight, low + half * (2 * i + 1 + node))
        for i in range(count)
        for node, weight in zip(_NODES, _WEIGHTS, strict=True)
    ]


@lru_cache
def _line(weight: float, separation: float) -> list[tuple[mp.mpf, Line]]:
    share, half = mp.mpf(weight), mp.mpf(separation) / 2
    norm = 1 / mp.sqrt(2 * mp.pi)
    reach = 1.5 * separation + 10.0
    points = []
    for step, y in rule(-reach, reach, 2.0 / max(1.0, 0.4 * separation)):
        old, new = (norm * mp.exp(-((y + sign * half) ** 2) / 2) for sign in (1, -1))
        points.append((step, Line(old, new, share * old + (1 - share) * new, y)))
    return points


def over_line(values: Callable[[Line], mp.mpf], weight: float, separation: float) -> mp.mpf:
    """Return ∫ values dy for a mixture with an old weight and a separation."""
    return mp.fsum(step * values(at) for step, at in _line(weight, separation))


def gaussian_mean(function: Callable[[mp.mpf], mp.mpf], a: float, v: float) -> mp.mpf:
    """Return E[function(a + √v Z)]."""
    s = float(np.sqrt(v))
    norm = 1 / mp.sqrt(2 * mp.pi)
    # A tilt by e^x moves the peak by s; the poles of a sigmoid are at distance π/s.
    points = rule(-11.0, 11.0 + s, 2.0 / max(1.0, 0.6 * s))
    root = mp.sqrt(mp.mpf(v))
    return norm * mp.fsum(step * mp.exp(-z * z / 2) * function(mp.mpf(a) + root * z) for step, z in points)


def relative_error(value: float, exact: mp.mpf) -> float:
    return float(abs(mp.mpf(float(value)) / exact - 1))
