from .digits_sequence import run
from .figures import plot
from .report import remarks, summary, table
from .settings import Settings
from .words import MEANINGS, answer

__all__ = ["MEANINGS", "Settings", "answer", "plot", "remarks", "run", "summary", "table"]
