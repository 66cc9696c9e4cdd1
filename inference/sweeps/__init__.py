"""Trainings over a grid of settings, into a store that loses no finished block."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
