from . import companions, objectives, precision, rewards, theory
from .advantage_regression import AdvantageRegression
from .divergences import ForwardKL, ReverseKL
from .entropic import AdaptiveTemperature, EntropicUtility, FixedTemperature
from .expectations import MonteCarlo, Quadrature
from .jensen_shannon import JensenShannon, OnPolicyForwardKL
from .learners import SingleModeLearner, TwoModeLearner, single_mode_learner, two_mode_learner
from .mixture_law import MixtureLaw
from .objective import Objective
from .prediction import Knob, Prediction
from .two_mode import TwoMode, bhattacharyya, mahalanobis, responsibilities
from .validation import InputError

__all__ = [
    "AdaptiveTemperature",
    "AdvantageRegression",
    "EntropicUtility",
    "FixedTemperature",
    "ForwardKL",
    "InputError",
    "JensenShannon",
    "Knob",
    "MixtureLaw",
    "MonteCarlo",
    "Objective",
    "OnPolicyForwardKL",
    "Prediction",
    "Quadrature",
    "ReverseKL",
    "SingleModeLearner",
    "TwoMode",
    "TwoModeLearner",
    "bhattacharyya",
    "companions",
    "mahalanobis",
    "objectives",
    "precision",
    "responsibilities",
    "rewards",
    "single_mode_learner",
    "theory",
    "two_mode_learner",
]
