from .figure import plot
from .plan_evals import Settings, remarks, run, summary, table

__all__ = ["Settings", "plot", "remarks", "run", "summary", "table"]
