"""What is trained, toward what, by which divergence: NumPyro models, guides and ELBOs."""

from mixture_models import companions, objectives, rewards, theory
from mixture_models.advantage_regression import AdvantageRegression
from mixture_models.divergences import ForwardKL, ReverseKL
from mixture_models.entropic import AdaptiveTemperature, EntropicUtility, FixedTemperature
from mixture_models.expectations import MonteCarlo, Quadrature
from mixture_models.jensen_shannon import JensenShannon, OnPolicyForwardKL
from mixture_models.learners import SingleModeLearner, TwoModeLearner, single_mode_learner, two_mode_learner
from mixture_models.mixture_law import MixtureLaw
from mixture_models.objectives import Objective
from mixture_models.two_mode import TwoMode, bhattacharyya, mahalanobis, responsibilities
from mixture_models.validation import InputError

__all__ = [
    "AdaptiveTemperature",
    "AdvantageRegression",
    "EntropicUtility",
    "FixedTemperature",
    "ForwardKL",
    "InputError",
    "JensenShannon",
    "MixtureLaw",
    "MonteCarlo",
    "Objective",
    "OnPolicyForwardKL",
    "Quadrature",
    "ReverseKL",
    "SingleModeLearner",
    "TwoMode",
    "TwoModeLearner",
    "bhattacharyya",
    "companions",
    "mahalanobis",
    "objectives",
    "responsibilities",
    "rewards",
    "single_mode_learner",
    "theory",
    "two_mode_learner",
]
