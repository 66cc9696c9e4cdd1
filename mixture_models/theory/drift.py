"""Old-component drift: what moves an old mode under reverse KL to the target.

A learner and a target may carry leading batch axes (a trajectory's, say): logits (...) and means (..., d).
"""

import numpy as np
from jaxtyping import Float

from mixture_models.mixture.two_mode import TwoMode, expit
from mixture_models.theory.mass import sigmoid_mean
from mixture_models.types import Reals
from mixture_models.validation import InputError


def old_mean_drive(learner: TwoMode, target: TwoMode) -> Float[Reals, "... d"]:
    """Return Σ ∂KL(q ‖ p_α)/∂m_o, the negative of the whitened flow's velocity of the old mean, exact.

    It is β {(m_o - μ_o) + E[r_n] (m_n - m_o) - E[s_n] (μ_n - μ_o)} with expectations under N(m_o, Σ). Where
    the old mode is right the first term vanishes, and only misassignment moves it.

    Args:
        learner: q.
        target: p_α, with the same covariance Σ.

    Returns:
        float64 of shape (..., d), in the user's coordinates: its length is `mahalanobis`'s with Σ, and Σ⁻¹ of
        it is the Euclidean gradient.

    Raises:
        InputError: covariances that differ, or dimensions that do.

    Source: arXiv:2603.12163 for the claim; derivation: docs/theory.md.
    """
    check_one_covariance(learner, target)
    mean = learner.old_mean
    claimed, truly_new = (
        sigmoid_mean(-mixture.log_odds(mean), mixture.separation**2) for mixture in (learner, target)
    )
    result: Reals = np.asarray(expit(learner.old_logit))[..., None] * (
        (mean - target.old_mean)
        + claimed[..., None] * (learner.new_mean - mean)
        - truly_new[..., None] * (target.new_mean - target.old_mean)
    )
    return result


def check_one_covariance(*mixtures: TwoMode) -> None:
    """Raise `InputError` unless all modes have one covariance and one dimension."""
    first = mixtures[0]
    for mixture in mixtures:
        if mixture.new_scale is not None:
            raise InputError("the theory needs one covariance for both modes; got a new_covariance")
        if mixture.dim != first.dim:
            raise InputError(f"learner and target must have one dimension; got {first.dim} and {mixture.dim}")
        if not np.array_equal(mixture.scale, first.scale):
            raise InputError("learner and target must have the same covariance; got two")
