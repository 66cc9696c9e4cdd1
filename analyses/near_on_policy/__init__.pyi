from .figures import plot
from .near_on_policy import run, summary, table
from .settings import Settings
from .words import MEANINGS, answer

__all__ = ["MEANINGS", "Settings", "answer", "plot", "run", "summary", "table"]
