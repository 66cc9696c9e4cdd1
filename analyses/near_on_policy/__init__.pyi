from .figures import plot
from .near_on_policy import Settings, run, summary, table
from .words import MEANINGS, answer

__all__ = ["MEANINGS", "Settings", "answer", "plot", "run", "summary", "table"]
