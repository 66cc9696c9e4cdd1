from .compare_runs import Settings, named, plot, remarks, run, summary, table

__all__ = ["Settings", "named", "plot", "remarks", "run", "summary", "table"]
