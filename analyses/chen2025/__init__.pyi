from .chen2025 import (
    FACTOR,
    conclusion,
    published_steps,
    remarks,
    run,
    summary,
    table,
    write,
)

__all__ = ["FACTOR", "conclusion", "published_steps", "remarks", "run", "summary", "table", "write"]
