from .figures import plot
from .near_on_policy import Settings, run, summary, table

__all__ = ["Settings", "plot", "run", "summary", "table"]
