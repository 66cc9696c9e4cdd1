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

from inference import results
from mixture_models import objectives, theory
from mixture_models.mixture.two_mode import Pair, TwoMode
from mixture_models.objectives import Objective
from mixture_models.rewards import mode_reward

results.register(
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


class Setting(NamedTuple):
    """What all maps share; ``anchor`` and ``ema`` are those of the map over demonstrations."""

    separation: float
    target_weight: float
    start_weight: float
    start_new_gap: float
    reward_gap: float
    num_steps: int
    learning_rate: float
    anchor: float
    ema: float

    @property
    def reward_scale(self) -> float:
        """Return what a temperature is measured in: the reward gap, or 1 where that is smaller."""
        return max(1.0, abs(self.reward_gap))

    @property
    def end_time(self) -> float:
        """Return steps times learning rate."""
        return self.num_steps * self.learning_rate

    def mixtures(self, dimension: int) -> Pair:
        """Return start and target, their means on the first coordinate."""
        target = TwoMode.on_axis(self.target_weight, self.separation, dimension)
        return target.displaced(self.start_weight, new_gap=self.start_new_gap), target


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


def maps(setting: Setting, num_points: int) -> dict[str, Map]:
    """Return all maps by name, of at most ``num_points`` values an axis."""
    makers = (_sdft, _demonstrations, _ttt_discover, _oapl)
    return {name: make(setting, num_points) for name, make in zip(NAMES, makers, strict=True)}


def adaptive(setting: Setting, kl_weights: np.ndarray) -> list[Objective]:
    """Return TTT-Discover with its adaptive η at several KL weights."""
    reward = mode_reward(0.0, setting.reward_gap)
    return [
        replace(
            objectives.ttt_discover(reward, kl_weight=float(weight), eta="adaptive"),
            name=f"TTT-Discover with an adaptive eta and kl_weight {weight:g}",
        )
        for weight in kl_weights
    ]


def _sdft(setting: Setting, num_points: int) -> Map:
    start, shown = setting.start_weight, setting.target_weight

    def objective(target: TwoMode, ema: float, anchor: float) -> Objective:
        return objectives.sdft(anchor=anchor, ema=ema, demonstrations=target)

    def predicted(ema: np.ndarray, anchor: np.ndarray) -> dict[str, np.ndarray]:
        kept = theory.sdft_retains(anchor, start, shown, separation=setting.separation)
        left = np.exp(-_sdft_rate(setting, anchor, ema, shown) * setting.end_time)
        return {
            "old_weight": expit(logit(shown) + (logit(start) - logit(shown)) * left),
            "retains": kept.retains,
            "resting_old_weight": kept.old_weight,
        }

    return Map(
        title="SDFT, the target demonstrated",
        theory="decay at the local rate",
        axes={"ema": _spaced(*_EMAS, num_points), "anchor": _from_zero(*_ANCHORS, num_points)},
        objective=objective,
        predicted=predicted,
    )


def _sdft_rate(setting: Setting, anchor: np.ndarray, ema: np.ndarray, shown: float) -> np.ndarray:
    return theory.sdft_local_rate(
        shown, setting.separation, anchor=anchor, teacher_rate=ema / setting.learning_rate
    )


def _demonstrations(setting: Setting, num_points: int) -> Map:
    def objective(target: TwoMode, away: float, weight: float) -> Objective:
        shown = target.displaced(weight, old_drift=away)
        return objectives.sdft(anchor=setting.anchor, ema=setting.ema, demonstrations=shown)

    def predicted(away: np.ndarray, weight: np.ndarray) -> dict[str, np.ndarray]:
        kept = theory.sdft_retains(
            setting.anchor, setting.start_weight, weight, separation=setting.separation
        )
        return {
            "old_weight": kept.old_weight,
            "old_drift": np.where(setting.anchor > 0.0, away, 0.0),
            "retains": kept.retains,
            "resting_old_weight": kept.old_weight,
        }

    low, high = logit(_SHOWN)
    return Map(
        title=f"SDFT, anchor {setting.anchor:g}, ema {setting.ema:g}",
        theory="at rest: what is demonstrated",
        axes={
            "demonstrated_drift": _short(np.linspace(0.0, 0.5 * setting.separation, num_points)),
            "demonstrated_weight": _short(expit(np.linspace(low, high, num_points))),
        },
        objective=objective,
        predicted=predicted,
    )


def _ttt_discover(setting: Setting, num_points: int) -> Map:
    start, gap = setting.start_weight, setting.reward_gap

    def objective(target: TwoMode, eta: float, kl_weight: float) -> Objective:
        return objectives.ttt_discover(mode_reward(0.0, gap), kl_weight=kl_weight, eta=eta)

    def predicted(eta: np.ndarray, kl_weight: np.ndarray) -> dict[str, np.ndarray]:
        settings: dict[str, ArrayLike] = {"reward_gap": gap, "kl_weight": kl_weight, "eta": eta}
        kept = theory.ttt_discover_retains(
            start, **settings, separation=setting.separation, target_weight=setting.target_weight
        )
        return {
            "old_weight": expit(theory.ttt_discover_stationary_logit(start, **settings)),
            "retains": kept.retains,
            "resting_old_weight": kept.old_weight,
        }

    scale = setting.reward_scale
    # A larger KL weight makes a step of plain descent overshoot.
    most = min(_MOST_KL_WEIGHT, 1.0 / setting.learning_rate)
    return Map(
        title="TTT-Discover",
        theory="at rest, separated modes",
        axes={
            "eta": _spaced(_ETAS[0] / scale, _ETAS[1] / scale, num_points),
            "kl_weight": _from_zero(_LEAST_KL_WEIGHT, most, num_points),
        },
        objective=objective,
        predicted=predicted,
    )


def _oapl(setting: Setting, num_points: int) -> Map:
    start, gap = setting.start_weight, setting.reward_gap

    def objective(target: TwoMode, beta: float, lag: float) -> Objective:
        return objectives.oapl(mode_reward(0.0, gap), beta1=beta, beta2=beta, lag=int(lag))

    def predicted(beta: np.ndarray, lag: np.ndarray) -> dict[str, np.ndarray]:
        columns = [_after(setting, b, int(every[0])) for b, every in zip(beta.T, lag.T, strict=True)]
        kept = theory.oapl_retains(
            start,
            np.inf,
            reward_gap=gap,
            beta=beta,
            separation=setting.separation,
            target_weight=setting.target_weight,
        )
        return {
            "old_weight": expit(np.stack(columns, axis=-1)),
            "retains": kept.retains,
            "resting_old_weight": kept.old_weight,
        }

    # A step of plain descent overshoots where the learning rate times the curvature, up to 2 β², is above 2;
    # half of that.
    most = min(_MOST_BETA, (2.0 * setting.learning_rate) ** -0.5)
    lags = np.geomspace(min(_LEAST_LAG, setting.num_steps), setting.num_steps, num_points)
    return Map(
        title="OAPL",
        theory="the same rounds, separated modes",
        axes={
            "beta": _spaced(min(_LEAST_BETA * setting.reward_scale, 0.5 * most), most, num_points),
            "lag": np.unique(np.round(lags)).astype(int),
        },
        objective=objective,
        predicted=predicted,
    )


def _after(setting: Setting, beta: np.ndarray, lag: int) -> np.ndarray:
    """Return OAPL's logit after all steps: whole rounds, then what is left of one."""
    shared: dict[str, ArrayLike] = {"reward_gap": setting.reward_gap, "beta1": beta, "beta2": beta}
    rounds, rest = divmod(setting.num_steps, lag)
    phi = np.full(beta.shape, logit(setting.start_weight))
    for count, steps in ((rounds, lag), (1, rest)):
        if count and steps:
            phi = theory.oapl_logit_after(
                count, start_logit=phi, time_per_round=steps * setting.learning_rate, **shared
            )
    return phi


def _spaced(low: float, high: float, num_points: int) -> np.ndarray:
    return _short(np.geomspace(low, high, num_points))


def _from_zero(low: float, high: float, num_points: int) -> np.ndarray:
    return np.append(0.0, _spaced(low, high, num_points - 1))


def _short(values: np.ndarray) -> np.ndarray:
    """Return the values to two digits, which a reader can repeat; those that become the same once."""
    return np.unique([float(f"{value:.2g}") for value in values])
