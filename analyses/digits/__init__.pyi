from .digits import remarks, run, table
from .figures import plot, write
from .settings import Settings

__all__ = ["Settings", "plot", "remarks", "run", "table", "write"]
