from .evals import Settings, columns_of, extras, logs_of, plot, remarks, run, summary, table
from .words import MEANINGS, answer

__all__ = [
    "MEANINGS",
    "Settings",
    "answer",
    "columns_of",
    "extras",
    "logs_of",
    "plot",
    "remarks",
    "run",
    "summary",
    "table",
]
