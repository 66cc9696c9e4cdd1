"""The layout of a result: its variables, its groups, and its files."""

from inference.results.build import (
    assembled,
    converged,
    names,
    objective_coords,
    on_grid,
    population_tree,
    provenance,
    recorded_steps,
    task_mixture,
    training_tree,
    two_mode,
)
from inference.results.schema import LAYOUT, attributes_of, describe, register
from inference.results.store import check_complete, foreign, open, save

__all__ = [
    "LAYOUT",
    "assembled",
    "attributes_of",
    "check_complete",
    "converged",
    "describe",
    "foreign",
    "names",
    "objective_coords",
    "on_grid",
    "open",
    "population_tree",
    "provenance",
    "recorded_steps",
    "register",
    "save",
    "task_mixture",
    "training_tree",
    "two_mode",
]
