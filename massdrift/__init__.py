"""massdrift in one import: the public names of `mixture_models` and of `inference`.

    import massdrift as md

    md.measure(samples, old, new)
    md.train(md.objectives.sft(), start, target, ...)

A name is imported when it is first used.
"""


def __getattr__(name: str) -> object:
    # Here, as the command imports this package, and its help needs neither.
    import inference
    import mixture_models

    packages = mixture_models, inference
    if name == "__all__":
        return sorted({public for package in packages for public in package.__all__})
    for package in packages:
        if name in package.__all__:
            return getattr(package, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__getattr__("__all__"))  # type: ignore[call-overload]
