from .measure import Settings, plot, remarks, run, summary, table, write

__all__ = ["Settings", "plot", "remarks", "run", "summary", "table", "write"]
