"""Which objective forgets, how much, and in which of the two ways? The main comparison."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
