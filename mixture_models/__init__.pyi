from . import objectives, rewards, theory
from .learners import (
    Guide,
    MixtureLearner,
    SingleModeLearner,
    TwoModeLearner,
    mixture_learner,
    single_mode_learner,
    two_mode_learner,
)
from .losses import precision
from .losses.advantage_regression import AdvantageRegression
from .losses.entropic import AdaptiveTemperature, EntropicUtility, FixedTemperature
from .losses.expectations import MonteCarlo, Quadrature
from .losses.jensen_shannon import JensenShannon, OnPolicyForwardKL
from .losses.kl import ForwardKL, ReverseKL
from .losses.loss import Loss
from .mixture.law import MixtureLaw
from .mixture.mixture import Mixture, overlaps
from .mixture.task import Task
from .mixture.two_mode import TwoMode, bhattacharyya, mahalanobis, responsibilities
from .objectives import companions
from .objectives.objective import Objective
from .theory.predictions import Hyperparameter, Prediction
from .validation import InputError

__all__ = [
    "AdaptiveTemperature",
    "AdvantageRegression",
    "EntropicUtility",
    "FixedTemperature",
    "ForwardKL",
    "Guide",
    "Hyperparameter",
    "InputError",
    "JensenShannon",
    "Loss",
    "Mixture",
    "MixtureLaw",
    "MixtureLearner",
    "MonteCarlo",
    "Objective",
    "OnPolicyForwardKL",
    "Prediction",
    "Quadrature",
    "ReverseKL",
    "SingleModeLearner",
    "Task",
    "TwoMode",
    "TwoModeLearner",
    "bhattacharyya",
    "companions",
    "mahalanobis",
    "mixture_learner",
    "objectives",
    "overlaps",
    "precision",
    "responsibilities",
    "rewards",
    "single_mode_learner",
    "theory",
    "two_mode_learner",
]
