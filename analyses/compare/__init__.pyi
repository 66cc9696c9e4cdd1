from .compare import run, summary, table, write
from .figures import plot
from .settings import Settings

__all__ = ["Settings", "plot", "run", "summary", "table", "write"]
