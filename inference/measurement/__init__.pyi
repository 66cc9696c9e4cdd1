from .checkpoints import measure
from .scores import measure_scores
from .separation import EstimatedSetting, estimate_setting

__all__ = ["EstimatedSetting", "estimate_setting", "measure", "measure_scores"]
