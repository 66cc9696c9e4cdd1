"""Which objective forgets, how much, and in which of the two ways? The main comparison."""

from analyses.compare.compare import run, summary, table, write
from analyses.compare.figures import plot
from analyses.compare.settings import Settings

__all__ = ["Settings", "plot", "run", "summary", "table", "write"]
