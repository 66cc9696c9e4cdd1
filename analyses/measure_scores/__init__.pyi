from .measure_scores import Settings, plot, remarks, run, summary, table

__all__ = ["Settings", "plot", "remarks", "run", "summary", "table"]
