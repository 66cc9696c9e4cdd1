"""How learners are trained and measured: loops, estimators and the layout of their results."""

from inference.descent import population_descent
from inference.flow import gradient_flow
from inference.measurement import measure, measure_scores
from inference.population import Parameters, Population, population, population_value_and_grad
from inference.results import open, save
from inference.run_comparison import compare_runs
from inference.sweep_store import open_sweep
from inference.sweeps import sweep
from inference.training import train

__all__ = [
    "Parameters",
    "Population",
    "compare_runs",
    "gradient_flow",
    "measure",
    "measure_scores",
    "open",
    "open_sweep",
    "population",
    "population_descent",
    "population_value_and_grad",
    "save",
    "sweep",
    "train",
]
