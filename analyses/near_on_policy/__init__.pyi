from .figures import plot
from .near_on_policy import run, summary, table, write

__all__ = ["plot", "run", "summary", "table", "write"]
