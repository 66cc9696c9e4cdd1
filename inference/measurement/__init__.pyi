from .checkpoints import measure
from .evals.measure_evals import measure_evals
from .generations.generations import Generations, read_generations
from .generations.measure_generations import measure_generations
from .generations.rows import Columns
from .scores.measure_scores import measure_scores
from .separation import EstimatedSetting, estimate_setting

__all__ = [
    "Columns",
    "EstimatedSetting",
    "Generations",
    "estimate_setting",
    "measure",
    "measure_evals",
    "measure_generations",
    "measure_scores",
    "read_generations",
]
