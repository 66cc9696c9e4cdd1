from .figure import plot
from .plan import Settings, estimate, remarks, run, summary, table
from .words import MEANINGS, answer

__all__ = ["MEANINGS", "Settings", "answer", "estimate", "plot", "remarks", "run", "summary", "table"]
