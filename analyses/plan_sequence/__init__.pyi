from .figure import plot
from .plan_sequence import Settings, run, summary, table
from .words import MEANINGS, answer

__all__ = ["MEANINGS", "Settings", "answer", "plot", "run", "summary", "table"]
