from .compare import remarks, run, summary, table
from .figures import plot
from .settings import Settings
from .words import MEANINGS, answer

__all__ = ["MEANINGS", "Settings", "answer", "plot", "remarks", "run", "summary", "table"]
