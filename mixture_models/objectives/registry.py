"""The registry of objectives that have a name: how they are named, parsed, made and changed.

Nothing dispatches on a name: whoever lists, trains, plans or draws objectives asks the registry.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import wraps

from mixture_models.objectives import arguments
from mixture_models.objectives.objective import Objective
from mixture_models.validation import InputError, one_of


@dataclass(frozen=True)
class Recipe:
    """How a registered constructor made an objective.

    Attributes:
        constructor: the registered one.
        given: its arguments, by name.
        parts: what it made, `Objective.parts`.
    """

    constructor: Callable[..., Objective]
    given: Mapping[str, object]
    parts: tuple[object, ...]


#: Constructor of every known objective, by name.
registry: dict[str, Callable[..., Objective]] = {}


def register(constructor: Callable[..., Objective]) -> Callable[..., Objective]:
    """Add an objective's constructor to `registry`; its objectives are named after their arguments.

    The name is the constructor's and lists the arguments that differ from their defaults.
    """
    name = constructor.__name__
    parameters = inspect.signature(constructor).parameters

    @wraps(constructor)
    def named(*args: object, **kwargs: object) -> Objective:
        given = inspect.signature(constructor).bind(*args, **kwargs).arguments
        objective = constructor(*args, **kwargs)  # first, as it refuses what cannot be compared
        changed = [
            f"{key}={arguments.text_of(value)}"
            for key, value in given.items()
            if value != parameters[key].default
        ]
        return replace(
            objective,
            name=":".join([name, ",".join(changed)] if changed else [name]),
            recipe=Recipe(named, dict(given), objective.parts),
        )

    registry[name] = named
    return named


def variant(
    **settings: object,
) -> Callable[[Callable[..., Objective]], Callable[..., Objective]]:
    """Name settings of an objective that are compared and planned by default, beside its own defaults.

    Goes under `register`, once a variant.
    """

    def remembered(constructor: Callable[..., Objective]) -> Callable[..., Objective]:
        constructor.__dict__["variants"] = (settings, *_variants(constructor))
        return constructor

    return remembered


def by_default() -> tuple[str, ...]:
    """Return the texts of all registered objectives, each followed by its variants."""
    return tuple(
        constructor(**settings).name
        for constructor in registry.values()
        for settings in ({}, *_variants(constructor))
    )


def _variants(constructor: Callable[..., Objective]) -> tuple[Mapping[str, object], ...]:
    variants: tuple[Mapping[str, object], ...] = constructor.__dict__.get("variants", ())
    return variants


def arguments_of(objective: Objective) -> list[str]:
    """Return the names of the arguments of an objective's constructor; none where none is registered."""
    recipe = objective.recipe
    return [] if recipe is None else list(inspect.signature(recipe.constructor).parameters)


def given_to(objective: Objective) -> Mapping[str, object]:
    """Return the arguments that an objective's constructor was given; none where none is registered."""
    return {} if objective.recipe is None else objective.recipe.given


def changed(objective: Objective, **changes: object) -> Objective:
    """Return what an objective's constructor makes with some arguments changed; the name stays.

    Raises:
        InputError: an argument that the constructor does not take, a refused value, or an objective that
            is not what a registered constructor made.
    """
    if not changes:
        return objective
    recipe = objective.recipe
    # A part that was replaced since is another object.
    if recipe is None or any(a is not b for a, b in zip(objective.parts, recipe.parts, strict=True)):
        wanted = "must be what a registered constructor makes, for its arguments to be changed"
        raise InputError(f"{objective.name} {wanted}; got one put together by hand")
    for name in changes:
        one_of(f"the argument of {objective.name}", name, arguments_of(objective))
    return replace(recipe.constructor(**{**recipe.given, **changes}), name=objective.name)


def parse(text: str) -> Objective:
    """Return the objective that a text such as ``"reverse_kl:replay=0.2,estimator=pathwise"`` names.

    Raises:
        InputError: an unknown objective or argument, with the known ones listed, or a refused value.
    """
    if not isinstance(text, str):
        raise InputError(f"an objective must be a text such as 'sft:replay=0.2'; got {text!r}")
    name, _, settings = text.partition(":")
    constructor = registry[one_of("objective", name.strip(), registry)]
    known = inspect.signature(constructor).parameters
    given: dict[str, object] = {}
    for setting in arguments.split(settings):
        key, equals, value = setting.partition("=")
        one_of(f"the argument of {name}", key.strip(), known)
        if not equals:
            raise InputError(f"an argument of {name} must be written {key}=VALUE; got {setting!r}")
        if key.strip() in given:
            raise InputError(f"an argument of {name} may be given once; got {key.strip()} twice")
        given[key.strip()] = arguments.value_of(value.strip())
    return constructor(**given)
