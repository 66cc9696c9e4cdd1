"""What will each objective leave of old behaviour, and how much replay, anchor or KL weight does it need?"""

from analyses.plan.plan import estimate, run, summary, table, write

__all__ = ["estimate", "run", "summary", "table", "write"]
