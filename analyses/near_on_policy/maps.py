"""The maps of `analyses.near_on_policy`: two settings of a method crossed, and what theory says of each pair.

Theory takes the means as right. Where it is for separated modes it holds up to terms of the order of the
overlap.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from scipy.special import expit, logit

from analyses.near_on_policy.settings import Settings
from inference import results
from mixture_models import objectives, theory
from mixture_models.mixture.two_mode import TwoMode
from mixture_models.objectives import Objective
from mixture_models.rewards import mode_reward

results.register(
    anchor=("anchor λ of SDFT", "1"),
    ema=("rate a step of SDFT's teacher", "1"),
    kl_weight=("KL weight λ of TTT-Discover", "1"),
    eta=("temperature η of TTT-Discover", "1"),
    beta=("temperature β₁ = β₂ of OAPL", "1"),
    lag=("steps between two syncs of OAPL", "step"),
    demonstrated_weight=("old weight of the demonstrations", "1"),
    demonstrated_drift=("old drift of the demonstrations", "Mahalanobis"),
    retains=("whether old mass is kept in the long run", "1"),
    resting_old_weight=("old weight in the long run", "1"),
)

#: The maps, in the order in which they are shown.
NAMES = ("sdft", "demonstrations", "ttt_discover", "oapl")

# Ends of the axes. An anchor and a KL weight also get 0, where their methods lose what holds them.
_ANCHORS, _EMAS, _ETAS = (0.02, 1.0), (0.002, 1.0), (0.2, 5.0)
_SHOWN = (1e-4, 0.9)
_LEAST_KL_WEIGHT, _MOST_KL_WEIGHT = 0.05, 5.0
_LEAST_BETA, _MOST_BETA = 0.2, 3.0
_LEAST_LAG = 5


class Map(NamedTuple):
    """A method over two of its settings.

    Attributes:
        title: the method in words.
        theory: what the theory's lines are, in words.
        axes: coordinates by name, the ordinate first.
        objective: the objective at a target and at a value of either axis, in their order.
        predicted: theory over both axes: ``old_weight``, perhaps ``old_drift``; ``retains`` and
            ``resting_old_weight``, whether and how much old mass is kept in the long run.
    """

    title: str
    theory: str
    axes: dict[str, np.ndarray]
    objective: Callable[[TwoMode, float, float], Objective]
    predicted: Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]

    def objectives(self, target: TwoMode, axes: dict[str, np.ndarray]) -> list[Objective]:
        """Return the objectives at all pairs, the last axis fastest, named after their settings."""
        first, second = axes
        return [
            replace(
                self.objective(target, float(a), float(b)),
                name=f"{self.title} with {first} {a:g} and {second} {b:g}",
            )
            for a in axes[first]
            for b in axes[second]
        ]

    def theory_over(self) -> xr.Dataset:
        """Return what theory predicts over both axes."""
        rows, columns = np.meshgrid(*self.axes.values(), indexing="ij")
        values = self.predicted(rows, columns)
        return xr.Dataset({name: (tuple(self.axes), np.asarray(v)) for name, v in values.items()}, self.axes)


def maps(settings: Settings) -> dict[str, Map]:
    """Return all maps by name, of at most ``num_points`` values an axis."""
    makers = (_sdft, _demonstrations, _ttt_discover, _oapl)
    return {name: make(settings) for name, make in zip(NAMES, makers, strict=True)}


def adaptive(settings: Settings, kl_weights: np.ndarray) -> list[Objective]:
    """Return TTT-Discover with its adaptive η at several KL weights."""
    reward = mode_reward(0.0, settings.reward_gap)
    return [
        replace(
            objectives.ttt_discover(reward, kl_weight=float(weight), eta="adaptive"),
            name=f"TTT-Discover with an adaptive eta and kl_weight {weight:g}",
        )
        for weight in kl_weights
    ]


def _sdft(settings: Settings) -> Map:
    start, shown = settings.start_old_weight, settings.old_weight

    def objective(target: TwoMode, ema: float, anchor: float) -> Objective:
        return objectives.sdft(anchor=anchor, ema=ema, demonstrations=target)

    def predicted(ema: np.ndarray, anchor: np.ndarray) -> dict[str, np.ndarray]:
        kept = theory.sdft_retains(anchor, start, shown, separation=settings.separation)
        left = np.exp(-_sdft_rate(settings, anchor, ema, shown) * settings.end_time)
        return {
            "old_weight": expit(logit(shown) + (logit(start) - logit(shown)) * left),
            "retains": kept.retains,
            "resting_old_weight": kept.old_weight,
        }

    return Map(
        title="SDFT, the target demonstrated",
        theory="decay at the local rate",
        axes={
            "ema": _spaced(*_EMAS, settings.num_points),
            "anchor": _from_zero(*_ANCHORS, settings.num_points),
        },
        objective=objective,
        predicted=predicted,
    )


def _sdft_rate(settings: Settings, anchor: np.ndarray, ema: np.ndarray, shown: float) -> np.ndarray:
    return theory.sdft_local_rate(
        shown, settings.separation, anchor=anchor, teacher_rate=ema / settings.learning_rate
    )


def _demonstrations(settings: Settings) -> Map:
    def objective(target: TwoMode, away: float, weight: float) -> Objective:
        shown = target.displaced(weight, old_drift=away)
        return objectives.sdft(anchor=settings.anchor, ema=settings.ema, demonstrations=shown)

    def predicted(away: np.ndarray, weight: np.ndarray) -> dict[str, np.ndarray]:
        kept = theory.sdft_retains(
            settings.anchor, settings.start_old_weight, weight, separation=settings.separation
        )
        return {
            "old_weight": kept.old_weight,
            "old_drift": np.where(settings.anchor > 0.0, away, 0.0),
            "retains": kept.retains,
            "resting_old_weight": kept.old_weight,
        }

    low, high = logit(_SHOWN)
    return Map(
        title=f"SDFT, anchor {settings.anchor:g}, ema {settings.ema:g}",
        theory="at rest: what is demonstrated",
        axes={
            "demonstrated_drift": _short(np.linspace(0.0, 0.5 * settings.separation, settings.num_points)),
            "demonstrated_weight": _short(expit(np.linspace(low, high, settings.num_points))),
        },
        objective=objective,
        predicted=predicted,
    )


def _ttt_discover(settings: Settings) -> Map:
    start, gap = settings.start_old_weight, settings.reward_gap

    def objective(target: TwoMode, eta: float, kl_weight: float) -> Objective:
        return objectives.ttt_discover(mode_reward(0.0, gap), kl_weight=kl_weight, eta=eta)

    def predicted(eta: np.ndarray, kl_weight: np.ndarray) -> dict[str, np.ndarray]:
        shared: dict[str, ArrayLike] = {"reward_gap": gap, "kl_weight": kl_weight, "eta": eta}
        kept = theory.ttt_discover_retains(
            start, **shared, separation=settings.separation, target_weight=settings.old_weight
        )
        return {
            "old_weight": expit(theory.ttt_discover_stationary_logit(start, **shared)),
            "retains": kept.retains,
            "resting_old_weight": kept.old_weight,
        }

    scale = settings.reward_scale
    # A larger KL weight makes a step of plain descent overshoot.
    most = min(_MOST_KL_WEIGHT, 1.0 / settings.learning_rate)
    return Map(
        title="TTT-Discover",
        theory="at rest, separated modes",
        axes={
            "eta": _spaced(_ETAS[0] / scale, _ETAS[1] / scale, settings.num_points),
            "kl_weight": _from_zero(_LEAST_KL_WEIGHT, most, settings.num_points),
        },
        objective=objective,
        predicted=predicted,
    )


def _oapl(settings: Settings) -> Map:
    start, gap = settings.start_old_weight, settings.reward_gap

    def objective(target: TwoMode, beta: float, lag: float) -> Objective:
        return objectives.oapl(mode_reward(0.0, gap), beta1=beta, beta2=beta, lag=int(lag))

    def predicted(beta: np.ndarray, lag: np.ndarray) -> dict[str, np.ndarray]:
        columns = [_after(settings, b, int(every[0])) for b, every in zip(beta.T, lag.T, strict=True)]
        kept = theory.oapl_retains(
            start,
            np.inf,
            reward_gap=gap,
            beta=beta,
            separation=settings.separation,
            target_weight=settings.old_weight,
        )
        return {
            "old_weight": expit(np.stack(columns, axis=-1)),
            "retains": kept.retains,
            "resting_old_weight": kept.old_weight,
        }

    # A step of plain descent overshoots where the learning rate times the curvature, up to 2 β², is above 2;
    # half of that.
    most = min(_MOST_BETA, (2.0 * settings.learning_rate) ** -0.5)
    lags = np.geomspace(min(_LEAST_LAG, settings.num_steps), settings.num_steps, settings.num_points)
    return Map(
        title="OAPL",
        theory="the same rounds, separated modes",
        axes={
            "beta": _spaced(min(_LEAST_BETA * settings.reward_scale, 0.5 * most), most, settings.num_points),
            "lag": np.unique(np.round(lags)).astype(int),
        },
        objective=objective,
        predicted=predicted,
    )


def _after(settings: Settings, beta: np.ndarray, lag: int) -> np.ndarray:
    """Return OAPL's logit after all steps: whole rounds, then what is left of one."""
    shared: dict[str, ArrayLike] = {"reward_gap": settings.reward_gap, "beta1": beta, "beta2": beta}
    rounds, rest = divmod(settings.num_steps, lag)
    phi = np.full(beta.shape, logit(settings.start_old_weight))
    for count, steps in ((rounds, lag), (1, rest)):
        if count and steps:
            phi = theory.oapl_logit_after(
                count, start_logit=phi, time_per_round=steps * settings.learning_rate, **shared
            )
    return phi


def _spaced(low: float, high: float, num_points: int) -> np.ndarray:
    return _short(np.geomspace(low, high, num_points))


def _from_zero(low: float, high: float, num_points: int) -> np.ndarray:
    return np.append(0.0, _spaced(low, high, num_points - 1))


def _short(values: np.ndarray) -> np.ndarray:
    """Return the values to two digits, which a reader can repeat; those that become the same once."""
    return np.unique([float(f"{value:.2g}") for value in values])
