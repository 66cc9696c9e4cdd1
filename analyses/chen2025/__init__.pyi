from .chen2025 import FACTOR, Settings, conclusion, extras, published_steps, remarks, run, summary, table
from .figures import plot
from .words import MEANINGS, answer

__all__ = [
    "FACTOR",
    "MEANINGS",
    "Settings",
    "answer",
    "conclusion",
    "extras",
    "plot",
    "published_steps",
    "remarks",
    "run",
    "summary",
    "table",
]
