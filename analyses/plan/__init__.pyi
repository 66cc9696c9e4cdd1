from .plan import estimate, run, summary, table, write

__all__ = ["estimate", "run", "summary", "table", "write"]
