from .compare import remarks, run, summary, table
from .figures import plot
from .settings import Settings

__all__ = ["Settings", "plot", "remarks", "run", "summary", "table"]
