from .digits import remarks, run, table
from .figures import plot
from .layout import summary
from .settings import Settings
from .words import MEANINGS, answer

__all__ = ["MEANINGS", "Settings", "answer", "plot", "remarks", "run", "summary", "table"]
