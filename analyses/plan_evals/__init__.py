"""How many items, answers an item and training seeds does it take to see what was forgotten?"""

from analyses.plan_evals.plan_evals import ANSWERS, remarks, run, summary, table, write

__all__ = ["ANSWERS", "remarks", "run", "summary", "table", "write"]
