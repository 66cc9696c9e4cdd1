"""Which kind of modes the references are: judged by references that were held out.

What a kind must tell is which task a sample belongs to. Modes with their own shape along the axis and one
covariance across it make no claim on anything else, so that they are right for every reference; kinds that
use more of the samples are taken where held-out references say that they tell the tasks apart better, and
that the share of old samples they estimate is right.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from inference.measurement.posterior.climb import log_odds
from inference.measurement.references.anchors import Kind, anchor, ordered, unbatched
from inference.measurement.references.axis_shape import AxisShape
from inference.measurement.references.moments import MOST_ROWS, fit_tail_dof, has_heavy_tails

_FOLDS = 5

# Standard errors by which a kind must tell tasks apart better than the safe one, and by which the share that
# it estimates of held-out references may be off.
_BETTER, _OFF = 2.0, 2.5

# Odds of the information on the share, against what is missing of it, that a kind must hold over those of
# the safe one: a little more is not worth its claims.
_INFORMATION_ODDS = 1.7

# Shares at which the estimated share is looked at.
_SHARES = (0.1, 0.5, 0.9)


class Score(NamedTuple):
    """How a kind does on held-out references.

    Attributes:
        odds: log p_o(y) - log p_n(y) of the old and of the new rows, shape (n,) each.
    """

    odds: tuple[Float[np.ndarray, "n"], Float[np.ndarray, "m"]]

    @property
    def log_scores(self) -> tuple[np.ndarray, np.ndarray]:
        """The log probability of every row's own task at even odds [nat]."""
        return -np.logaddexp(0.0, -self.odds[0]), -np.logaddexp(0.0, self.odds[1])

    def share_errors(self) -> list[tuple[float, float]]:
        """Return the error of an estimated old share and its standard error, at each of `_SHARES`."""
        found = []
        for share in _SHARES:
            slopes = self._slopes(share)
            parts = [share * slopes[0].mean(), (1.0 - share) * slopes[1].mean()]
            variance = [
                share**2 * slopes[0].var() / len(slopes[0]),
                (1.0 - share) ** 2 * slopes[1].var() / len(slopes[1]),
            ]
            information = share * np.mean(slopes[0] ** 2) + (1.0 - share) * np.mean(slopes[1] ** 2)
            found.append((float(sum(parts) / information), float(np.sqrt(sum(variance)) / information)))
        return found

    @property
    def information_odds(self) -> float:
        """Information of a sample on a share of one half, over what it lacks to 4, that of a known mode."""
        information = float(0.5 * sum(np.mean(slope**2) for slope in self._slopes(0.5)))
        return information / max(4.0 - information, 1e-12)

    def _slopes(self, share: float) -> list[Float[np.ndarray, "n"]]:
        """Return (p_o - p_n) / (β p_o + (1-β) p_n) of every row, the slope of its log-likelihood in β."""
        odds = [np.clip(o, -700.0, 700.0) for o in self.odds]
        return [-np.expm1(-o) / (share + (1.0 - share) * np.exp(-o)) for o in odds]

    @property
    def is_right(self) -> bool:
        """Whether the shares that the kind estimates are right within their error."""
        return all(abs(off) < _OFF * error for off, error in self.share_errors())


def choose_kind(
    old: Float[np.ndarray, "n d"],
    new: Float[np.ndarray, "m d"],
    covariance: str,
    tails: str,
    *,
    safe: str = "axis",
) -> Kind:
    """Return the kind of modes, what is not ``"auto"`` as it is asked for.

    Args:
        old: reference samples of the old task.
        new: reference samples of the new task.
        covariance: one of `anchors.COVARIANCES` or ``"auto"``.
        tails: ``"gaussian"``, ``"student"`` or ``"auto"``: by BIC.
        safe: the covariance that is taken unless another is clearly better.
    """
    if covariance != "auto" and tails != "auto":
        return Kind(covariance, tails == "student")
    _, old, new, _ = ordered(old, new, None, shared=True)
    old, new = (y[:: -(-len(y) // MOST_ROWS)] for y in (old, new))
    smallest, d = min(len(old), len(new)), old.shape[1]

    def tailed(shared: bool) -> bool:
        return has_heavy_tails([old, new], tails, shared=shared)

    if covariance != "auto":
        return Kind(covariance, tailed(covariance in ("shared", "axis")))
    candidates = [safe]
    if smallest >= 3 * d + 10:
        candidates.append("proportional")
    if smallest >= 5 * d + 10:
        candidates.append("unequal")
    if d == 1 or len(candidates) == 1:
        return Kind(safe, tailed(True))
    heavy = {True: tailed(True), False: tailed(False)}
    kinds = [Kind(name, heavy[name == safe]) for name in candidates]
    dofs = {
        shared: fit_tail_dof([old, new], shared=shared) if heavy[shared] else None for shared in (True, False)
    }
    whole = anchor(old, new, kinds[0], tail_dof=dofs[True], num_draws=0).central.shape
    scores = {kind: _score(old, new, kind, dofs[kind.covariance == safe], whole) for kind in kinds}
    best = kinds[0]
    for kind in kinds[1:]:
        enough = scores[kind].information_odds > _INFORMATION_ODDS * scores[kinds[0]].information_odds
        if enough and scores[kind].is_right and _is_better(scores[kind], scores[best]):
            best = kind
    return best


def _is_better(score: Score, other: Score) -> bool:
    """Return whether one kind tells held-out references apart better than another, beyond chance."""
    gains = [a - b for a, b in zip(score.log_scores, other.log_scores, strict=True)]
    error = np.sqrt(sum(g.var() / len(g) for g in gains))
    return bool(sum(g.mean() for g in gains) > _BETTER * error)


def _score(
    old: np.ndarray, new: np.ndarray, kind: Kind, tail_dof: float | None, shape: AxisShape | None
) -> Score:
    """Score a kind by folds; a row is judged by what the rows of the other folds say.

    The shape along the axis, a few numbers, is that of all rows.
    """
    odds = [np.zeros(len(old)), np.zeros(len(new))]
    for fold in range(_FOLDS):
        inside = [np.arange(len(y)) % _FOLDS != fold for y in (old, new)]
        references = anchor(old[inside[0]], new[inside[1]], kind, tail_dof=tail_dof, shape=shape, num_draws=0)
        one = unbatched(references.central)
        for task, y, known in zip(odds, (old, new), inside, strict=True):
            inside_frame = references.frame.coordinates(y[~known])
            task[~known] = log_odds(one, inside_frame[:, : one.means.shape[1]])
    return Score((odds[0], odds[1]))
