"""The arguments of an objective as text, and back: ``replay=0.2,reward=mode_reward(0.0,1.0)``."""

import ast
from collections.abc import Callable, Iterator

from mixture_models import rewards
from mixture_models.mixture.mixture import Mixture
from mixture_models.mixture.two_mode import TwoMode
from mixture_models.rewards import Reward
from mixture_models.validation import InputError, one_of

#: What may be called in a text, by name.
_CONSTRUCTORS: dict[str, Callable[..., Reward | Mixture]] = {
    **rewards.registry,
    "task_reward": rewards.task_reward,
    "TwoMode": TwoMode.create,
    "Mixture": Mixture.create,
}


def text_of(value: object) -> str:
    """Return an argument as the text that `value_of` reads; of a function, its name."""
    return str(getattr(value, "__name__", value))


def split(text: str) -> Iterator[str]:
    """Yield the arguments of a text, which commas outside brackets part; empty ones are left out."""
    depth, argument = 0, ""
    for character in f"{text},":
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth <= 0:
            if argument.strip():
                yield argument.strip()
            argument = ""
        else:
            argument += character
    if argument.strip():
        raise InputError(f"brackets must be closed; got {text!r}")


def value_of(text: str) -> object:
    """Return the value that a text stands for: a Python literal, a reward or a mixture, or the text itself.

    Raises:
        InputError: a call of something else, or with arguments that it does not take.
    """
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last two of what is nested deeply
        return text
    try:
        if not (isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name)):
            return ast.literal_eval(tree)
        constructor = _CONSTRUCTORS[one_of("a call", tree.func.id, _CONSTRUCTORS)]
        values = [ast.literal_eval(argument) for argument in tree.args]
        named = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in tree.keywords}
    except InputError:
        raise
    except (ValueError, TypeError, RecursionError, MemoryError):
        return text
    try:
        return constructor(*values, **named)
    except TypeError as error:
        raise InputError(f"{text} must be a call with arguments that it takes: {error}") from None
