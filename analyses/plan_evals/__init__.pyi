from .figure import plot
from .plan_evals import Settings, remarks, run, summary, table
from .words import MEANINGS, answer

__all__ = ["MEANINGS", "Settings", "answer", "plot", "remarks", "run", "summary", "table"]
