from .chen2025 import FACTOR, Settings, conclusion, published_steps, remarks, run, summary, table, write

__all__ = [
    "FACTOR",
    "Settings",
    "conclusion",
    "published_steps",
    "remarks",
    "run",
    "summary",
    "table",
    "write",
]
