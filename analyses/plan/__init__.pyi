from .figure import plot
from .plan import Settings, estimate, run, summary, table

__all__ = ["Settings", "estimate", "plot", "run", "summary", "table"]
