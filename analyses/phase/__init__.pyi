from .figures import plot
from .lines import overlapping_below, starved_below, turned
from .phase import Settings, run, summary, table
from .words import MEANINGS, answer

__all__ = [
    "MEANINGS",
    "Settings",
    "answer",
    "overlapping_below",
    "plot",
    "run",
    "starved_below",
    "summary",
    "table",
    "turned",
]
