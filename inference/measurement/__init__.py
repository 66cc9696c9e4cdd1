"""How much old behaviour a real checkpoint keeps and how far it has moved, from samples."""

from inference.measurement.checkpoints import measure
from inference.measurement.scores import measure_scores

__all__ = ["measure", "measure_scores"]
