from .evals import Settings, columns_of, logs_of, plot, remarks, run, summary, table, write

__all__ = ["Settings", "columns_of", "logs_of", "plot", "remarks", "run", "summary", "table", "write"]
