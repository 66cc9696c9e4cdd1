from .comparison.joined import with_forward_kl
from .comparison.runs import compare_runs
from .exact.descent import population_descent
from .exact.flow import gradient_flow
from .exact.population import Parameters, Population, population, population_value_and_grad
from .exact.sequence import sequence_flow
from .measurement import (
    Columns,
    EstimatedSetting,
    Generations,
    estimate_setting,
    measure,
    measure_evals,
    measure_generations,
    measure_scores,
    read_generations,
)
from .results import open, save
from .sweeps import open_sweep, sweep
from .training.sequence import train_sequence
from .training.stages import Stage, stages_of
from .training.train import train

__all__ = [
    "Columns",
    "EstimatedSetting",
    "Generations",
    "Parameters",
    "Population",
    "Stage",
    "compare_runs",
    "estimate_setting",
    "gradient_flow",
    "measure",
    "measure_evals",
    "measure_generations",
    "measure_scores",
    "open",
    "open_sweep",
    "population",
    "population_descent",
    "population_value_and_grad",
    "read_generations",
    "save",
    "sequence_flow",
    "stages_of",
    "sweep",
    "train",
    "train_sequence",
    "with_forward_kl",
]
