from .evals import Settings, columns_of, logs_of, plot, remarks, run, summary, table, write
from .words import MEANINGS, answer

__all__ = [
    "MEANINGS",
    "Settings",
    "answer",
    "columns_of",
    "logs_of",
    "plot",
    "remarks",
    "run",
    "summary",
    "table",
    "write",
]
