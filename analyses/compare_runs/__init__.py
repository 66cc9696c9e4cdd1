"""Comparisons of measured runs, of two modes or of several tasks, by `inference.compare_runs`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
