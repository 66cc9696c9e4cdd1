from .measure import Settings, plot, remarks, run, summary, table, write
from .words import MEANINGS, answer

__all__ = ["MEANINGS", "Settings", "answer", "plot", "remarks", "run", "summary", "table", "write"]
