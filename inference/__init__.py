"""How learners are trained and measured: loops, estimators and the layout of their results."""

from inference.measurement import measure, measure_scores
from inference.population import Parameters, population_value_and_grad
from inference.results import open, save
from inference.run_comparison import compare_runs
from inference.training import train

__all__ = [
    "Parameters",
    "compare_runs",
    "measure",
    "measure_scores",
    "open",
    "population_value_and_grad",
    "save",
    "train",
]
