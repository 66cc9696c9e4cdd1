"""The measurement by log-likelihoods, of two tasks or of several, by `inference.measure_scores`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
