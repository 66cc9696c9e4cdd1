"""What determines the numbers of a sweep, to be compared with what a store says of its own."""

import json
import zlib
from typing import Any

import jax
import numpy as np

from inference import results
from inference.sweeps.grid import Grid

# Versions that can change a number.
_VERSIONS = ("massdrift", "jax", "jaxlib", "numpyro", "optax")


def identity(grid: Grid) -> dict[str, Any]:
    """Return everything that determines a sweep's numbers, as JSON has it."""
    first = grid.at(0, (0,) * len(grid.shape))
    mixtures = {}
    for name, mixture in (("start", first.start), ("target", first.target)):
        for field in type(mixture).__dataclass_fields__:
            value = getattr(mixture, field)
            mixtures[f"{name}.{field}"] = None if value is None else np.asarray(value).tolist()
    facts = {
        "layout": results.LAYOUT,
        **{f"version of {package}": results.version_of(package) for package in _VERSIONS},
        "backend": jax.default_backend(),
        "objectives": [objective.name for objective in grid.objectives],
        "parts of the objectives": [_fingerprint(objective) for objective in grid.objectives],
        "axes": list(grid.axes),
        **{f"values of {name}": values.tolist() for name, values in grid.axes.items()},
        **mixtures,
        "num_steps": grid.num_steps,
        "batch_size": grid.batch_size,
        "learning_rate": grid.learning_rate,
        "num_replicates": grid.num_replicates,
        "seed": grid.seed,
        "record_every": grid.record_every,
        "learning_rate_factors": dict(grid.factors),
        "common_random_numbers": grid.common_random_numbers,
        "precision": grid.precision,
        "dimension": grid.dimension,
        "start at every point": _starts(grid),
    }
    return json.loads(json.dumps(facts))


def difference(stored: Any, given: Any) -> str | None:
    """Say in words what differs first between two identities, or None."""
    for name, here in given.items():
        there = stored.get(name)
        if there != here:
            both = [json.dumps(value) for value in (there, here)]
            # Long lists are not written out.
            if max(map(len, both)) > 200:
                return f"{name} differ"
            return f"{name} is {both[0]} there and {both[1]} here"
    return None


def _starts(grid: Grid) -> int:
    """Return a checksum of the starts: a function of the target cannot be compared otherwise."""
    total = 0
    for start, _ in grid.all_mixtures(("target.", "start.")):
        for leaf in jax.tree.leaves(start):
            total = zlib.crc32(np.ascontiguousarray(leaf, np.float64).tobytes(), total)
    return total


def _fingerprint(objective: Any) -> list[Any]:
    """Return the numbers of an objective and the names of what it is made of."""
    leaves = jax.tree.leaves(
        (objective.model, objective.guide, objective.divergence, objective.companion),
    )
    kinds = [type(part).__qualname__ for part in (objective.guide, objective.divergence, objective.companion)]
    words = [repr(getattr(objective.divergence, name, "")) for name in ("estimator", "replay")]
    return [
        *kinds,
        *words,
        *(np.asarray(leaf).tolist() if _numeric(leaf) else str(type(leaf)) for leaf in leaves),
    ]


def _numeric(leaf: Any) -> bool:
    return isinstance(leaf, int | float | np.ndarray | np.generic | jax.Array)
