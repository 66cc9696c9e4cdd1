from .compare_runs import Settings, plot, remarks, run, summary, table

__all__ = ["Settings", "plot", "remarks", "run", "summary", "table"]
