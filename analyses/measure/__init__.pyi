from .measure import Settings, extras, plot, remarks, run, summary, table
from .words import MEANINGS, answer

__all__ = ["MEANINGS", "Settings", "answer", "extras", "plot", "remarks", "run", "summary", "table"]
