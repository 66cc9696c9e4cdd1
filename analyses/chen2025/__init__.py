"""The simulation of Chen et al. 2025 (arXiv:2510.18874): does the objective retain, or a rate factor?"""

from analyses.chen2025.chen2025 import (
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
