"""How tasks are named where there are several, and the prior of their weights."""

from collections.abc import Collection, Mapping

from mixture_models.validation import InputError, number

#: The task that is new where no other is named, and tasks at most.
NEW, MOST_TASKS = "new", 20


def named_references[T](
    old_reference: T | Mapping[str, T], new_reference: T | None, new_task: str | None
) -> dict[str, T] | None:
    """Return references by name, or None where an old and a new one are given.

    Raises:
        InputError: neither or both of the two are given, or names that cannot be tasks'.
    """
    mapping = isinstance(old_reference, Mapping) and "samples" not in old_reference
    if new_reference is None and not mapping:
        raise InputError(
            "there must be an old_reference and a new_reference, or a mapping from tasks to references; got "
            f"{type(old_reference).__name__} alone"
        )
    if new_reference is not None:
        if mapping and len(old_reference) > 1:  # type: ignore[arg-type]
            raise InputError("references by name stand in one mapping; got a new_reference too")
        if new_task is not None:
            raise InputError(
                f"new_task names one of several references by name; got {new_task!r} without these"
            )
        return None
    references = dict(old_reference)  # type: ignore[arg-type]
    check_names(references, new_task)
    return references


def check_names(references: Collection[str], new_task: str | None) -> str | None:
    """Return the new task, or None where none is.

    Raises:
        InputError: names that cannot be tasks', too few or too many of them, or a new task that is none.
    """
    for name in references:
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"references must be named by texts that are not empty; got {name!r}")
    twice = sorted({name for name in references if sum(name.strip() == o.strip() for o in references) > 1})
    if twice:
        raise InputError(f"references must have different names; got {', '.join(map(repr, twice))}")
    if not 2 <= len(references) <= MOST_TASKS:
        raise InputError(f"there must be 2 to {MOST_TASKS} references; got {len(references)}")
    if new_task is not None and new_task not in references:
        raise InputError(f"new_task must be one of {', '.join(references)}; got {new_task!r}")
    return NEW if new_task is None and NEW in references else new_task


def dirichlet_shapes(weight_prior: object, num: int) -> tuple[float, ...]:
    """Return the shapes of a Dirichlet prior, each at least 1, those of a uniform one for (1, 1)."""
    try:
        shapes = tuple(number("weight_prior", one) for one in weight_prior)  # type: ignore[attr-defined]
    except TypeError:
        raise InputError(f"weight_prior must be {num} shapes, one a task; got {weight_prior!r}") from None
    if shapes == (1.0, 1.0):
        return (1.0,) * num
    if len(shapes) != num or min(shapes) < 1.0:
        raise InputError(f"weight_prior must be {num} shapes of at least 1, one a task; got {weight_prior!r}")
    return shapes
