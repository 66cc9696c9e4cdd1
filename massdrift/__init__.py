"""massdrift in one import: the public names of `mixture_models` and of `inference`.

    import massdrift as md

    md.measure(samples, old, new)
    md.train(md.objectives.sft(), start, target, ...)

A name is imported when it is first used.
"""

import inference
import mixture_models

__all__ = sorted({*mixture_models.__all__, *inference.__all__})


def __getattr__(name: str) -> object:
    for package in (mixture_models, inference):
        if name in package.__all__:
            return getattr(package, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
