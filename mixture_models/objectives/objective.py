"""What an objective is, and the registry of those that have a name.

Nothing dispatches on a name: whoever lists, trains, plans or draws objectives asks the registry.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any, Self

import jax
import numpy as np

from mixture_models.objectives import arguments
from mixture_models.theory.prediction import Prediction
from mixture_models.validation import InputError, one_of


@dataclass(frozen=True)
class Objective:
    """A post-training objective.

    Attributes:
        name: what tables and results call it, such as ``"sft:replay=0.2"``.
        model: NumPyro program ``(start, target)``, the law that the learner is pulled toward; with a
            companion it takes the companion's params as the keyword argument ``companion``; None stands for
            those at the start, or is refused where the companion moves.
        guide: NumPyro program ``(start, target)``, the learner; its params are what training moves.
        divergence: NumPyro ELBO between the two; it holds the sampling law.
        description: the model in words.
        companion: the policy that travels beside the learner, see `companions`, or None.
        prediction: its course by theory alone, which `massdrift plan` reads, or None where there is none.
        made_by: the constructor and its arguments, for `changed`; None where none is registered.

    The model, the guide, the divergence and the companion are JAX pytrees whose leaves are the numeric
    settings: objectives that differ in numbers only share one compiled program.
    """

    name: str
    model: Callable[..., None]
    guide: Callable[..., None]
    divergence: Any
    description: str = ""
    companion: Any = None
    prediction: Prediction | None = None
    made_by: tuple[Callable[..., Any], dict[str, Any]] | None = field(default=None, repr=False, compare=False)

    @property
    def arguments(self) -> list[str]:
        """The names of the constructor's arguments; none where no constructor is registered."""
        return [] if self.made_by is None else list(inspect.signature(self.made_by[0]).parameters)

    def changed(self, **changes: Any) -> Self:
        """Return what the constructor makes with some arguments changed; the name stays.

        Raises:
            InputError: an argument that the constructor does not take, a refused value, or an objective that
                is not what a registered constructor made.
        """
        if not changes:
            return self
        if self.made_by is None or not self._is_as_made():
            wanted = "must be what a registered constructor makes, for its arguments to be changed"
            raise InputError(f"{self.name} {wanted}; got one put together by hand")
        for name in changes:
            one_of(f"the argument of {self.name}", name, self.arguments)
        constructor, given = self.made_by
        return replace(constructor(**(given | changes)), name=self.name)

    def _is_as_made(self) -> bool:
        """Return whether no part was replaced since the constructor made it."""
        constructor, given = self.made_by or (None, {})
        mine, made = (
            jax.tree.flatten((o.model, o.guide, o.divergence, o.companion))
            for o in (self, constructor(**given) if constructor else self)
        )
        same_structure: Any = mine[1]
        return bool(same_structure == made[1]) and all(
            a is b or np.array_equal(a, b) for a, b in zip(mine[0], made[0], strict=True)
        )


#: Constructor of every known objective, by name.
registry: dict[str, Callable[..., Objective]] = {}


def register(constructor: Callable[..., Objective]) -> Callable[..., Objective]:
    """Add an objective's constructor to `registry`; its objectives are named after their arguments.

    The name is the constructor's and lists the arguments that differ from their defaults.
    """
    name = constructor.__name__
    parameters = inspect.signature(constructor).parameters

    @wraps(constructor)
    def named(*args: Any, **kwargs: Any) -> Objective:
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
            made_by=(named, dict(given)),
        )

    registry[name] = named
    return named


def variant(
    **settings: Any,
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


def _variants(constructor: Callable[..., Objective]) -> tuple[Mapping[str, Any], ...]:
    return constructor.__dict__.get("variants", ())


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
    given: dict[str, Any] = {}
    for setting in arguments.split(settings):
        key, equals, value = setting.partition("=")
        one_of(f"the argument of {name}", key.strip(), known)
        if not equals:
            raise InputError(f"an argument of {name} must be written {key}=VALUE; got {setting!r}")
        if key.strip() in given:
            raise InputError(f"an argument of {name} may be given once; got {key.strip()} twice")
        given[key.strip()] = arguments.value_of(value.strip())
    return constructor(**given)
