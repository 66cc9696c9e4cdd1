from .plan_evals import ANSWERS, remarks, run, summary, table, write

__all__ = ["ANSWERS", "remarks", "run", "summary", "table", "write"]
