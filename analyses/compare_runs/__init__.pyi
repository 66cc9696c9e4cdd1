from .compare_runs import Settings, plot, remarks, run, summary, table
from .words import MEANINGS, answer

__all__ = ["MEANINGS", "Settings", "answer", "plot", "remarks", "run", "summary", "table"]
