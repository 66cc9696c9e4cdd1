"""What determines the numbers of a sweep, to be compared with what a store says of its own."""

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import jax
import numpy as np

from inference import results
from inference.storage import versions
from inference.storage.reading import JsonObject
from inference.sweeps.grid import Grid
from mixture_models.objectives import Objective

# Versions that can change a number.
_VERSIONS = ("massdrift", "jax", "jaxlib", "numpyro", "optax")

# Where an object lies in memory, as `repr` has it.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def identity(grid: Grid) -> JsonObject:
    """Return everything that determines a sweep's numbers, as JSON has it."""
    first = grid.at(0, (0,) * len(grid.shape))
    mixtures = {}
    for name, mixture in (("start", first.start), ("target", first.target)):
        for field in fields(mixture):
            value = getattr(mixture, field.name)
            mixtures[f"{name}.{field.name}"] = None if value is None else np.asarray(value).tolist()
    facts = {
        "layout": results.LAYOUT,
        **{f"version of {package}": versions.version_of(package) for package in _VERSIONS},
        "backend": jax.default_backend(),
        "objectives": [objective.name for objective in grid.objectives],
        "parts of the objectives": [_fingerprint(objective) for objective in grid.objectives],
        "axes": list(grid.axes),
        **{f"values of {name}": values.tolist() for name, values in grid.axes.items()},
        "new_tasks": list(grid.new_tasks),
        **mixtures,
        **grid.of_training,
        "start at every point": _starts(grid),
    }
    return json.loads(json.dumps(facts))


def difference(stored: Mapping[str, object], given: Mapping[str, object]) -> str | None:
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


def _fingerprint(objective: Objective) -> list[object]:
    """Return the numbers of an objective and, as text, all else that it is made of.

    The structure of a pytree holds the static fields of its nodes, such as a group's size.
    """
    parts = (objective.model, objective.guide, objective.loss, objective.companion)
    leaves, structure = jax.tree.flatten(parts)
    number = int | float | np.ndarray | np.generic | jax.Array
    words = [np.asarray(x).tolist() if isinstance(x, number) else _words(x) for x in leaves]
    return [_words(structure), *words]


def _words(thing: Any) -> str:
    """Return what a thing is as text that is the same in every process; of a function also a checksum."""
    code = getattr(thing, "__code__", None)
    if code is None:
        return _ADDRESS.sub("", str(thing))
    # Functions of one name may differ, such as two lambdas.
    body = code.co_code + _ADDRESS.sub("", repr((code.co_names, code.co_consts))).encode()
    return f"{thing.__module__}.{thing.__qualname__} {zlib.crc32(body):08x}"
