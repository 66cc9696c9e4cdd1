from .checkpoints import measure
from .evals.measure_evals import measure_evals
from .scores.measure_scores import measure_scores
from .separation import EstimatedSetting, estimate_setting

__all__ = ["EstimatedSetting", "estimate_setting", "measure", "measure_evals", "measure_scores"]
