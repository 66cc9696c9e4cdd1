"""At which settings do SDFT, TTT-Discover and OAPL forget? Maps of retention and old drift."""

from analyses.near_on_policy.figures import plot
from analyses.near_on_policy.near_on_policy import run, summary, table, write

__all__ = ["plot", "run", "summary", "table", "write"]
