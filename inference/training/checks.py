"""What a training refuses, before anything is computed."""

from collections.abc import Iterable, Mapping, Sequence

import jax
import numpy as np
import optax

from inference import results
from mixture_models.mixture.mixture import Mixture, like_tasks
from mixture_models.objectives import Objective
from mixture_models.rewards import check_finite
from mixture_models.validation import InputError, number

#: Random numbers of a batch.
MOST_NUMBERS = 2**32 - 1

#: Steps are counted in 32 bits.
MOST_STEPS = 2**31 - 2


def check_objectives(objectives: Objective | Sequence[Objective]) -> list[Objective]:
    """Return one objective or several as a list, or refuse anything else."""
    if isinstance(objectives, Iterable) and not isinstance(objectives, Objective):
        chosen = [*objectives]
    else:
        chosen = [objectives]
    if not chosen or not all(isinstance(objective, Objective) for objective in chosen):
        kinds = ", ".join(type(objective).__name__ for objective in chosen) or "none"
        raise InputError(
            f"objectives must be at least one Objective, see mixture_models.objectives; got {kinds}"
        )
    results.names(chosen)
    return chosen


def check_setting(start: Mixture, target: Mixture) -> None:
    """Refuse what is no pair of mixtures of one dimension and the same tasks, and a target of one mode."""
    for name, mixture in (("start", start), ("target", target)):
        if not isinstance(mixture, Mixture):
            raise InputError(f"{name} must be a TwoMode or a Mixture; got {type(mixture).__name__}")
    like_tasks("start", start, target)
    if start.dim != target.dim:
        raise InputError(f"start and target must have one dimension; got {start.dim} and {target.dim}")
    with np.errstate(over="ignore"):
        separations = np.asarray(target.separations)[np.triu_indices(target.num_tasks, 1)]
    if np.isinf(separations).any():
        raise InputError("the target's modes are too far apart: their squared distance must be finite")
    if target.shared_scale is not None and not (separations > 0.0).all():
        raise InputError("the target's modes must differ; got separation 0")


def check_rewards(objectives: Sequence[Objective], start: Mixture, target: Mixture) -> None:
    """Refuse rewards that are not finite where the learner starts."""
    for objective in objectives:
        if objective.loss.reward is not None:
            with jax.enable_x64(True):
                check_finite(objective.name, objective.loss.reward, start, target)


def check_factors(factors: Mapping[str, object] | None) -> dict[str, float]:
    """Return learning rate factors as floats, none for None, or refuse what is negative or no number."""
    if factors is None:
        return {}
    if not isinstance(factors, Mapping):
        raise InputError(f"learning_rate_factors must map names of params to numbers; got {factors!r}")
    checked = {
        name: float(number(f"learning_rate_factors[{name!r}]", value)) for name, value in factors.items()
    }
    negative = sorted(name for name, value in checked.items() if value < 0.0)
    if negative:
        raise InputError(
            f"learning_rate_factors must not be negative; got {checked[negative[0]]:g} for {negative[0]}"
        )
    return checked


def check_optimizer(optimizer: object) -> None:
    """Refuse what is neither None, for plain SGD, nor an optax transformation."""
    if not (optimizer is None or isinstance(optimizer, optax.GradientTransformation)):
        raise InputError(
            f"optimizer must be an optax.GradientTransformation such as optax.adam(0.05); got {optimizer!r}"
        )


def check_batch(batch_size: int, dimension: int) -> None:
    """Refuse a batch for which there are too few random numbers: they are counted in 32 bits."""
    if batch_size * dimension > MOST_NUMBERS:
        raise InputError(
            f"batch_size times dimension must be at most {MOST_NUMBERS}, as random numbers are counted in 32 "
            f"bits; got {batch_size} times {dimension}"
        )
