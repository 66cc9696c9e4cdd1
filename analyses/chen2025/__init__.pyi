from .chen2025 import FACTOR, Settings, conclusion, published_steps, remarks, run, summary, table, write
from .figures import plot
from .words import MEANINGS, answer

__all__ = [
    "FACTOR",
    "MEANINGS",
    "Settings",
    "answer",
    "conclusion",
    "plot",
    "published_steps",
    "remarks",
    "run",
    "summary",
    "table",
    "write",
]
